"""The hard negatives of a round, as mining publishes them and training reads them: entity rows of each mention."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mel.artifacts import Artifact, open_artifact, publish

KIND = "negatives"
NEGATIVES = "negatives.npy"


def publish_negatives(
    path: str | os.PathLike, rows_NK: np.ndarray, inputs: Mapping[str, Artifact], facts: Mapping[str, Any]
) -> Artifact:
    """Publishes the hard negatives of N training mentions as entity rows.

    Args:
      path: where.
      rows_NK: int32.
      inputs: what they were made from; "mention_tokens" must be among them, for `open_negatives`.
      facts: how they were made.
    """
    with publish(path, KIND) as draft:
        for name, artifact in inputs.items():
            draft.reads(name, artifact)
        draft.facts = {**facts, "mentions": rows_NK.shape[0], "negatives_per_mention": rows_NK.shape[1]}
        np.save(draft / NEGATIVES, np.asarray(rows_NK, np.int32))
    return open_artifact(path, KIND)


def open_negatives(path: str | os.PathLike, mention_tokens: Artifact) -> np.ndarray:
    """Maps the published hard negatives into memory: int32 [N, K], line i for row i of `mention_tokens`.

    Raises:
      MelError: there are none, or they were made for other mention tokens.
    """
    return np.load(open_artifact(path, KIND, {"mention_tokens": mention_tokens}) / NEGATIVES, mmap_mode="r")
