"""Exact search on an accelerator, whose memory need not hold the vectors."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Every product has this shape, so a query's scores do not depend on its company. Scores of 4 GB: sorting, which GPUs do
# slowly, has one in five hundred of them to look at, then, inside the runs of 512 that this leaves, one in sixteen.
QUERIES_A_TILE, ROWS_A_BLOCK = 1024, 1 << 20
BINS = 512, 16


class Streamed:
    """Blocks of rows, some of which stay on the device: as many as fit into half of what is free of its memory.

    The others are sent at every search, the next one while the last one is searched, so that the device holds two of
    them: 1.1 GB for 128 dimensions. Beside them it holds the scores of a tile and a block, 4.3 GB, and the k best rows
    of each query.

    Args:
      embeddings_ND: in the host's memory; a memory map will do.
      kept_bytes: what may stay on the device; None for half of what is free.
    """

    def __init__(self, embeddings_ND: np.ndarray, kept_bytes: int | None = None):
        self._embeddings_ND = embeddings_ND
        block_bytes = 4 * ROWS_A_BLOCK * embeddings_ND.shape[1]
        self._most_kept = (_free_bytes() // 2 if kept_bytes is None else kept_bytes) // block_bytes
        self._kept: dict[int, jax.Array] = {}

    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best rows of each query, best first, and their scores; k is no more than there are rows."""
        num_rows, queries = len(self._embeddings_ND), len(queries_QD)
        filled_QD = np.pad(queries_QD, [(0, -queries % QUERIES_A_TILE), (0, 0)])
        tiles = [jax.device_put(tile_qD) for tile_qD in np.split(filled_QD, len(filled_QD) // QUERIES_A_TILE)]
        none = np.full((QUERIES_A_TILE, k), -1, np.int32), np.full((QUERIES_A_TILE, k), -np.inf, np.float32)
        best = [jax.device_put(none) for _ in tiles]
        block_nD = self._block(0)
        for first_row in range(0, num_rows, ROWS_A_BLOCK):
            best = [_merge(*each, tile, block_nD, first_row, num_rows) for tile, each in zip(tiles, best, strict=True)]
            if first_row + ROWS_A_BLOCK < num_rows:  # sent while the device is at work
                block_nD = self._block(first_row + ROWS_A_BLOCK)
            jax.block_until_ready(best)
        rows, scores = zip(*jax.device_get(best), strict=True)
        return np.concatenate(rows)[:queries], np.concatenate(scores)[:queries]

    def _block(self, first_row: int) -> jax.Array:
        if first_row in self._kept:
            return self._kept[first_row]
        block_nD = np.asarray(self._embeddings_ND[first_row : first_row + ROWS_A_BLOCK], np.float32)
        # Fewer rows make a smaller block where they are all: few vectors are not worth a large product.
        rows = min(ROWS_A_BLOCK, -(-len(self._embeddings_ND) // BINS[0]) * BINS[0])
        if len(block_nD) < rows:
            block_nD = np.pad(block_nD, [(0, rows - len(block_nD)), (0, 0)])
        sent_nD = jax.device_put(block_nD)
        if len(self._kept) < self._most_kept:
            self._kept[first_row] = sent_nD
        return sent_nD


def _free_bytes() -> int:
    """What is free of the device's memory; 0 where it does not tell."""
    memory = jax.local_devices()[0].memory_stats() or {}
    return max(0, memory.get("bytes_limit", 0) - memory.get("bytes_in_use", 0))


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _merge(
    rows_qk: jax.Array, scores_qk: jax.Array, queries_qD: jax.Array, block_nD: jax.Array, first_row: int, num_rows: int
) -> tuple[jax.Array, jax.Array]:
    """The best k of those so far and of a block's rows; rows from `num_rows` on are padding."""
    k, rows_a_block = rows_qk.shape[1], len(block_nD)
    scores_qn = jnp.matmul(queries_qD, block_nD.T, precision=jax.lax.Precision.HIGHEST)
    scores_qn = jnp.where(first_row + jnp.arange(rows_a_block) < num_rows, scores_qn, -jnp.inf)
    found_qk, found_scores_qk = _top_rows(scores_qn, min(k, rows_a_block), BINS)
    # The best so far stand first: their rows are smaller, and top_k keeps the first of equals.
    rows_qk = jnp.concatenate([rows_qk, first_row + found_qk], axis=1)
    scores_qk, places_qk = jax.lax.top_k(jnp.concatenate([scores_qk, found_scores_qk], axis=1), k)
    return jnp.take_along_axis(rows_qk, places_qk, axis=1), scores_qk


def _top_rows(scores_qn: jax.Array, k: int, bins: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """top_k of each query's scores, which looks only into the k bins with the highest maxima.

    That is exact: a score outside them is below k others, the maxima. Bins are runs of consecutive
    rows in ascending order, so among equal scores the smaller row still wins. Inside the bins that are left it goes
    on with those of the next size.
    """
    if not bins:
        scores_qk, rows_qk = jax.lax.top_k(scores_qn, k)
        return rows_qk, scores_qk
    size, *smaller = bins
    if k * size >= scores_qn.shape[1]:
        return _top_rows(scores_qn, k, tuple(smaller))
    bins_qmr = scores_qn.reshape(len(scores_qn), -1, size)
    bins_qk = jnp.sort(jax.lax.top_k(bins_qmr.max(axis=2), k)[1], axis=1)
    scores_qn = jnp.take_along_axis(bins_qmr, bins_qk[:, :, None], axis=1).reshape(len(scores_qn), -1)
    places_qk, scores_qk = _top_rows(scores_qn, k, tuple(smaller))
    rows_qk = jnp.take_along_axis(bins_qk, places_qk // size, axis=1) * size + places_qk % size
    return rows_qk, scores_qk
