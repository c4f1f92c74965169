"""The hard negatives of a round, as mining publishes them and training reads them.

negatives.npy   entity rows, int32, one line a mention
mentions.npy    the row of each line's mention among the training mentions, ascending; where it is missing, line i is of
                mention i, and every mention has a line
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mel.artifacts import Artifact, open_artifact, publish
from mel.corpora.columns import read_column

KIND = "negatives"
NEGATIVES, MENTIONS = "negatives.npy", "mentions.npy"


@dataclasses.dataclass(frozen=True, eq=False)
class Negatives:
    """Entity rows for n mentions, K for each.

    Attributes:
      rows_nK: int32.
      mentions_n: the rows of the mentions, ascending; None where line i is of mention i.
    """

    rows_nK: np.ndarray
    mentions_n: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows_nK)

    @property
    def per_mention(self) -> int:
        """How many each mention has (K)."""
        return self.rows_nK.shape[1]

    def of(self, mentions_b: np.ndarray) -> np.ndarray:
        """The negatives of these mentions, [b, K].

        Raises:
          KeyError: one of them has none.
        """
        if self.mentions_n is None:
            return self.rows_nK[mentions_b]
        if len(missing := self.missing(mentions_b)):
            raise KeyError(f"mention {missing[0]} has no negatives")
        return self.rows_nK[np.searchsorted(self.mentions_n, mentions_b)]

    def missing(self, mentions_b: np.ndarray) -> np.ndarray:
        """Those of these mentions that have none."""
        if self.mentions_n is None:
            return mentions_b[mentions_b >= len(self.rows_nK)]
        if not len(self):
            return mentions_b
        places_b = np.minimum(np.searchsorted(self.mentions_n, mentions_b), len(self) - 1)
        return mentions_b[self.mentions_n[places_b] != mentions_b]


def publish_negatives(
    path: str | os.PathLike, negatives: Negatives, inputs: Mapping[str, Artifact], facts: Mapping[str, Any]
) -> Artifact:
    """Publishes the hard negatives of training mentions.

    Args:
      path: where.
      negatives: of which mentions, and which.
      inputs: what they were made from; "mention_tokens" must be among them, for `open_negatives`.
      facts: how they were made.
    """
    with publish(path, KIND) as draft:
        for name, artifact in inputs.items():
            draft.reads(name, artifact)
        draft.facts = {**facts, "mentions": len(negatives), "negatives_per_mention": negatives.per_mention}
        np.save(draft / NEGATIVES, np.asarray(negatives.rows_nK, np.int32))
        if negatives.mentions_n is not None:
            np.save(draft / MENTIONS, np.asarray(negatives.mentions_n, np.int32))
    return open_artifact(path, KIND)


def open_negatives(path: str | os.PathLike, mention_tokens: Artifact) -> Negatives:
    """Maps the published hard negatives into memory; they are of the rows of `mention_tokens`.

    Raises:
      MelError: there are none, or they were made for other mention tokens.
    """
    artifact = open_artifact(path, KIND, {"mention_tokens": mention_tokens})
    mentions_n = read_column(artifact / MENTIONS) if MENTIONS in artifact.files else None
    return Negatives(read_column(artifact / NEGATIVES), mentions_n)
