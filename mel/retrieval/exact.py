"""Exact search: every query against every row, in float32."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mel.retrieval.vectors import as_queries, check_finite

# On two CPU cores a tile of scores of about 10 MB was fastest: top-k then costs next to nothing
# beside the product. Every tile has the same shape, so a query's scores do not depend on its company.
QUERIES_A_TILE = 64
MOST_ROWS_A_BLOCK = 40_960
ROWS_A_BIN = 64


class ExactIndex:
    """The true neighbours; among equal scores the smaller row comes first.

    It holds all vectors in device memory: 28 million of 192 dimensions are 21 GB.
    """

    def __init__(self, embeddings_ND: np.ndarray):
        """Raises MelError where an embedding is not finite."""
        check_finite(embeddings_ND, "embeddings")
        self._num_rows, self._dimension = embeddings_ND.shape
        blocks = max(1, -(-self._num_rows // MOST_ROWS_A_BLOCK))
        bins = max(1, -(-self._num_rows // (blocks * ROWS_A_BIN)))
        padded_ND = np.zeros((blocks * bins * ROWS_A_BIN, self._dimension), np.float32)
        padded_ND[: self._num_rows] = embeddings_ND
        self._blocks_bnD = jnp.asarray(padded_ND.reshape(blocks, bins * ROWS_A_BIN, self._dimension))

    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `mel.retrieval.index.Index`."""
        queries_QD = as_queries(queries_QD, self._dimension)
        count = min(k, self._num_rows)
        rows_Qk = np.full((len(queries_QD), k), -1, np.int32)
        scores_Qk = np.full((len(queries_QD), k), -np.inf, np.float32)
        for start in range(0, len(queries_QD) if count else 0, QUERIES_A_TILE):
            tile = slice(start, min(start + QUERIES_A_TILE, len(queries_QD)))
            queries_qD = np.zeros((QUERIES_A_TILE, self._dimension), np.float32)
            queries_qD[: tile.stop - start] = queries_QD[tile]
            rows_qk, scores_qk = _nearest(queries_qD, self._blocks_bnD, self._num_rows, count)
            rows_Qk[tile, :count] = np.asarray(rows_qk)[: tile.stop - start]
            scores_Qk[tile, :count] = np.asarray(scores_qk)[: tile.stop - start]
        return rows_Qk, scores_Qk


@functools.partial(jax.jit, static_argnames="k")
def _nearest(queries_qD: jax.Array, blocks_bnD: jax.Array, num_rows: int, k: int) -> tuple[jax.Array, jax.Array]:
    """The k best rows and scores over all blocks; rows from `num_rows` on are padding."""
    rows_a_block = blocks_bnD.shape[1]

    def merge(best, block):
        first_row, block_nD = block
        scores_qn = jnp.matmul(queries_qD, block_nD.T, precision=jax.lax.Precision.HIGHEST)
        scores_qn = jnp.where(first_row + jnp.arange(rows_a_block) < num_rows, scores_qn, -jnp.inf)
        rows_qk, scores_qk = _top_rows(scores_qn, min(k, rows_a_block))
        # The best so far stand first: their rows are smaller, and top_k keeps the first of equals.
        rows_qk = jnp.concatenate([best[0], first_row + rows_qk], axis=1)
        scores_qk, places_qk = jax.lax.top_k(jnp.concatenate([best[1], scores_qk], axis=1), k)
        return (jnp.take_along_axis(rows_qk, places_qk, axis=1), scores_qk), None

    none = jnp.full((len(queries_qD), k), -1, jnp.int32), jnp.full((len(queries_qD), k), -jnp.inf, jnp.float32)
    first_rows_b = rows_a_block * jnp.arange(len(blocks_bnD), dtype=jnp.int32)
    return jax.lax.scan(merge, none, (first_rows_b, blocks_bnD))[0]


def _top_rows(scores_qn: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """top_k of each query's scores, which looks only into the k bins with the highest maxima.

    That is exact: a score outside them is below k others, the maxima. Bins are runs of consecutive
    rows in ascending order, so among equal scores the smaller row still wins.
    """
    if k * ROWS_A_BIN >= scores_qn.shape[1]:
        scores_qk, rows_qk = jax.lax.top_k(scores_qn, k)
        return rows_qk, scores_qk
    bins_qmr = scores_qn.reshape(len(scores_qn), -1, ROWS_A_BIN)
    bins_qk = jnp.sort(jax.lax.top_k(bins_qmr.max(axis=2), k)[1], axis=1)
    scores_qn = jnp.take_along_axis(bins_qmr, bins_qk[:, :, None], axis=1).reshape(len(scores_qn), -1)
    scores_qk, places_qk = jax.lax.top_k(scores_qn, k)
    rows_qk = jnp.take_along_axis(bins_qk, places_qk // ROWS_A_BIN, axis=1) * ROWS_A_BIN + places_qk % ROWS_A_BIN
    return rows_qk, scores_qk
