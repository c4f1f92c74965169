"""A round that is asked to end saves the step that it has come to."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

import jax
from absl import logging

from mel.interruption import Interrupted, asked, deferred
from mel.training.checkpoint import StepCheckpoints
from mel.training.hooks import Metrics
from mel.types import TrainState


class EndOnSignal:
    """Ends a round at the next step after SIGTERM or SIGINT, with a checkpoint of that step.

    Before the first step is done, while it is compiled, a signal ends the program at once: there is
    nothing to save. Of several hosts all end at one step, after a SIGTERM to any of them, which JAX sees
    to; a SIGINT ends one of them at once, and so the others.

    Example:
      with EndOnSignal(checkpoints, metrics) as ending:
          fit(step, state, batches, [metrics, saving, ending])  # after what saves regularly
    """

    def __init__(self, checkpoints: StepCheckpoints, metrics: Metrics):
        self._checkpoints, self._metrics, self._stack = checkpoints, metrics, contextlib.ExitStack()
        self._listens = False

    def __enter__(self) -> EndOnSignal:
        return self

    def __call__(self, step: int, state: TrainState, metrics: dict[str, jax.Array]) -> None:
        if number := _asked(step):
            name = signal.Signals(number).name
            logging.info("%s at step %d: saving it; a second one ends this at once.", name, step)
            self._metrics.catch_up()
            if self._checkpoints.latest_step != step:
                self._checkpoints.save(step, state)
            raise Interrupted(number, f" at step {step}, which is saved")
        if not self._listens:
            self._listens = True
            if jax.process_count() == 1:
                self._stack.enter_context(deferred())

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def _asked(step: int) -> int | None:
    if jax.process_count() == 1:
        return asked()
    from jax.experimental import multihost_utils

    return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else None
