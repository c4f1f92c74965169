"""Seeking to any batch, beside reading up to it.

`batch_at(n)` for random n, and what a source without it does: making the batches 0..n. In the details is
how long the batch a billion steps on takes beside batch 0, which is what "any batch" means.

  python -m experiments.benchmarks.seek
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from experiments.benchmarks.harness import Target, options, parser, publish, timed
from experiments.benchmarks.workload import Spec, make_work, source_of
from experiments.programs import launch
from mel.shards.batches import BatchSource

TARGET = Target(passes=0.02, stretch=0.001, at_least=False)
FAR = 10**9


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__)
    flags.add_argument("--batches", type=int, default=2_000, help="the n of batch n is below this")
    flags.add_argument("--seeks", type=int, default=200, help="how many random n are sought in a run")
    chosen = options(flags, argv)
    spec = Spec(batch_size=16 if chosen.quick else 256, tiny=chosen.quick)
    most, seeks = (40, 10) if chosen.quick else (chosen.batches, chosen.seeks)
    source = source_of(make_work(spec), spec, chunk_tokens=2048)
    layouts = source.plan()
    wanted = np.sort(np.random.default_rng(0).integers(1, most, size=seeks))
    runs: dict[str, list[float]] = {"batch_at(n)": [], "reading up to n": []}
    far = []
    for _ in range(chosen.repeats):
        runs["batch_at(n)"].append(float(np.mean(seek_seconds(source, layouts, wanted))))
        runs["reading up to n"].append(float(np.mean(read_seconds(source, layouts, wanted))))
        near_and_far = [timed(lambda: source.batch_at(n, layouts))() for n in (FAR, 0)]
        far.append(near_and_far[0] / near_and_far[1])
    details = {"mean n": float(wanted.mean()), f"batch {FAR:,} ÷ batch 0": float(np.median(far))}
    publish("seek", "seeking to any batch ÷ reading up to it", TARGET, runs, "s", chosen.results, details)


def seek_seconds(source: BatchSource, layouts, wanted: np.ndarray) -> list[float]:
    """The seconds to make each wanted batch alone."""
    return [timed(lambda: source.batch_at(int(n), layouts))() for n in wanted]


def read_seconds(source: BatchSource, layouts, wanted: np.ndarray) -> list[float]:
    """The seconds from the start of a reading to the end of each wanted batch; `wanted` ascends."""
    start, done = time.perf_counter(), []
    for n in range(int(wanted[-1]) + 1):
        source.batch_at(n, layouts)
        done.append(time.perf_counter() - start)
    return [done[n] for n in wanted]


if __name__ == "__main__":
    launch(main)
