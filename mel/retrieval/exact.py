"""Exact search: every query against every row, in float32, a tile of queries and a block of rows at a time."""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mel.retrieval.best import Best
from mel.retrieval.streamed import Streamed
from mel.retrieval.vectors import as_queries

# On two CPU cores scores of 4 MB at most were fastest: they stay in a core's cache until the best are picked. Each tile
# is filled up to one of these sizes. No score depends on the tile or the block that it is in, which a test watches.
QUERIES_A_TILE = (8, 16, 64, 256)
ROWS_A_BLOCK, ROWS_A_RUN = 4096, 32
BLOCKS_OF_FEW = 8  # where one of the smaller tiles holds all queries: calls cost more than products then
ROWS_AT_ONCE = 2**16  # that all queries are compared with before the next ones are read


class ExactIndex:
    """The true neighbours; among equal scores the smaller row comes first.

    It copies no vectors, and may be larger than memory where they are mapped. A search holds, beside what it returns,
    the scores of a tile and a block for each core, and `ROWS_AT_ONCE` vectors where they are not aligned; for an
    accelerator see `mel.retrieval.streamed`.

    Args:
      embeddings_ND: finite, as all are that an encoder gives and that are published: looking again would read all of
        them before the first search does. They must not be changed afterwards.
    """

    def __init__(self, embeddings_ND: np.ndarray):
        self._embeddings_ND = embeddings_ND

    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `mel.retrieval.index.Index`."""
        num_rows, dimension = self._embeddings_ND.shape
        queries_QD = as_queries(queries_QD, dimension)
        count = min(k, num_rows)
        rows_Qk = np.full((len(queries_QD), k), -1, np.int32)
        scores_Qk = np.full((len(queries_QD), k), -np.inf, np.float32)
        if count and len(queries_QD):
            on_cpu = jax.default_backend() == "cpu"
            found = self._search(queries_QD, count) if on_cpu else self._streamed.search(queries_QD, count)
            rows_Qk[:, :count], scores_Qk[:, :count] = found
        return rows_Qk, scores_Qk

    @functools.cached_property
    def _streamed(self) -> Streamed:
        return Streamed(self._embeddings_ND)

    def _search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        tiles = list(_tiles(queries_QD))
        best = [Best(count, k) for _, count in tiles]
        most = BLOCKS_OF_FEW if len(queries_QD) <= QUERIES_A_TILE[-2] else 1
        rows_a_block = ROWS_A_BLOCK * min(most, -(-len(self._embeddings_ND) // ROWS_A_BLOCK))
        with concurrent.futures.ThreadPoolExecutor(min(len(tiles), os.cpu_count() or 1)) as workers:
            for start in range(0, len(self._embeddings_ND), ROWS_AT_ONCE):
                blocks = list(_blocks(self._embeddings_ND, start, start + ROWS_AT_ONCE, rows_a_block))
                list(workers.map(lambda tile, best, blocks=blocks: _compare(tile[0], blocks, best), tiles, best))
        found = [each.sorted() for each in best]
        return np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found])


def _tiles(queries_QD: np.ndarray) -> Iterator[tuple[jax.Array, int]]:
    """The queries in tiles of few sizes, filled up with zeros, and how many are in each."""
    start = 0
    while start < len(queries_QD):
        size = next((size for size in QUERIES_A_TILE if size >= len(queries_QD) - start), QUERIES_A_TILE[-1])
        some_qD = queries_QD[start : start + size]
        yield jax.device_put(np.pad(some_qD, [(0, size - len(some_qD)), (0, 0)])), len(some_qD)
        start += size


class _Block(NamedTuple):
    """Rows that follow one another.

    Attributes:
      first_row: of the block.
      rows_nD: always as many; they are filled up with zeros where there are no more in all.
      new: the places of those that are in no block before.
    """

    first_row: int
    rows_nD: jax.Array
    new: slice


def _blocks(embeddings_ND: np.ndarray, start: int, end: int, rows_a_block: int) -> Iterator[_Block]:
    """The rows from `start` to `end` in blocks of one size, the last of which reaches back where rows are missing."""
    end = min(end, len(embeddings_ND))
    for position in range(start, end, rows_a_block):
        first_row = min(position, max(len(embeddings_ND) - rows_a_block, 0))
        block_nD = np.asarray(embeddings_ND[first_row : first_row + rows_a_block], np.float32)
        new = slice(position - first_row, min(position + rows_a_block, end) - first_row)
        if len(block_nD) < rows_a_block:
            block_nD = np.pad(block_nD, [(0, rows_a_block - len(block_nD)), (0, 0)])
        yield _Block(first_row, jax.device_put(block_nD), new)  # jnp.asarray would copy what is mapped


def _compare(queries_qD: jax.Array, blocks: list[_Block], best: Best) -> None:
    for first_row, block_nD, new in blocks:
        whole = new == slice(0, len(block_nD))
        found = _scores(queries_qD, block_nD, None if whole else (new.start, new.stop), ROWS_A_RUN)
        scores_qn, most_qb = (np.asarray(values)[: len(best)] for values in found)
        best.offer(first_row, scores_qn, most_qb, new.stop - new.start)


@functools.partial(jax.jit, static_argnames="run")
def _scores(
    queries_qD: jax.Array, block_nD: jax.Array, new: tuple[int, int] | None, run: int
) -> tuple[jax.Array, jax.Array]:
    """All scores, -inf in columns that are not `new`, and the greatest of each run of columns."""
    scores_qn = jnp.matmul(queries_qD, block_nD.T, precision=jax.lax.Precision.HIGHEST)
    if new is not None:
        column_n = jnp.arange(len(block_nD))
        scores_qn = jnp.where((new[0] <= column_n) & (column_n < new[1]), scores_qn, -jnp.inf)
    return scores_qn, scores_qn.reshape(len(queries_qD), -1, run).max(axis=2)
