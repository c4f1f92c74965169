"""Everything that a GPU is asked for, in one run: training against its rivals, exact search, the share of training.

    python -m experiments.benchmarks.gpu [--rounds=W]

1. training at variable length, in real tokens a second, against sentence-transformers' plain loss (where it fits, the
   cached one computes all twice) and against a PyTorch loop over mel's own batches, each layer compiled;
2. the same at 64 tokens, against sentence-transformers;
3. the share of the byte roofline (`mel.training.meter.step_bytes`) that 1 reaches;
4. exact search for the 100 nearest of 10 million vectors of 256 dimensions, in seconds a million queries;
5. with --rounds the share of training in the wall time of the rounds that mel-run-rounds has run in W.

It is written for one GPU in bfloat16; on a CPU it runs too, slowly. What is done is printed and written as it goes.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks import workload
from experiments.benchmarks.harness import Run, Target, child, interleave, options, parser, publish
from experiments.benchmarks.train_variable_length import rates
from experiments.benchmarks.training_rivals import WHOLE, pytorch_side, sentence_side
from experiments.benchmarks.workload import Ours, Spec
from experiments.programs import launch
from mel.cost import read_cost

VARIABLE, FIXED, LOOP = Target(3.0), Target(1.5), Target(1.0)
ROOFLINE, SEARCH, SHARE = Target(0.45), Target(120.0, at_least=False), Target(0.80)
K, ROWS_AT_ONCE = 100, 100_000
OURS, SENTENCES, PYTORCH = "ours", "sentence-transformers, plain", "PyTorch, one graph, layers compiled"
# Five processes share the memory of one device.
AS_NEEDED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_PYTHON_CLIENT_MEM_FRACTION": ".9"}


class Sizes(NamedTuple):
    """Vectors, their dimension, and queries."""

    vectors: int
    dimension: int
    queries: int


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Returns the results by name."""
    flags = workload.add_flags(parser(__doc__), mentions=512)
    flags.add_argument("--steps", type=int, default=20, help="steps that are timed together")
    flags.add_argument("--rounds", type=pathlib.Path, help="working directory of rounds that were run on this machine")
    chosen = options(flags, argv)
    results = [*train(chosen), search(chosen)]
    if chosen.rounds:
        results.append(share_of_training(chosen))
    return {result["name"]: result for result in results}


