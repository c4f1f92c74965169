"""Queries that an index is tried with, and how much of what is nearest to them it finds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mel.retrieval.approximate import share_found
from mel.retrieval.exact import ExactIndex

PROBES = 500
DEPTH = 100  # as many as an evaluation ranks


class Probes(NamedTuple):
    """Queries like those that an index is for.

    Attributes:
      queries_QD: float32.
      kind: what they are, in the plural ("training mentions").
    """

    queries_QD: np.ndarray
    kind: str


def spread(count: int, most: int = PROBES) -> np.ndarray:
    """The places of some of `count` things, as far from each other as can be; ascending."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(most, count)).astype(np.int64))


def rows_as_probes(embeddings_ND: np.ndarray) -> Probes:
    """Some of the rows themselves, where nothing is known of what will be asked. Each is its own nearest."""
    return Probes(np.asarray(embeddings_ND[spread(len(embeddings_ND))], np.float32), "rows of the index")


def nearest_scores(embeddings_ND: np.ndarray, queries_QD: np.ndarray, depth: int) -> np.ndarray:
    """The scores of the rows nearest to each query, found exactly; as many as there are rows, if fewer."""
    return ExactIndex(embeddings_ND).search(queries_QD, min(depth, len(embeddings_ND)))[1]


def stated(probes: Probes, scores_Qk: np.ndarray, nearest_Qk: np.ndarray) -> dict[str, Any]:
    """The recall of what was found: how many queries of which kind, and the share of the `depth` nearest rows."""
    return {
        "queries": len(probes.queries_QD),
        "kind": probes.kind,
        "depth": nearest_Qk.shape[1],
        "recall": share_found(scores_Qk, nearest_Qk),
    }
