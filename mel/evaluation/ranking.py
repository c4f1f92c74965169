"""What a system answers: the candidates of each mention, best first."""

from __future__ import annotations

import dataclasses

import numpy as np

from mel.types import NIL

DEPTH = 100  # the deepest place that a metric looks at


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The candidates of Q mentions: distinct entities, best first, NIL where there are fewer than K.

    Attributes:
      entities_QK: int64.
      scores_QK: float32, never rising along a row, -inf where padded.
    """

    entities_QK: np.ndarray
    scores_QK: np.ndarray

    def __post_init__(self):
        if self.entities_QK.ndim != 2 or self.entities_QK.shape != self.scores_QK.shape:
            raise ValueError(f"Shapes {self.entities_QK.shape} and {self.scores_QK.shape} are not one [Q, K].")

    @classmethod
    def empty(cls, mentions: int, depth: int = DEPTH) -> Ranking:
        """So many places for each mention, to be filled in."""
        shape = mentions, depth
        return cls(np.full(shape, NIL, np.int64), np.full(shape, -np.inf, np.float32))

    @classmethod
    def best_of(cls, entities_QC: np.ndarray, scores_QC: np.ndarray) -> Ranking:
        """The `DEPTH` best of C candidates, which need not be in order; of equals the first."""
        order_QK = np.argsort(-scores_QC, axis=1, kind="stable")[:, :DEPTH]
        return cls(np.take_along_axis(entities_QC, order_QK, axis=1), np.take_along_axis(scores_QC, order_QK, axis=1))

    def __getitem__(self, mentions: slice | np.ndarray) -> Ranking:
        """The candidates of some of the mentions."""
        return Ranking(self.entities_QK[mentions], self.scores_QK[mentions])