def train(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Training at variable length and at 64 tokens. All sides warm up at once, then those of a length take turns."""
    steps = 2 if chosen.quick else chosen.steps
    variable, fixed = (workload.spec_of(chosen, steps_a_turn=steps, fixed=each) for each in (False, True))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(workload.initial_weights(variable))
        another = str(shutil.copytree(folder, stack.enter_context(tempfile.TemporaryDirectory()), dirs_exist_ok=True))
        sides = {
            ("variable", OURS): (workload.our_side, variable, folder, Ours()),
            ("variable", SENTENCES): (sentence_side, variable, folder, "plain"),
            ("variable", PYTORCH): (pytorch_side, variable, folder, WHOLE, not chosen.quick),
            ("fixed", OURS): (workload.our_side, fixed, another, Ours()),
            ("fixed", SENTENCES): (sentence_side, fixed, another, "plain"),
        }
        run_of = {name: stack.enter_context(child(*side, environment=AS_NEEDED)) for name, side in sides.items()}
        with concurrent.futures.ThreadPoolExecutor(len(run_of)) as threads:
            list(threads.map(lambda run: run(), run_of.values()))

        def turns(length: str) -> dict[str, list[Run]]:
            of_length = {side: run for (its_length, side), run in run_of.items() if its_length == length}
            return interleave(of_length, chosen.repeats, warmups=0)

        runs = turns("variable")
        yield from at_variable_length(variable, runs, chosen)
        runs = turns("fixed")
    measure = "on a GPU: training, all texts 64 tokens, against sentence-transformers"
    facts = workload.facts(fixed, runs)
    yield publish("gpu_fixed_length", measure, FIXED, rates(fixed, runs), "real tokens/s", chosen.results, facts)


def at_variable_length(spec: Spec, runs: dict[str, list[Run]], chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Against both rivals, and the share of the roofline."""
    speed, facts = rates(spec, runs), workload.facts(spec, runs)
    for name, rival, target in (("sentence_transformers", SENTENCES, VARIABLE), ("pytorch_loop", PYTORCH, LOOP)):
        measure = f"on a GPU: training, variable length, against {rival}"
        two = {side: speed[side] for side in (OURS, rival)}
        yield publish(f"gpu_{name}", measure, target, two, "real tokens/s", chosen.results, facts)
    with child(least_work, spec, environment=AS_NEEDED) as run:
        least = run().value
    seconds = [run.seconds / spec.steps_a_turn for run in runs[OURS]]
    shares = [least["bytes"] / (value * least["GB/s"] * 1e9) for value in seconds]
    least["mfu"] = float(np.median([least["flops"] / (value * least["TFLOP/s"] * 1e12) for value in seconds]))
    measure = "on a GPU: training, variable length, share of the byte roofline"
    yield publish("gpu_roofline", measure, ROOFLINE, {OURS: shares}, "", chosen.results, least)


def least_work(turn: Callable[..., None], spec: Spec) -> None:
    """A side that tells what a step has to do at the least, and what the device could do."""
    import jax

    from mel.encoder.backend import choose_compute, tokens_at_once
    from mel.training.meter import Peak, Speed, device_peak

    work = workload.make_work(spec)
    layout, _ = workload.source_of(work, spec, tokens_at_once()).plan()
    dtype = choose_compute("auto", work.encoder.hidden_size // work.encoder.num_heads).dtype
    kind = jax.devices()[0].device_kind
    peak = device_peak(kind, dtype)
    peak = peak if peak.tflops else Peak(1.0, 1.0)  # of a device that nobody knows, so that shares are numbers
    speed = Speed(work.encoder, layout, spec.batch_size, dtype, peak)
    turn({
        "device": kind, "dtype": dtype, "bytes": speed.bytes, "flops": speed.flops,
        "TFLOP/s": peak.tflops, "GB/s": peak.gbytes_per_s,
    })  # fmt: skip


def search(chosen: argparse.Namespace) -> dict[str, Any]:
    """Exact search of vectors that this process holds, as mining and evaluation do it."""
    sizes = Sizes(2_000, 32, 100) if chosen.quick else Sizes(10_000_000, 256, 32_768)
    with child(search_side, sizes, environment=AS_NEEDED) as run:
        runs = interleave({OURS: run}, min(chosen.repeats, 3))
    seconds = [run.value / sizes.queries * 1e6 for run in runs[OURS]]
    measure = f"on a GPU: exact search, {K} of {sizes.vectors:,} × {sizes.dimension}"
    details = {**sizes._asdict(), "peak_mb": runs[OURS][-1].peak_mb}
    return publish("gpu_search", measure, SEARCH, {OURS: seconds}, "s a million queries", chosen.results, details)


def search_side(turn: Callable[..., None], sizes: Sizes) -> None:
    """A side that searches all queries and tells its seconds."""
    from mel.retrieval.exact import ExactIndex

    queries_QD = unit_vectors(sizes.queries, sizes.dimension, seed=1)
    index = ExactIndex(unit_vectors(sizes.vectors, sizes.dimension, seed=0))
    while True:
        start = time.perf_counter()
        index.search(queries_QD, K)
        turn(time.perf_counter() - start)


def unit_vectors(count: int, dimension: int, seed: int) -> np.ndarray:
    """Random directions; blocks of rows are drawn at once, each from a stream of its own."""
    vectors_ND = np.empty((count, dimension), np.float32)

    def draw(first: int) -> None:
        block_nD = vectors_ND[first : first + ROWS_AT_ONCE]
        np.random.default_rng((seed, first)).standard_normal(dtype=np.float32, out=block_nD)
        block_nD /= np.linalg.norm(block_nD, axis=1, keepdims=True)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(draw, range(0, count, ROWS_AT_ONCE)))
    return vectors_ND


def share_of_training(chosen: argparse.Namespace) -> dict[str, Any]:
    """Training's share of the seconds of all stages of the rounds."""
    stages = [stage for stage in read_cost(chosen.rounds) if stage["stage"].split()[0] in ("train", "mine", "evaluate")]
    training = sum(stage["seconds"] for stage in stages if stage["stage"].startswith("train"))
    share = training / sum(stage["seconds"] for stage in stages)
    details = {stage["stage"]: stage["seconds"] for stage in stages}
    measure = "on a GPU: seconds of training ÷ seconds of all rounds"
    return publish("gpu_rounds", measure, SHARE, {OURS: [share]}, "", chosen.results, details)


if __name__ == "__main__":
    launch(main)
