"""The train state and its optimiser."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from mel.types import MelError, TrainState

CLIP_NORM = 1.0  # BERT's own recipe (Devlin et al., 2019)
LOG_LOGIT_SCALE = "log_logit_scale"

Schedule = Literal["constant", "linear", "cosine"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up; the schedule spans all rounds."""

    learning_rate: float
    warmup_steps: int
    total_steps: int
    schedule: Schedule
    weight_decay: float

    def __post_init__(self):
        if not self.learning_rate > 0:
            raise MelError(f"--learning_rate={self.learning_rate} must be above 0.")
        if not 0 <= self.warmup_steps < max(1, self.total_steps):
            raise MelError(f"--warmup_steps={self.warmup_steps} is not below all {self.total_steps} steps.")


def learning_rate_schedule(config: OptimizerConfig) -> optax.Schedule:
    """Linear warm-up, then constant, or falling to a hundredth of the peak at the last step."""
    peak, steps = config.learning_rate, max(1, config.total_steps - config.warmup_steps)
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


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipped AdamW; weight decay is for kernels only.

    It leaves tables alone, biases, LayerNorm and the logit scale: a token that a batch does not hold
    is not moved, so training the rows in use is training the full table.
    """
    return optax.chain(
        optax.clip_by_global_norm(CLIP_NORM),
        optax.adamw(learning_rate_schedule(config), weight_decay=config.weight_decay, mask=_decayed),
    )


def create_state(
    encoder_params, optimizer: optax.GradientTransformation, logit_scale: float, learned: bool
) -> TrainState:
    """The state at step 0. A learned logit scale is a parameter beside the encoder's, as its logarithm."""
    params = {"encoder": encoder_params}
    if learned:
        params[LOG_LOGIT_SCALE] = jnp.asarray(math.log(logit_scale), jnp.float32)
    params = jax.tree.map(jnp.asarray, params)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def _decayed(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
