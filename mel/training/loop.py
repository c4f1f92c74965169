"""The loop: it draws batches, steps, and lets hooks look on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import jax

from mel.training.step import Step
from mel.types import Batch, TrainState

Hook = Callable[[int, TrainState, dict[str, jax.Array]], None]


def fit(step: Step, state: TrainState, batches: Iterable[tuple[int, Batch]], hooks: Sequence[Hook]) -> TrainState:
    """Trains over numbered batches and returns the last state.

    Args:
      step: consumes a state and returns the next one.
      state: the state before the first batch.
      batches: (n, batch) pairs, batch n taking the state from step n to n + 1.
      hooks: called as `hook(n + 1, state, metrics)`. They may read the state until they return and
        must not change it; the metrics are still being computed, and reading them waits.
    """
    for n, batch in batches:
        state, metrics = step(state, batch)
        for hook in hooks:
            hook(n + 1, state, metrics)
    return state
