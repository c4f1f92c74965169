"""What looks on while a round trains: metrics on disk, progress in the log, checkpoints."""

from __future__ import annotations

import json
import math
import pathlib
import time
from collections.abc import Callable

import jax
from absl import logging

from mel.artifacts import write_text
from mel.progress import duration
from mel.training.checkpoint import StepCheckpoints
from mel.types import MelError, TrainState

PROGRESS_SECONDS = 10.0


class Metrics:
    """Writes metrics a step late, so that the host never waits for the step it has just started.

    `metrics.jsonl` holds only what the same seed gives again; rates go to the log and TensorBoard.
    """

    def __init__(
        self, folder: pathlib.Path, start: int, end: int, batch_size: int, last_good: Callable[[], int | None]
    ):
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        _drop_lines_after(self._path, start)
        self._file = open(self._path, "a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        self._end, self._batch_size, self._last_good = end, batch_size, last_good
        self._pending: tuple[int, dict] | None = None
        self._said_at, self._said_step = time.monotonic(), start

    def __call__(self, step: int, state: TrainState, metrics: dict[str, jax.Array]) -> None:
        self._write()
        self._pending = (step, metrics)

    def catch_up(self) -> None:
        """Waits for the last step, and leaves its line and all before it where a killed process leaves them."""
        self._write()
        self._file.flush()

    def close(self) -> None:
        try:
            self._write()
        finally:
            self._file.close()
            self._board.close()

    def _write(self) -> None:
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in metrics.items()}
        check_finite(step, values["loss"], self._last_good())
        self._file.write(json.dumps({"step": step, **{name: values[name] for name in sorted(values)}}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"train/{name}", value, step)
        elapsed = time.monotonic() - self._said_at
        if elapsed >= PROGRESS_SECONDS or step == self._end:
            self._say(step, values, elapsed)

    def _say(self, step: int, values: dict[str, float], elapsed: float) -> None:
        rate = (step - self._said_step) / max(elapsed, 1e-9)
        self._board.add_scalar("speed/mentions_per_second", rate * self._batch_size, step)
        left = (self._end - step) / rate if rate else 0
        logging.info(
            "step %d/%d · loss %.4f · in-batch accuracy %.3f · %.0f mentions/s · %s left",
            step, self._end, values["loss"], values["accuracy"], rate * self._batch_size, duration(left),
        )  # fmt: skip
        self._said_at, self._said_step = time.monotonic(), step


class SaveEvery:
    """Saves a checkpoint every so many steps, when the metrics up to it are on disk and finite."""

    def __init__(self, checkpoints: StepCheckpoints, every: int, metrics: Metrics):
        self._checkpoints, self._every, self._metrics = checkpoints, every, metrics

    def __call__(self, step: int, state: TrainState, metrics: dict[str, jax.Array]) -> None:
        if step % self._every == 0:
            self._metrics.catch_up()
            self._checkpoints.save(step, state)


def check_finite(step: int, loss: float, last_good: int | None) -> None:
    """Raises MelError, naming the step and the last good checkpoint, where the loss is not finite."""
    if not math.isfinite(loss):
        saved = (
            "no checkpoint was saved yet" if last_good is None else f"the last good checkpoint is of step {last_good}"
        )
        raise MelError(f"The loss is {loss} at step {step}; {saved}: lower --learning_rate and run again.")


def _drop_lines_after(path: pathlib.Path, step: int) -> None:
    """Forgets what a killed run wrote behind the checkpoint that training goes on from."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_text(path, "".join(kept))
