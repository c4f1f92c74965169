"""Embeddings to neighbours: the index protocol, its two implementations on disk, distinct entities."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np

from mel.artifacts import Artifact, exists, open_artifact, publish, readable
from mel.locks import claim
from mel.retrieval.approximate import ScannIndex, ScannSettings
from mel.retrieval.embeddings import EMBEDDINGS
from mel.retrieval.exact import ExactIndex
from mel.retrieval.probes import Probes, nearest_scores, rows_as_probes, stated
from mel.retrieval.sharded import SCANN, ShardedIndex, build_in_shards
from mel.retrieval.vectors import check_finite
from mel.types import NIL, MelError

KIND = "index"
LEAST_DEPTH = 64  # one deep search is cheaper than two, and an entity has a row in each of its languages
NEIGHBOURS_AT_ONCE = 2**22

IndexKind = Literal["exact", "scann"]


class Index(Protocol):
    """Finds the rows whose embeddings have the greatest inner products with a query."""

    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The neighbours of each query, best first.

        Args:
          queries_QD: float32.
          k: neighbours per query; it may exceed the number of rows.

        Returns:
          rows int32 [Q, k] and scores float32 [Q, k]; a missing neighbour is row -1, score -inf.

        Raises:
          MelError: queries are not finite, or of another dimension than the index.
        """
        ...


def publish_index(
    path: str | os.PathLike, kind: IndexKind, embeddings: Artifact, settings: ScannSettings | None = None,
    probes: Probes | None = None,
) -> Artifact:  # fmt: skip
    """Builds an index over published embeddings; it stands on its own, without them.

    ScaNN's is built in shards, where memory or `settings` ask for more than one, and tuned to `settings.least_recall`
    of what is nearest to the probes. Its facts: "recall", of the probes; "shards"; "needed_mb" and "peak_mb", the
    memory that building took, by calculation and as measured (0 where there is no tree).

    Args:
      path: where.
      kind: how it searches.
      embeddings: what it searches.
      settings: of ScaNN; None for its usual ones.
      probes: queries like those that it is for; some of its rows where there are none.

    Raises:
      MelError: there are no embeddings, some are not finite, ScaNN is not installed, or memory does not suffice.
    """
    embeddings_ND = _embeddings(embeddings.path)
    rows, dimension = embeddings_ND.shape
    if not rows:
        raise MelError(f"{embeddings.path} is empty, so there is nothing to search: prepare a KB with entities.")
    settings = (settings or ScannSettings()) if kind == "scann" else None
    with claim(path), publish(path, KIND, settings) as draft:
        draft.reads("embeddings", embeddings)
        with readable(embeddings):
            check_finite(embeddings_ND, "embeddings")
        facts = {}
        if settings is None:
            np.save(draft / EMBEDDINGS, embeddings_ND)
        else:
            facts = build_in_shards(_shards(path), embeddings, settings, probes or rows_as_probes(embeddings_ND), draft)
        draft.facts = {"kind": kind, "rows": rows, "dimension": dimension, **facts}
    shutil.rmtree(_shards(path), ignore_errors=True)
    return open_artifact(path, KIND)


def open_index(path: str | os.PathLike, embeddings: Artifact | None = None) -> Index:
    """Opens a published index; where `embeddings` are given it must have been built from them.

    Raises:
      MelError: there is none, it is damaged, or it was built from other embeddings.
    """
    artifact = open_artifact(path, KIND, {"embeddings": embeddings} if embeddings else None)
    facts = artifact.facts
    if facts["kind"] == "exact":
        return ExactIndex(_embeddings(artifact.path))
    artifact.settle()  # a library that is given a damaged index may end the process
    if "shards" not in facts:  # one tree, as indexes were built before there were shards
        return ScannIndex.load(artifact / SCANN, facts["rows"], facts["dimension"], facts["scann"])
    return ShardedIndex(artifact / SCANN, facts["shards"], facts["dimension"])


def publish_or_open_index(
    path: str | os.PathLike, kind: IndexKind, embeddings: Artifact, settings: ScannSettings | None = None,
    probes: Callable[[], Probes | None] = lambda: None,
) -> tuple[Artifact, Index]:  # fmt: skip
    """Opens the index at `path`, after publishing it where it is not: ScaNN's second one would answer otherwise.

    `probes` makes them, which is done only where an index is built.

    Raises:
      MelError: it is of another kind, or see `publish_index` and `open_index`.
    """
    if not exists(path):
        publish_index(path, kind, embeddings, settings, probes())
    elif _shards(path).exists():  # its publisher did not come to deleting them
        with claim(path):
            shutil.rmtree(_shards(path), ignore_errors=True)
    artifact = open_artifact(path, KIND)
    if (built_as := artifact.facts["kind"]) != kind:
        raise MelError(f"{path} was built with --index={built_as}, not {kind}: delete it to build it again.")
    return artifact, open_index(path, embeddings)


