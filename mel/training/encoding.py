"""The texts of a batch to embeddings, a chunk at a time, forward and backward, in memory that they do not add to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from mel.encoder.backend import MOST_LAYERS_KEPT, Compute
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import TOKEN_TABLE, BertEncoder, Kept, Params
from mel.shards.batches import chunk_count

AXIS = "data"


def make_encode(
    config: EncoderConfig, chunk_tokens: int, mesh: Mesh, compute: Compute = Compute()
) -> Callable[..., jax.Array]:
    """`encode(params, tokens, key) -> embeddings_ND`, the groups of texts one after the other.

    Each device encodes its share of every group. Where that is `chunk_tokens` or fewer, all groups go through the
    encoder together. Otherwise a chunk of texts is encoded at a time, and the backward pass begins from the states
    between the layers, as long as those of all chunks of a deep encoder fit into `compute.kept_bytes`; else it encodes
    a chunk at a time once more, from its tokens, so that memory does not grow with the batch. Within the layers it
    computes again what was not kept (`what_is_kept`), a layer at a time.
    """
    chunks = _Chunks(config, chunk_tokens, compute)

    def encode_on_device(params, tokens, key):
        key = jax.random.fold_in(key, lax.axis_index(AXIS))
        positions = sum(group.size for group in tokens)
        if positions <= chunk_tokens:
            return _encode_together(chunks, params, tokens, key)
        keys = [jax.random.fold_in(key, i) for i in range(len(tokens))]
        states = positions * config.num_layers * config.hidden_size
        if config.num_layers > MOST_LAYERS_KEPT and states * jnp.dtype(compute.dtype).itemsize <= compute.kept_bytes:
            return _encode_keeping(chunks, params, tokens, keys)
        # Each device adds up the gradients of its chunks; the devices' are added up once.
        return _encode_again(chunks, lax.pcast(params, AXIS, to="varying"), tokens, keys)

    split = PartitionSpec(AXIS)
    on_devices: Any = jax.shard_map(
        encode_on_device, mesh=mesh, in_specs=(PartitionSpec(), split, PartitionSpec()), out_specs=split
    )
    return lambda params, tokens, key: jnp.concatenate(on_devices(params, tokens, key))


def what_is_kept(config: EncoderConfig, positions: int, compute: Compute) -> Kept:
    """How much stays until the backward pass of layers that so many positions of a device have gone through by then.

    All of shallow ones; of deep ones what their dense layers gave, if `compute.product_bytes` hold that.
    """
    if config.num_layers <= MOST_LAYERS_KEPT:
        return "all"
    products = positions * config.num_layers * (5 * config.hidden_size + config.ffn_size)
    return "products" if products * jnp.dtype(compute.dtype).itemsize <= compute.product_bytes else "states"


class _Chunks(NamedTuple):
    """How texts are encoded, and how many at a time."""

    config: EncoderConfig
    chunk_tokens: int
    compute: Compute

    def encode(self, params: Params, tokens, words, key: jax.Array, held: int) -> Any:
        """The embeddings of a chunk, or of groups of texts and their rows of the token table.

        `held` positions have gone through the layers when the backward pass begins.
        """
        model = BertEncoder(self.config, self.compute, what_is_kept(self.config, held, self.compute))
        return model.apply({"params": params}, tokens, not self.config.dropout, words, rngs={"dropout": key})

    def cut(self, group_NL: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The texts of a group in chunks, [c, n, L], and a key for each."""
        rows, width = group_NL.shape
        count = chunk_count(rows, width, self.chunk_tokens)
        return group_NL.reshape(count, -1, width), key[None] if count == 1 else jax.random.split(key, count)

    def each(self, run: Callable[..., Any], *inputs: jax.Array) -> jax.Array:
        """What `run` makes of each chunk, as embeddings of a group."""
        if len(inputs[0]) == 1:  # a loop would be traced and compiled for nothing
            return run(tuple(value[0] for value in inputs))
        return lax.map(run, inputs).reshape(-1, self.config.hidden_size)


def _encode_together(chunks: _Chunks, params: Params, tokens: Sequence[jax.Array], key) -> list[jax.Array]:
    """The embeddings of each group; what a backward pass needs stays until then."""
    filled = [group_NL for group_NL in tokens if len(group_NL)]
    held = sum(group_NL.size for group_NL in filled)
    embedding_ND = chunks.encode(params, filled, _look_up(params, filled), key, held)
    return jnp.split(embedding_ND, np.cumsum([len(group_NL) for group_NL in tokens])[:-1])


