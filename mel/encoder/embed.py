"""Embeds many rows: a jitted forward pass that runs one chunk ahead of the copy to the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import jax
import numpy as np

from mel.encoder.backend import Compute, choose_compute
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import BertEncoder, Params
from mel.types import MelError


def embed_rows(
    config: EncoderConfig,
    params: Params,
    chunks: Iterable[tuple[np.ndarray, np.ndarray]],
    out_ND: np.ndarray,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Fills `out_ND[row_ids]` with the embeddings of all chunks.

    Args:
      config, params: the encoder.
      chunks: pairs (row_ids_n, tokens_nL); a row id below 0 marks padding. Each distinct shape of
        tokens is compiled once.
      out_ND: where the embeddings go; a memory map will do.
      progress: called after each chunk with the number of rows it filled.

    Raises:
      MelError: an embedding is not finite.
    """
    params = jax.device_put(params)
    compute = choose_compute("auto", config.hidden_size // config.num_heads)
    pending = None
    for row_ids_n, tokens_nL in chunks:
        # Dispatch returns at once: the device works on this chunk while the host stores the last one.
        started = row_ids_n, _embed(config, compute, params, tokens_nL)
        if pending is not None:
            _store(*pending, out_ND, progress)
        pending = started
    if pending is not None:
        _store(*pending, out_ND, progress)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _embed(config: EncoderConfig, compute: Compute, params: Params, tokens_nL: jax.Array) -> jax.Array:
    return BertEncoder(config, compute, remat=False).apply({"params": params}, tokens_nL)


def _store(
    row_ids_n: np.ndarray, embedding_nD: jax.Array, out_ND: np.ndarray, progress: Callable[[int], None] | None
) -> None:
    kept = row_ids_n >= 0
    row_ids_n, embedding_nD = row_ids_n[kept], np.asarray(embedding_nD)[kept]
    finite = np.isfinite(embedding_nD).all(axis=1)
    if not finite.all():
        raise MelError(
            f"The embedding of row {row_ids_n[~finite][0]} is not finite: the weights are damaged or training "
            "diverged; start from an earlier checkpoint or a lower learning rate."
        )
    out_ND[row_ids_n] = embedding_nD
    if progress is not None:
        progress(len(row_ids_n))
