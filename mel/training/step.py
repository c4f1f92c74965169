"""One training step: texts to embeddings, embeddings to loss, loss to a new state."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mel.encoder.backend import Compute
from mel.encoder.config import EncoderConfig
from mel.training.encoding import AXIS, make_encode
from mel.training.loss import Loss
from mel.types import Batch, TrainState

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