def _encode_keeping(chunks: _Chunks, params: Params, tokens: Sequence[jax.Array], keys) -> list[jax.Array]:
    """The embeddings of each group; the states between the layers of all of them stay until the backward pass."""
    words, held = _look_up(params, tokens), sum(group_NL.size for group_NL in tokens)

    def encode(inputs):
        tokens_nL, word_nLD, key = inputs
        return chunks.encode(params, tokens_nL, word_nLD, key, held)

    embeddings = []
    for group_NL, word_NLD, key in zip(tokens, words, keys, strict=True):
        if not len(group_NL):
            embeddings.append(jnp.zeros((0, chunks.config.hidden_size)))
            continue
        tokens_cnL, keys_c = chunks.cut(group_NL, key)
        embeddings.append(chunks.each(encode, tokens_cnL, word_NLD.reshape(*tokens_cnL.shape, -1), keys_c))
    return embeddings


def _look_up(params: Params, tokens: Sequence[jax.Array]) -> list[jax.Array]:
    """The rows of the token table of each group, [N, L, D]."""
    # One look-up for all groups: its gradient fills a whole table, which no group should have to do.
    word_TD = _table(params)[jnp.concatenate([group.reshape(-1) for group in tokens])]
    words = jnp.split(word_TD, np.cumsum([group.size for group in tokens])[:-1])
    return [word_tD.reshape(*group.shape, word_tD.shape[-1]) for word_tD, group in zip(words, tokens, strict=True)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _encode_again(chunks: _Chunks, params: Params, tokens: Sequence[jax.Array], keys) -> list[jax.Array]:
    """The embeddings of each group; the backward pass encodes chunk after chunk once more."""
    table_VD, others = _table(params), _without_table(params)

    def encode(inputs):
        tokens_nL, key = inputs
        return chunks.encode(others, tokens_nL, table_VD[tokens_nL], key, tokens_nL.size)

    def none(inputs):
        return lax.pcast(jnp.zeros((len(inputs[0]), chunks.config.hidden_size)), AXIS, to="varying")

    return [
        chunks.each(_apart(encode, none), *chunks.cut(group_NL, key)) if len(group_NL) else none((group_NL,))
        for group_NL, key in zip(tokens, keys, strict=True)
    ]


def _forward(chunks, params, tokens, keys):
    return _encode_again(chunks, params, tokens, keys), (params, tokens, keys)


def _backward(chunks, kept, slopes):
    """The gradients of the parameters, those of the token table added up in one table, where they stand."""
    params, tokens, keys = kept
    table_VD, others = _table(params), _without_table(params)

    def add_chunk(gradients, inputs):
        of_table_VD, of_others = gradients
        tokens_nL, key, slope_nD = inputs
        _, pull = jax.vjp(
            lambda *both: chunks.encode(both[0], tokens_nL, both[1], key, tokens_nL.size), others, table_VD[tokens_nL]
        )
        more_of_others, of_word_nLD = pull(slope_nD)
        of_table_VD = of_table_VD.at[tokens_nL].add(of_word_nLD)
        return (of_table_VD, jax.tree.map(jnp.add, of_others, more_of_others)), None

    gradients = jax.tree.map(jnp.zeros_like, (table_VD, others))
    # From the last to the first, as gradients of a loop are: each chunk waits for the one before.
    for group_NL, key, slope_ND in reversed(list(zip(tokens, keys, slopes, strict=True))):
        if len(group_NL):
            tokens_cnL, keys_c = chunks.cut(group_NL, key)
            inputs = tokens_cnL, keys_c, slope_ND.reshape(*tokens_cnL.shape[:2], -1)
            gradients, _ = lax.scan(
                _apart(add_chunk, lambda gradients, _: (gradients, None)), gradients, inputs, reverse=True
            )
    of_table_VD, of_others = gradients
    part, name, leaf = TOKEN_TABLE
    return of_others | {part: of_others[part] | {name: {leaf: of_table_VD}}}, None, None


_encode_again.defvjp(_forward, _backward)


def _apart(run: Callable[..., Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """`run` where the last argument begins with tokens, or `otherwise` where all of them are padding.

    That spares nothing worth mentioning, but on CPUs XLA runs whatever is ready, and would begin with all groups that
    are a single chunk and hold all of them; what may not run at all it leaves together.
    """
    if jax.default_backend() != "cpu":
        return run
    return lambda *inputs: lax.cond(jnp.any(inputs[-1][0]), run, otherwise, *inputs)


def _table(params: Params) -> jax.Array:
    return functools.reduce(dict.__getitem__, TOKEN_TABLE, params)  # pyright: ignore[reportReturnType]


def _without_table(params: Params) -> Params:
    part, name, _ = TOKEN_TABLE
    return params | {part: {key: value for key, value in params[part].items() if key != name}}
