"""What looks on while a round trains: metrics on disk, speed in the log, checkpoints, a trace."""

from __future__ import annotations

import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import logging

from mel.files import read_json_lines, write_text
from mel.progress import duration
from mel.training.checkpoint import StepCheckpoints
from mel.training.meter import Speed
from mel.types import MelError, TrainState
from mel.workdir import METRICS

PROGRESS_SECONDS = 10.0
COLLAPSED = 0.9  # mean cosine of two candidates; at the start of random weights it may be as high
SETTLING = 100  # steps
RATES = {
    "mentions_per_second": "{:.0f} mentions/s",
    "tokens_per_second": "{:.0f} tokens/s",
    "padding_share": "{:.0%} padding",
    "mfu": "{:.1%} MFU",
    "byte_roofline_share": "{:.1%} of the byte roofline",
}


class Metrics:
    """Writes metrics a step late, so that the host never waits for the step it has just started.

    `metrics.jsonl` holds only what the same seed gives again; rates go to the log and TensorBoard.

    Attributes:
      totals: what this run did so far: "mentions", and "tokens" without padding where the metrics
        hold "real_tokens".
    """

    def __init__(
        self, folder: pathlib.Path, start: int, end: int, speed: Speed, every: int, last_good: Callable[[], int | None]
    ):
        """Goes on in `folder`.

        Args:
          folder: where metrics.jsonl and TensorBoard's files are.
          start: the step before the first one; what is known of later ones is forgotten.
          end: the last step.
          speed: what a step is worth.
          every: says a line every so many steps, or every ten seconds if 0; and at the end. What the first step
            took is said apart, and the clock starts after it.
          last_good: the step of the last checkpoint, for the message where the loss is not finite.
        """
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS
        _drop_lines_after(self._path, start)
        self._file = open(self._path, "a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        self._start, self._end, self._speed, self._every, self._last_good = start, end, speed, every, last_good
        self._pending: tuple[int, dict] | None = None
        self._warned = False
        self.totals = {"mentions": 0, "tokens": 0}
        self._open_window(start)

    def __call__(self, step: int, state: TrainState, metrics: dict[str, jax.Array]) -> None:
        self._write()
        self._pending = (step, metrics)

    def note(self, name: str, values: Mapping[str, Any]) -> None:
        """Puts names and values into TensorBoard, as a text."""
        lines = (f"    {key} = {value!r}" for key, value in sorted(values.items()))  # four spaces: as it stands
        self._board.add_text(name, "\n".join(lines), self._start)

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
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        check_finite(step, values["loss"], self._last_good(), self._path.parent)
        self._file.write(json.dumps({"step": step, **{name: values[name] for name in sorted(values)}}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"train/{name}", value, step)
        self.totals["mentions"] += self._speed.mentions
        self.totals["tokens"] += int(values.get("real_tokens", 0))
        elapsed = time.monotonic() - self._window_time
        first = step == self._start + 1  # compiled just now, which is no measure of the steps to come
        if first:
            logging.info("Compiled, and the first step taken, in %s.", duration(elapsed))
        if first and step < self._end:
            self._open_window(step)
        elif step == self._end or (step % self._every == 0 if self._every else elapsed >= PROGRESS_SECONDS):
            self._say(step, values, max(elapsed, 1e-9))
            self._open_window(step)

    def _open_window(self, step: int) -> None:
        self._window_time, self._window_step, self._window_tokens = time.monotonic(), step, self.totals["tokens"]

    def _say(self, step: int, values: dict[str, float], elapsed: float) -> None:
        steps, tokens = step - self._window_step, self.totals["tokens"] - self._window_tokens
        rates = self._speed.rates(steps, elapsed, tokens)
        for name, rate in rates.items():
            self._board.add_scalar(f"speed/{name}", rate, step)
        logging.info(
            "step %d/%d · loss %.4f · in-batch accuracy %.3f · %s · %s left of this round",
            step, self._end, values["loss"], values["accuracy"],
            " · ".join(RATES[name].format(rate) for name, rate in rates.items()),
            duration((self._end - step) / steps * elapsed),
        )  # fmt: skip
        if values.get("candidate_cosine", 0.0) > COLLAPSED and step > self._start + SETTLING and not self._warned:
            self._warned = True
            logging.warning(
                "Two candidates have a mean cosine of %.3f: the embeddings fall together. Lower --learning_rate, "
                "lengthen --warmup_steps, or use a higher --logit_scale.", values["candidate_cosine"],
            )  # fmt: skip


class Profile:
    """Writes a JAX trace of some steps, and of nothing before and after them.

    Args:
      folder: where the trace goes.
      after: the step after which the trace starts.
      steps: how many steps it is of; 0 for no trace.
    """

    def __init__(self, folder: pathlib.Path, after: int, steps: int):
        self._folder, self._after, self._steps = folder, after, steps
        self._on = self._done = False

    def __call__(self, step: int, state: TrainState, metrics: dict[str, jax.Array]) -> None:
        if self._steps and step == self._after:
            jax.block_until_ready(metrics)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._on = True
        elif self._on and step == self._after + self._steps:
            jax.block_until_ready(metrics)
            self.close()

    def close(self) -> None:
        """Ends a trace that is being taken; says so where none ever was."""
        if self._on:
            self._on, self._done = False, True
            jax.profiler.stop_trace()
            logging.info(
                "The trace from step %d on is in %s: open its perfetto_trace.json.gz at https://ui.perfetto.dev, or "
                "pip install xprof and run xprof --logdir=%s", self._after + 1, self._folder, self._folder,
            )  # fmt: skip
        elif self._steps and not self._done:
            logging.warning("There is no trace: training ended before step %d.", self._after)
            self._done = True


class SaveEvery:
    """Saves a checkpoint every so many steps, when the metrics up to it are on disk and finite."""

    def __init__(self, checkpoints: StepCheckpoints, every: int, metrics: Metrics):
        self._checkpoints, self._every, self._metrics = checkpoints, every, metrics

    def __call__(self, step: int, state: TrainState, metrics: dict[str, jax.Array]) -> None:
        if step % self._every == 0:
            self._metrics.catch_up()
            self._checkpoints.save(step, state)


def check_finite(step: int, loss: float, last_good: int | None, folder: pathlib.Path) -> None:
    """Raises MelError, naming the step, the last good checkpoint and what helps, where the loss is not finite.

    Args:
      step: whose loss it is.
      loss: of the step.
      last_good: the step of the last checkpoint, which were all finite; None if there is none.
      folder: where the round is being trained.
    """
    if not math.isfinite(loss):
        saved = (
            "no checkpoint was saved yet" if last_good is None else f"the last good checkpoint is of step {last_good}"
        )
        raise MelError(
            f"The loss is {loss} at step {step}; {saved}: delete {folder} and run again with a lower --learning_rate, "
            "which trains this round anew from what the round before has published."
        )


def _drop_lines_after(path: pathlib.Path, step: int) -> None:
    """Forgets what a killed run wrote after the checkpoint that training goes on from.

    Raises:
      MelError: a line is damaged.
    """
    if path.exists():
        remedy = f"delete {path.parent} to begin the round again, or the line to go on without it"
        kept = [line for line in read_json_lines(path, remedy) if line.get("step", 0) <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
