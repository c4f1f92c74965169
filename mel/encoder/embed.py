"""An encoder with its weights: a jitted forward pass that runs one chunk ahead of the copy to the host."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np

from mel.encoder.backend import Compute, Precision, choose_compute, tokens_at_once
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import BertEncoder, Params
from mel.progress import Progress
from mel.types import MelError


class Rows(Protocol):
    """N rows of token ids, such as `mel.shards.rows.TokenRows`."""

    def __len__(self) -> int: ...

    def by_width(self, token_budget: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every row once, in padded blocks of about so many tokens: row ids [n], -1 where padded, and tokens [n, L]."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """Turns token rows into embeddings.

    Attributes:
      config: its size and pooling.
      params: its weights, the full token table among them.
      precision: of dense layers and attention.
    """

    config: EncoderConfig
    params: Params
    precision: Precision = "auto"

    def embed(self, rows: Rows, what: str = "", out_ND: np.ndarray | None = None) -> np.ndarray:
        """The embeddings of all rows, float32 [N, D], of unit length.

        Args:
          rows: N rows; each distinct shape of their blocks is compiled once.
          what: names them in a line of progress; none where empty.
          out_ND: where the embeddings go; a memory map will do.

        Raises:
          MelError: an embedding is not finite.
        """
        if out_ND is None:
            out_ND = np.empty((len(rows), self.config.hidden_size), np.float32)
        compute = choose_compute(self.precision, self.config)
        progress = Progress(f"embedding {what}", len(rows), "rows") if what else None
        pending = None
        for row_ids_n, tokens_nL in rows.by_width(tokens_at_once()):
            # Dispatch returns at once: the device works on this block while the host stores the last one.
            started = row_ids_n, _embed(self.config, compute, self._on_device, tokens_nL)
            if pending is not None:
                _store(*pending, out_ND, progress)
            pending = started
        if pending is not None:
            _store(*pending, out_ND, progress)
        if progress:
            progress.close()
        return out_ND

    @functools.cached_property
    def _on_device(self) -> Params:
        return jax.device_put(self.params)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _embed(config: EncoderConfig, compute: Compute, params: Params, tokens_nL: np.ndarray) -> Any:
    return BertEncoder(config, compute, kept="all").apply({"params": params}, tokens_nL)


def _store(row_ids_n: np.ndarray, on_device_nD: jax.Array, out_ND: np.ndarray, progress: Progress | None) -> None:
    kept = row_ids_n >= 0
    row_ids_n, embedding_nD = row_ids_n[kept], np.asarray(on_device_nD)[kept]
    finite = np.isfinite(embedding_nD).all(axis=1)
    if not finite.all():
        raise MelError(
            f"The embedding of row {row_ids_n[~finite][0]} is not finite: the weights are damaged or training "
            "diverged; start from an earlier checkpoint or a lower learning rate."
        )
    out_ND[row_ids_n] = embedding_nD
    if progress is not None:
        progress.add(len(row_ids_n))
