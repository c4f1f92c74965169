"""A training step on batches that are read, beside the same step on one batch that is on the device already.

Both repeat one compiled step with batches of one layout, so what is between them is what data cost: making
each batch on its thread and moving it to the device. The encoder is small (2 layers of 128), because a
deep one hides more. Each run starts with steps that use up the batches made ahead.

  python -m experiments.benchmarks.real_data --workdir=RUN
"""

from __future__ import annotations

import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from experiments.benchmarks.harness import Target, interleave, options, parser, publish
from experiments.benchmarks.workload import Ours, Work, add_flags, make_work, our_step, spec_of
from experiments.programs import launch
from mel.encoder.config import EncoderConfig
from mel.types import Batch

TARGET = Target(passes=1.05, at_least=False)
WASTED, MEASURED = 4, 8  # steps of a run; more are wasted than batches are made ahead


def main(argv: Sequence[str] | None = None) -> None:
    flags = add_flags(parser(__doc__))
    chosen = options(flags, argv)
    if chosen.workdir is None and not chosen.quick:
        flags.error("--workdir is missing: a run with token shards and mined negatives.")
    spec = spec_of(chosen)
    work = make_work(spec)
    with tempfile.TemporaryDirectory() as folder:
        save_small_encoder(work, pathlib.Path(folder), tiny=chosen.quick)
        state, step, batches = our_step(work, spec, folder, Ours(compact=True))
    sides = sides_of(step, state, batches)
    runs = interleave(sides, chosen.repeats)
    details = {"mentions": spec.batch_size, "workdir": chosen.workdir, "steps a run": MEASURED}
    measure = "training step on data that are read ÷ on one batch already there"
    publish("real_data", measure, TARGET, runs, "s", chosen.results, details)


def save_small_encoder(work: Work, folder: pathlib.Path, tiny: bool) -> None:
    """Random weights of an encoder that is fast beside its data."""
    from mel.encoder import pretrained
    from mel.encoder.transformer import init_params

    layers, hidden, heads = (1, 16, 2) if tiny else (2, 128, 4)
    encoder = EncoderConfig(work.encoder.vocab_size, hidden, layers, heads, 4 * hidden)
    pretrained.save(folder, encoder, init_params(encoder, seed=0))


def sides_of(step, state, batches: Iterator[Batch]) -> dict[str, Callable[[], float]]:
    """Functions that train some steps and return the seconds of one; they share the state."""
    import jax

    def run(source: Iterator[Batch]) -> float:
        nonlocal state
        for batch in itertools.islice(source, WASTED):
            state, _ = step(state, batch)
        jax.block_until_ready(state)
        start = time.perf_counter()
        for batch in itertools.islice(source, MEASURED):
            state, _ = step(state, batch)
        jax.block_until_ready(state)
        return (time.perf_counter() - start) / MEASURED

    first = next(batches)
    return {"read": lambda: run(batches), "one batch": lambda: run(itertools.repeat(first))}


if __name__ == "__main__":
    launch(main)
