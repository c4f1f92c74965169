"""One training step: texts to embeddings, embeddings to loss, loss to a new state."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mel.encoder.backend import Compute
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import TOKEN_TABLE, BertEncoder
from mel.shards.batches import chunk_count
from mel.training.loss import Loss
from mel.types import Batch, TrainState

AXIS = "data"
MOST_LAYERS_KEPT = 4
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_mesh() -> Mesh:
    """All devices of the process in one axis."""
    return Mesh(np.asarray(jax.devices()), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Moves a batch to the devices, every leaf split along its leading axis."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))

    def put(leaf: np.ndarray) -> jax.Array:
        # Every process has the whole batch and hands over the parts of its own devices.
        parts = sharding.addressable_devices_indices_map(leaf.shape).items()
        on_devices = [jax.device_put(leaf[part], device) for device, part in parts]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, on_devices)

    return jax.tree.map(put, batch)


def make_step(
    encoder_config: EncoderConfig,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    chunk_tokens: int,
    mesh: Mesh,
    seed: int,
    compute: Compute = Compute(),
) -> Step:
    """A compiled `state, metrics = step(state, batch)`; the state given to it is consumed.

    Args:
      encoder_config: the encoder; dropout above 0 is applied, with a key folded from seed and step.
      loss: of the embeddings of a batch's texts, in the order of its groups.
      optimizer: what turns gradients into updates.
      schedule: the learning rate by step, for the metrics.
      chunk_tokens: the most tokens, padding included, to encode at once.
      mesh: the devices.
      seed: of dropout.
      compute: how the encoder computes.
    """
    encode = make_encode(encoder_config, chunk_tokens, mesh, compute)

    def loss_of(params, batch: Batch, key):
        value, metrics = loss(encode(params, batch.tokens, key), batch)
        real_tokens = sum(jnp.count_nonzero(group) for group in batch.tokens)
        return value, {**metrics, "real_tokens": real_tokens}

    def step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        (_, metrics), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params, batch, key)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {"gradient_norm": optax.tree.norm(gradients), "learning_rate": schedule(state.step)}
        return TrainState(state.step + 1, params, opt_state), metrics

    return jax.jit(step, donate_argnums=0)


def make_encode(
    config: EncoderConfig, chunk_tokens: int, mesh: Mesh, compute: Compute = Compute()
) -> Callable[..., jax.Array]:
    """`encode(params, tokens, key) -> embeddings_ND`, the groups of texts one after the other.

    Each device encodes its share of every group, a chunk of texts at a time. The backward pass
    computes again what was not kept: of a deep encoder a layer at a time, from the states between the
    layers, as long as those of all chunks fit into `compute.kept_bytes`; otherwise a chunk at a time,
    from its tokens, so that memory does not grow with the batch.
    """
    encode_group = functools.partial(_encode_group, config, chunk_tokens, compute)

    def encode_on_device(params, tokens, key):
        key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
        # One look-up for all groups: its gradient fills a whole table, which no chunk should have to do.
        flat_T = jnp.concatenate([group.reshape(-1) for group in tokens])
        word_TD = functools.reduce(dict.__getitem__, TOKEN_TABLE, params)[flat_T]
        ends = np.cumsum([group.size for group in tokens])[:-1]
        words = [
            part.reshape(*group.shape, config.hidden_size)
            for part, group in zip(jnp.split(word_TD, ends), tokens, strict=True)
        ]
        states_bytes = len(flat_T) * config.num_layers * config.hidden_size * jnp.dtype(compute.dtype).itemsize
        keep_states = config.num_layers > MOST_LAYERS_KEPT and states_bytes <= compute.kept_bytes
        return [
            encode_group(params, *each, jax.random.fold_in(key, i), keep_states)
            for i, each in enumerate(zip(tokens, words, strict=True))
        ]

    split = PartitionSpec(AXIS)
    on_devices: Any = jax.shard_map(
        encode_on_device, mesh=mesh, in_specs=(PartitionSpec(), split, PartitionSpec()), out_specs=split
    )
    return lambda params, tokens, key: jnp.concatenate(on_devices(params, tokens, key))


def _encode_group(
    config: EncoderConfig, chunk_tokens: int, compute: Compute, params, tokens_NL, word_NLD, key, keep_states: bool
) -> jax.Array:
    """The embeddings of texts of one width, a chunk at a time."""
    rows, width = tokens_NL.shape
    if not rows:
        return jnp.zeros((0, config.hidden_size))
    # Even the layers of one chunk are too much to keep if they are many.
    model = BertEncoder(config, compute, remat=keep_states or config.num_layers > MOST_LAYERS_KEPT)

    def encode_chunk(inputs):
        tokens_nL, word_nLD, key = inputs
        return model.apply({"params": params}, tokens_nL, not config.dropout, word_nLD, rngs={"dropout": key})

    chunks = chunk_count(rows, width, chunk_tokens)
    run = encode_chunk if keep_states else jax.checkpoint(encode_chunk)
    if chunks == 1:  # a loop would be traced and compiled for nothing
        return run((tokens_NL, word_NLD, key))  # pyright: ignore[reportReturnType]
    inputs = tokens_NL.reshape(chunks, -1, width), word_NLD.reshape(chunks, -1, width, config.hidden_size)
    return jax.lax.map(run, (*inputs, jax.random.split(key, chunks))).reshape(rows, config.hidden_size)
