"""The part of a token table that is trained: the rows that the token shards use.

A multilingual vocabulary is mostly unused by any one collection, and its table is most of a small
encoder. Training, optimiser and checkpoints hold the used rows only, under ids of their own; the
others stand in the table that training started from, which they would never have left: without a
gradient Adam moves nothing, and weight decay leaves the table alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import flax.traverse_util
import jax
import numpy as np

from mel.encoder.transformer import PAD_ID, TOKEN_TABLE, Params
from mel.types import MelError


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """Which rows of the full token table are trained.

    Attributes:
      token_ids_v: int32, the ids in use, ascending; position in this array is the compact id. The
        padding id 0 is the first of them, so it stays 0.
      table_VD: float32, the full table before training; a memory map will do.
    """

    token_ids_v: np.ndarray
    table_VD: np.ndarray

    @classmethod
    def of(cls, token_ids: Iterable[np.ndarray], params: Params) -> Vocabulary:
        """The vocabulary of everything that uses one of `token_ids`.

        Raises:
          MelError: one of them has no row in the table of `params`.
        """
        used_v = np.unique(np.concatenate([[PAD_ID], *token_ids])).astype(np.int32)
        table_VD = np.asarray(flax.traverse_util.flatten_dict(params)[TOKEN_TABLE], np.float32)
        if used_v[-1] >= len(table_VD):
            raise MelError(
                f"The token shards use token {used_v[-1]}, and the encoder knows {len(table_VD)} tokens: "
                "prepare the data with the tokenizer of this encoder."
            )
        return cls(used_v, table_VD)

    @property
    def compact_id_V(self) -> np.ndarray:
        """int32, the compact id of every token id, -1 where it is not in use."""
        compact_id_V = np.full(len(self.table_VD), -1, np.int32)
        compact_id_V[self.token_ids_v] = np.arange(len(self.token_ids_v), dtype=np.int32)
        return compact_id_V

    def compact(self, params: Params) -> Params:
        """The parameters with the used rows of their full token table."""
        return _with_table(params, lambda table_VD: np.asarray(table_VD)[self.token_ids_v])

    def full(self, params: Params) -> Params:
        """The parameters with the full token table, the trained rows in their places.

        Raises:
          MelError: the table of `params` has not one row for each id in use.
        """

        def scatter(table_vD):
            if table_vD.shape != (len(self.token_ids_v), self.table_VD.shape[1]):
                raise MelError(
                    f"The checkpoint's token table of shape {table_vD.shape} does not fit the vocabulary map of "
                    f"{len(self.token_ids_v)} of {len(self.table_VD)} tokens: they belong to different runs, "
                    "so use another --workdir and train again."
                )
            table_VD = np.array(self.table_VD)
            table_VD[self.token_ids_v] = jax.device_get(table_vD)
            return table_VD

        return _with_table(params, scatter)


def _with_table(params: Params, change) -> Params:
    leaves = flax.traverse_util.flatten_dict(params)
    leaves[TOKEN_TABLE] = change(leaves[TOKEN_TABLE])
    return flax.traverse_util.unflatten_dict(leaves)
