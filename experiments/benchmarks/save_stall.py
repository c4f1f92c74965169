"""How long an asynchronous checkpoint holds training up, beside a synchronous one.

The state is LEALLA-small's with its full table and AdamW's moments (0.8 GB). Held up is the time from the
end of one step to the start of the next, in which mel's `StepCheckpoints` or Orbax's own synchronous
manager saves. In the details is the time that a save adds to the steps in all, those included that are
slower because the background thread shares their cores.

  python -m experiments.benchmarks.save_stall
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import orbax.checkpoint as ocp

from experiments.benchmarks.harness import Target, interleave, options, parser, publish
from experiments.benchmarks.workload import Ours, Spec, initial_weights, make_work, our_step
from experiments.programs import launch
from mel.training.checkpoint import StepCheckpoints

TARGET = Target(passes=0.25, stretch=0.1, at_least=False)
STEPS = 6  # after a save, so that they outlast what goes on in the background


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(parser(__doc__), argv)
    spec = Spec(batch_size=16 if chosen.quick else 32, tiny=chosen.quick)
    with initial_weights(spec) as weights, tempfile.TemporaryDirectory() as name:
        trained = Trained(*our_step(make_work(spec), spec, weights, Ours()))
        folder = pathlib.Path(name)
        asynchronous = StepCheckpoints(folder / "asynchronous")
        kept = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        synchronous = ocp.CheckpointManager(folder / "synchronous", options=kept)
        sides = {
            "asynchronous": lambda: trained.run(asynchronous.save),
            "synchronous": lambda: trained.run(lambda n, state: save_now(synchronous, n, state)),
            "no save": lambda: trained.run(None),
        }
        runs = interleave(sides, chosen.repeats)
        asynchronous.close()
        synchronous.close()
    without = statistics.median(steps for _, steps in runs.pop("no save"))
    added = {side: statistics.median(held + steps for held, steps in found) - without for side, found in runs.items()}
    details = {f"seconds added to the steps in all, {side}": seconds for side, seconds in added.items()}
    details |= {"megabytes": trained.megabytes()}
    held_up = {side: [held for held, _ in found] for side, found in runs.items()}
    measure = "training held up by a save, asynchronous ÷ synchronous"
    publish("save_stall", measure, TARGET, held_up, "s", chosen.results, details)


class Trained:
    """A state that goes on training; each run saves it once."""

    def __init__(self, state: Any, step: Callable, batches: Any):
        self._state, self._step, self._batches, self._saved = state, step, batches, 0

    def run(self, save: Callable[[int, Any], None] | None) -> tuple[float, float]:
        """The seconds of a save, and of the steps behind it."""
        import jax

        self._saved += 1
        start = time.perf_counter()
        if save is not None:
            save(self._saved, self._state)
        saved = time.perf_counter()
        for _ in range(STEPS):
            self._state, _ = self._step(self._state, next(self._batches))
        jax.block_until_ready(self._state)
        return saved - start, time.perf_counter() - saved

    def megabytes(self) -> float:
        """The size of the state."""
        import jax

        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._state)) / 1e6


def save_now(manager: ocp.CheckpointManager, n: int, state: Any) -> None:
    """Returns when the checkpoint is on disk."""
    manager.save(n, args=ocp.args.StandardSave(state))


if __name__ == "__main__":
    launch(main)
