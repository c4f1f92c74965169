"""The best rows of a query among those looked at so far, so that only what is better has to be looked at again."""

from __future__ import annotations

import numpy as np

_SIGN, _ALL = np.uint32(1 << 31), np.uint64(2**32 - 1)
_HALF = np.uint64(32)
STALE_SHARE = 4  # new rows are merged when there is one to four of the best: the bound is not much too low until then


class Best:
    """The k best rows of each of q queries; among equal scores the smaller row is better.

    A row and its score are one number, greater where it is better, so that what is found depends on no order.

    Args:
      queries: q, less than 65,536.
      k: how many rows each is to have.
    """

    def __init__(self, queries: int, k: int):
        self._keys_qk = np.zeros((queries, k), np.uint64)  # 0 where a query has fewer; not sorted
        self._bound_q = np.full(queries, -np.inf, np.float32)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._keys_qk)

    def offer(self, first_row: int, scores_qn: np.ndarray, most_qb: np.ndarray, real: int) -> None:
        """Takes what is among the best of the rows from `first_row` on, none of which was offered before.

        Args:
          first_row: the row of the first column.
          scores_qn: a multiple of b columns, -inf where there is no row to be taken.
          most_qb: the greatest score of each of b runs of columns.
          real: how many columns are rows to be taken.
        """
        bound_q, k = self._bound_q, self._keys_qk.shape[1]
        columns_a_run = scores_qn.shape[1] // most_qb.shape[1]
        if np.isneginf(bound_q).any() and k <= real:  # the best of this block alone are enough of a bound
            held = most_qb if k * columns_a_run <= real else scores_qn
            bound_q = np.nextafter(np.partition(held, -k, axis=1)[:, -k], np.float32(-np.inf))
            bound_q = np.maximum(bound_q, self._bound_q)
        query_r, run_r = np.nonzero(most_qb > bound_q[:, None])
        scores_rc = scores_qn.reshape(len(scores_qn), -1, columns_a_run)[query_r, run_r]
        place_c, column_c = np.nonzero(scores_rc > bound_q[query_r, None])
        if not len(place_c):
            return
        rows_c = first_row + run_r[place_c] * columns_a_run + column_c
        self._waiting.append((query_r[place_c], keys_of(rows_c, scores_rc[place_c, column_c])))
        if STALE_SHARE * sum(len(query_c) for query_c, _ in self._waiting) >= self._keys_qk.size:
            self._merge()

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows int32 and scores float32, both [q, k], best first; -1 and -inf where there are fewer."""
        self._merge()
        return rows_and_scores(np.sort(self._keys_qk, axis=1)[:, ::-1])

    def _merge(self) -> None:
        if not self._waiting:
            return
        query_c, keys_c = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        order_c = np.argsort(query_c.astype(np.uint16), kind="stable")
        query_c, count_q = query_c[order_c], np.bincount(query_c, minlength=len(self._keys_qk))
        place_c = np.arange(len(query_c)) - (np.cumsum(count_q) - count_q)[query_c]
        more, (queries, k) = count_q.max(), self._keys_qk.shape
        both_qm = np.zeros((queries, k + more), np.uint64)
        both_qm[:, :k] = self._keys_qk
        both_qm[query_c, k + place_c] = keys_c[order_c]
        self._keys_qk = np.partition(both_qm, more, axis=1)[:, more:]  # the least of them stands first
        self._bound_q = rows_and_scores(self._keys_qk[:, 0])[1]


def keys_of(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """A uint64 for each row and its score, never 0: greater for a greater score, or an equal one and a smaller row."""
    bits = (np.asarray(scores, np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (ordered.astype(np.uint64) << _HALF) | (_ALL - rows.astype(np.uint64))


def rows_and_scores(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows int32 and scores float32 of what `keys_of` made; -1 and -inf of 0."""
    ordered = (keys >> _HALF).astype(np.uint32)
    scores = np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered).view(np.float32)
    rows = (_ALL - (keys & _ALL)).astype(np.int64)
    return np.where(keys == 0, -1, rows).astype(np.int32), np.where(keys == 0, np.float32(-np.inf), scores)
