"""Ragged rows of token ids in two flat arrays, and how to take padded blocks of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mel.corpora.columns import announce
from mel.shards.permutation import mix

ROWS_AT_ONCE = 2**20
WIDTH_STEP = 8  # widths are multiples of this, so that few shapes are compiled


class TokenRows:
    """N rows of token ids; row i is `tokens_T[offsets_N1[i]:offsets_N1[i + 1]]`. Memory maps will do."""

    def __init__(self, tokens_T: np.ndarray, offsets_N1: np.ndarray):
        self.tokens_T, self.offsets_N1 = tokens_T, offsets_N1

    @classmethod
    def from_rows(cls, rows: Sequence[np.ndarray]) -> TokenRows:
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        tokens = np.concatenate(rows).astype(np.int32) if rows else np.zeros(0, np.int32)
        return cls(tokens, np.concatenate([[0], np.cumsum(lengths)]))

    @classmethod
    def concatenate(cls, parts: Sequence[TokenRows]) -> TokenRows:
        """The rows of all parts, in order."""
        lengths = np.concatenate([np.zeros(1, np.int64), *(part.lengths_N for part in parts)])
        return cls(np.concatenate([np.zeros(0, np.int32), *(part.tokens_T for part in parts)]), np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.offsets_N1) - 1

    @property
    def lengths_N(self) -> np.ndarray:
        return np.diff(self.offsets_N1)

    def lengths_of(self, row_ids_n: np.ndarray) -> np.ndarray:
        """The lengths of these rows; of the others nothing is read."""
        return self.offsets_N1[row_ids_n + 1] - self.offsets_N1[row_ids_n]

    def announce(self, row_ids_n: np.ndarray) -> None:
        """Tells the system that these rows will be read soon, where they are mapped."""
        announce(self.tokens_T, self.offsets_N1[row_ids_n], self.offsets_N1[row_ids_n + 1])

    def take(self, row_ids_n: np.ndarray) -> TokenRows:
        """These rows alone, in this order."""
        row_ids_n = np.asarray(row_ids_n, np.int64)
        lengths_n = self.lengths_of(row_ids_n)
        offsets_n1 = np.concatenate([[0], np.cumsum(lengths_n)]).astype(np.int64)
        within = np.arange(offsets_n1[-1]) - np.repeat(offsets_n1[:-1], lengths_n)
        return TokenRows(self.tokens_T[np.repeat(self.offsets_N1[row_ids_n], lengths_n) + within], offsets_n1)

    def twins(self) -> np.ndarray:
        """The first row that is equal to each row, token by token; int32 [N], its own number where it is the first."""
        hashes_N = np.zeros(len(self), np.uint64)
        for start in range(0, len(self), ROWS_AT_ONCE):
            hashes_N[start : start + ROWS_AT_ONCE] = _hashes(
                self.take(np.arange(start, min(start + ROWS_AT_ONCE, len(self))))
            )
        _, first_H, group_N = np.unique(hashes_N, return_index=True, return_inverse=True)
        return first_H[group_N].astype(np.int32)

    def gather(self, row_ids_n: np.ndarray, width: int) -> np.ndarray:
        """The rows as int32 [n, width], zero padded, cut at `width`; row id -1 gives all zeros."""
        if not len(self.tokens_T):
            return np.zeros((len(row_ids_n), width), np.int32)
        starts = self.offsets_N1[row_ids_n]
        lengths = np.where(row_ids_n < 0, 0, self.offsets_N1[np.maximum(row_ids_n, 0) + 1] - starts)
        columns = np.arange(width)
        inside = columns < lengths[:, None]
        positions = np.where(inside, starts[:, None] + columns, 0)
        return np.where(inside, self.tokens_T[positions], 0).astype(np.int32)

    def by_width(self, token_budget: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Visits every row once, shortest first, in padded blocks of one shape a width.

        Args:
          token_budget: about how many tokens, padding included, a block holds.

        Yields:
          row ids [n] and tokens [n, width]; the last block of a width is filled up with row id -1.
        """
        lengths_N = self.lengths_N
        order_N = np.argsort(lengths_N, kind="stable")
        widths_N = bucket_width(lengths_N[order_N])
        for width in np.unique(widths_N):
            first, last = np.searchsorted(widths_N, [width, width + 1])
            block = max(1, token_budget // int(width))
            for start in range(first, last, block):
                row_ids = np.full(block, -1, np.int64)
                members = order_N[start : min(start + block, last)]
                row_ids[: len(members)] = members
                yield row_ids, self.gather(row_ids, int(width))


def _hashes(rows: TokenRows) -> np.ndarray:
    """64 bits of each row's tokens and their places; that two rows of 10^8 share them by chance is one in 4,000."""
    lengths_n = rows.lengths_N
    within = np.arange(len(rows.tokens_T)) - np.repeat(rows.offsets_N1[:-1], lengths_n)
    mixed_T = mix(rows.tokens_T.astype(np.uint64) + (within.astype(np.uint64) << np.uint64(32)))
    sums_n1 = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed_T, dtype=np.uint64)])  # overflow is meant
    return mix(sums_n1[rows.offsets_N1[1:]] - sums_n1[rows.offsets_N1[:-1]] + lengths_n.astype(np.uint64))


def bucket_width(lengths: np.ndarray, step: int = WIDTH_STEP) -> np.ndarray:
    """Each length rounded up to a multiple of `step`; an empty row has the width of one step."""
    return np.maximum((np.asarray(lengths) + step - 1) // step, 1) * step
