"""The train state and its optimiser."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from mel.config import flag
from mel.encoder.transformer import Params
from mel.types import MelError, TrainState

CLIP_NORM = 1.0  # BERT's own recipe (Devlin et al., 2019)

Schedule = Literal["constant", "linear", "cosine"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How parameters move: AdamW with warm-up; the schedule spans all rounds."""

    learning_rate: float = flag(1e-4, "Peak learning rate of AdamW.")
    warmup_steps: int = flag(0, "Steps over which the learning rate rises, once at the beginning.")
    schedule: Schedule = flag("constant", "Learning rate after the warm-up, over all rounds.")
    weight_decay: float = flag(0.0, "Weight decay of AdamW, on the kernels of dense layers only.")
    dropout: float = flag(0.0, "Dropout in the encoder while training.")

    def __post_init__(self):
        if not self.learning_rate > 0:
            raise MelError(f"--learning_rate={self.learning_rate} must be above 0.")
        if self.warmup_steps < 0:
            raise MelError(f"--warmup_steps={self.warmup_steps} must not be below 0.")
        if not 0 <= self.weight_decay < math.inf:
            raise MelError(f"--weight_decay={self.weight_decay} must not be below 0.")
        if not 0 <= self.dropout < 1:
            raise MelError(f"--dropout={self.dropout} is not a probability below 1.")


def learning_rate_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Linear warm-up, then constant, or falling to a hundredth of the peak at the last step.

    Args:
      config: peak, warm-up and what comes after it.
      total_steps: those of all rounds.

    Raises:
      MelError: the warm-up takes all steps.
    """
    if not config.warmup_steps < max(1, total_steps):
        raise MelError(f"--warmup_steps={config.warmup_steps} is not below all {total_steps} steps.")
    peak, steps = config.learning_rate, max(1, total_steps - config.warmup_steps)
    match config.schedule:
        case "constant":
            after = optax.constant_schedule(peak)
        case "linear":
            after = optax.linear_schedule(peak, peak / 100, steps)
        case "cosine":
            after = optax.cosine_decay_schedule(peak, steps, alpha=0.01)
    if not config.warmup_steps:
        return after
    rising = optax.linear_schedule(peak / config.warmup_steps, peak, config.warmup_steps)
    return optax.join_schedules([rising, after], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Clipped AdamW; weight decay is for kernels only.

    It leaves tables alone, biases and LayerNorm: a token that a batch does not hold is not moved, so
    training the rows in use is training the full table. Arguments and errors as of `learning_rate_schedule`.
    """
    schedule = learning_rate_schedule(config, total_steps)
    return optax.chain(
        optax.clip_by_global_norm(CLIP_NORM),
        optax.adamw(schedule, weight_decay=config.weight_decay, mask=_decayed),
    )


def create_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state at step 0 of the encoder with these parameters."""
    params = jax.tree.map(jnp.asarray, params)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def _decayed(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