def measure_recall(index: Index, embeddings_ND: np.ndarray, probes: Probes, depth: int) -> dict[str, Any]:
    """What a report says of the recall of an index over `embeddings_ND`.

    Args:
      index: what is measured.
      embeddings_ND: what it is over.
      probes: what it is asked.
      depth: how many rows it is asked for.
    """
    nearest_Qk = nearest_scores(embeddings_ND, probes.queries_QD, depth)
    _, scores_Qk = index.search(probes.queries_QD, nearest_Qk.shape[1])
    return stated(probes, scores_Qk, nearest_Qk)


def _embeddings(folder: pathlib.Path) -> np.ndarray:
    return np.load(folder / EMBEDDINGS, mmap_mode="r")


def _shards(path: str | os.PathLike) -> pathlib.Path:
    """Where the shards of an index stand until all are built."""
    return pathlib.Path(path).with_name(f"{pathlib.Path(path).name}_shards")


def first_depth(k: int) -> int:
    """How many rows are looked at first for k distinct entities."""
    return max(2 * k, LEAST_DEPTH)


def search_distinct(
    index: Index, queries_QD: np.ndarray, entities_E: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k best distinct entities of each query, best first; the best row of an entity counts.

    Queries that have not found k of them search on, twice as deep each time, until the index is
    exhausted.

    Args:
      index: over E rows.
      queries_QD: float32.
      entities_E: the entity of each row.
      k: distinct entities per query.

    Returns:
      entities int64, scores float32 and rows int32, all [Q, k], padded with 0, -inf and -1.
    """
    shape = len(queries_QD), k
    entities_Qk, rows_Qk = np.full(shape, NIL, np.int64), np.full(shape, -1, np.int32)
    scores_Qk = np.full(shape, -np.inf, np.float32)
    waiting = np.arange(len(queries_QD))
    depth = min(first_depth(k), len(entities_E))
    while len(waiting):
        block = max(1, NEIGHBOURS_AT_ONCE // max(depth, 1))
        short = []
        for start in range(0, len(waiting), block):
            queries = waiting[start : start + block]
            rows_qd, scores_qd = index.search(queries_QD[queries], depth)
            entities_qd = np.where(rows_qd < 0, NIL, entities_E[rows_qd])
            first_qd = first_of_each(entities_qd)
            width = min(k, depth)
            entities_Qk[queries, :width] = keep_first(first_qd, entities_qd, width, NIL)
            scores_Qk[queries, :width] = keep_first(first_qd, scores_qd, width, -np.inf)
            rows_Qk[queries, :width] = keep_first(first_qd, rows_qd, width, -1)
            short.append(queries[first_qd.sum(axis=1) < k])
        waiting = np.concatenate(short) if depth < len(entities_E) else waiting[:0]
        depth = min(2 * depth, len(entities_E))
    return entities_Qk, scores_Qk, rows_Qk


def first_of_each(entities_QK: np.ndarray) -> np.ndarray:
    """True where a number other than NIL occurs for the first time in its line."""
    order_QK = np.argsort(entities_QK, axis=1, kind="stable")
    sorted_QK = np.take_along_axis(entities_QK, order_QK, axis=1)
    first_QK = sorted_QK != NIL
    first_QK[:, 1:] &= sorted_QK[:, 1:] != sorted_QK[:, :-1]
    result_QK = np.empty_like(first_QK)
    np.put_along_axis(result_QK, order_QK, first_QK, axis=1)
    return result_QK


def keep_first(wanted_QK: np.ndarray, values_QK: np.ndarray, width: int, padding) -> np.ndarray:
    """The first `width` wanted values of each line, moved to its left; `padding` where there are fewer."""
    places_Qw = np.argsort(~wanted_QK, axis=1, kind="stable")[:, :width]
    values_Qw = np.take_along_axis(values_QK, places_Qw, axis=1)
    return np.where(np.take_along_axis(wanted_QK, places_Qw, axis=1), values_Qw, padding)
