"""Rows in two layers, of which the first may be large and is never written again: a base, and what came later."""

from __future__ import annotations

import dataclasses

import numpy as np

from mel.retrieval.index import Index


@dataclasses.dataclass(frozen=True, eq=False)
class LayeredIndex:
    """An index over N rows, and one over more rows that follow them.

    Scores of a row are those of its own index, so more rows change none of them.

    Attributes:
      base: over the first N rows.
      more: over the rows from N on.
      base_rows: N.
    """

    base: Index
    more: Index
    base_rows: int

    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `mel.retrieval.index.Index`; of equal scores the smaller row comes first."""
        base_Qk, more_Qk = self.base.search(queries_QD, k), self.more.search(queries_QD, k)
        rows_Q2k = np.concatenate([base_Qk[0], np.where(more_Qk[0] < 0, -1, more_Qk[0] + self.base_rows)], axis=1)
        scores_Q2k = np.concatenate([base_Qk[1], more_Qk[1]], axis=1)
        best_Qk = np.argsort(-scores_Q2k, axis=1, kind="stable")[:, :k]
        rows_Qk, scores_Qk = (np.take_along_axis(values, best_Qk, axis=1) for values in (rows_Q2k, scores_Q2k))
        return rows_Qk.astype(np.int32), scores_Qk


@dataclasses.dataclass(frozen=True, eq=False)
class LayeredRows:
    """The vectors of N rows, [N, D], and of more rows that follow them; memory maps will do."""

    base_ND: np.ndarray
    more_MD: np.ndarray

    def __len__(self) -> int:
        return len(self.base_ND) + len(self.more_MD)

    def __getitem__(self, rows_n: np.ndarray) -> np.ndarray:
        """The vectors of some rows, float32 [n, D]."""
        later_n = rows_n >= len(self.base_ND)
        vectors_nD = np.asarray(self.base_ND[np.where(later_n, 0, rows_n)])
        vectors_nD[later_n] = self.more_MD[rows_n[later_n] - len(self.base_ND)]
        return vectors_nD
