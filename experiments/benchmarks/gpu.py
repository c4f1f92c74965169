"""Everything that a GPU is asked for, in one run: training against its rivals, exact search, the share of training.

    python -m experiments.benchmarks.gpu [--budget=SECONDS] [--rounds=W]

In this order, one side after the other, each in a process of its own that has the device to itself:
1. ours, training at variable length, in real tokens a second; its share of the byte roofline
   (`mel.training.meter.step_bytes`);
2. exact search for the 100 nearest of 10 million vectors of 256 dimensions, in seconds a million queries;
3. the same training by sentence-transformers with its plain loss (where it fits, the cached one computes all twice);
4. and by a PyTorch loop over mel's own batches, each layer compiled;
5. ours and sentence-transformers at 64 tokens;
6. with --rounds the share of training in the wall time of the rounds that mel-run-rounds has run in W.

What a side gives is printed when it ends, and a ratio is written as soon as there are both of its sides. After
--budget seconds no side is begun any more. Compiling a step of ours takes half a minute and more, which --widths
shortens at the cost of padding. It is written for one GPU in bfloat16; on a CPU it runs too, slowly.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import statistics
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
UNIT = "real tokens/s"
# A side takes of the device's memory what it needs, and may take nearly all of it.
AS_NEEDED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_PYTHON_CLIENT_MEM_FRACTION": ".9"}


class Sizes(NamedTuple):
    """Vectors, their dimension, and queries."""

    vectors: int
    dimension: int
    queries: int


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Returns the results by name."""
    flags = workload.add_flags(parser(__doc__, repeats=3), mentions=512)
    flags.add_argument("--steps", type=int, default=20, help="steps that are timed together")
    flags.add_argument("--widths", type=int, default=3, help="widths of texts that are compiled into a step, at most")
    flags.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no side is begun")
    flags.add_argument("--rounds", type=pathlib.Path, help="working directory of rounds that were run on this machine")
    chosen = options(flags, argv)
    results: dict[str, dict[str, Any]] = {}
    end = time.monotonic() + chosen.budget
    with contextlib.ExitStack() as stack:
        for name, run in tasks(chosen, Training(chosen, stack)).items():
            if time.monotonic() >= end:
                print(f"Not begun, for --budget={chosen.budget:g} seconds have passed: {name}.", flush=True)
                continue
            try:
                results |= {result["name"]: result for result in run()}
            except RuntimeError as error:  # of its process; the others may do better
                print(f"Left out, {name}: {error}", flush=True)
    return results


def tasks(chosen: argparse.Namespace, training: Training) -> dict[str, Callable[[], Iterator[dict[str, Any]]]]:
    """What is measured, in order: each gives the results that are whole with it."""
    found: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "ours, variable length": lambda: training.ours("variable"),
        "exact search": lambda: search(chosen),
        f"{SENTENCES}, variable length": lambda: training.rival(
            "variable", SENTENCES, "gpu_sentence_transformers", VARIABLE
        ),
        f"{PYTORCH}, variable length": lambda: training.rival("variable", PYTORCH, "gpu_pytorch_loop", LOOP),
        "ours, 64 tokens": lambda: training.ours("fixed"),
        f"{SENTENCES}, 64 tokens": lambda: training.rival("fixed", SENTENCES, "gpu_fixed_length", FIXED),
    }
    if chosen.rounds:
        found["share of training"] = lambda: share_of_training(chosen)
    return found


class Training:
    """The sides that train, and what each has given so far."""

    def __init__(self, chosen: argparse.Namespace, stack: contextlib.ExitStack):
        steps = 2 if chosen.quick else chosen.steps
        self._chosen, self._stack = chosen, stack
        self._specs = {
            length: workload.spec_of(chosen, steps_a_turn=steps, fixed=length == "fixed", widths=chosen.widths)
            for length in ("variable", "fixed")
        }
        self._folders: dict[str, str] = {}
        self._runs: dict[tuple[str, str], list[Run]] = {}

    def ours(self, length: str) -> Iterator[dict[str, Any]]:
        """Runs mel; of variable length it has a share of the roofline."""
        spec = self._specs[length]
        runs = self._run(length, OURS, workload.our_side, Ours())
        if length == "variable":
            yield roofline(spec, runs, self._chosen)

    def rival(self, length: str, rival: str, name: str, target: Target) -> Iterator[dict[str, Any]]:
        """Runs a rival, and says how many times as fast mel is where it has run."""
        spec = self._specs[length]
        if rival == SENTENCES:
            self._run(length, rival, sentence_side, "plain")
        else:
            self._run(length, rival, pytorch_side, WHOLE, not self._chosen.quick)
        if (length, OURS) in self._runs:
            runs = {side: self._runs[length, side] for side in (OURS, rival)}
            texts = "variable length" if length == "variable" else "all texts 64 tokens"
            measure = f"on a GPU: training, {texts}, against {rival}"
            facts = workload.facts(spec, runs)
            yield publish(name, measure, target, rates(spec, runs), UNIT, self._chosen.results, facts)

    def _run(self, length: str, name: str, side: Callable[..., None], *more: Any) -> list[Run]:
        """The turns of a side after its first one, in which it compiles."""
        spec = self._specs[length]
        with child(side, spec, self._folder(length), *more, environment=AS_NEEDED) as run:
            first = run()
            runs = [run() for _ in range(self._chosen.repeats)]
        self._runs[length, name] = runs
        rate = statistics.median(rates(spec, {name: runs})[name])
        print(f"{name}, {length}: {rate:,.0f} {UNIT}; {first.seconds:.0f} s to start and compile", flush=True)
        return runs

    def _folder(self, length: str) -> str:
        """The weights that all start from; a rival leaves a tokenizer beside them, which differs with the length."""
        if not self._folders:
            self._folders["variable"] = self._stack.enter_context(workload.initial_weights(self._specs["variable"]))
        if length not in self._folders:
            another = self._stack.enter_context(tempfile.TemporaryDirectory())
            self._folders[length] = str(shutil.copytree(self._folders["variable"], another, dirs_exist_ok=True))
        return self._folders[length]


def roofline(spec: Spec, runs: Sequence[Run], chosen: argparse.Namespace) -> dict[str, Any]:
    """The share of the least time that a step's bytes take."""
    with child(least_work, spec, environment=AS_NEEDED) as run:
        least = run().value
    seconds = [run.seconds / spec.steps_a_turn for run in runs]
    shares = [least["bytes"] / (value * least["GB/s"] * 1e9) for value in seconds]
    least["mfu"] = float(np.median([least["flops"] / (value * least["TFLOP/s"] * 1e12) for value in seconds]))
    measure = "on a GPU: training, variable length, share of the byte roofline"
    return publish("gpu_roofline", measure, ROOFLINE, {OURS: shares}, "", chosen.results, least)


def least_work(turn: Callable[..., None], spec: Spec) -> None:
    """A side that tells what a step has to do at the least, and what the device could do."""
    import jax

    from mel.encoder.backend import choose_compute
    from mel.training.encoding import what_is_kept
    from mel.training.meter import Peak, Speed, device_peak

    work = workload.make_work(spec)
    compute = choose_compute("auto", work.encoder)
    layout, _ = workload.source_of(work, spec, compute.chunk_tokens).plan(most_widths=spec.widths)
    dtype = compute.dtype
    kind = jax.devices()[0].device_kind
    peak = device_peak(kind, dtype)
    peak = peak if peak.tflops else Peak(1.0, 1.0)  # of a device that nobody knows, so that shares are numbers
    kept = what_is_kept(work.encoder, layout.tokens, compute)
    speed = Speed(work.encoder, layout, spec.batch_size, dtype, peak, kept=kept)
    turn({
        "kept": kept, "device": kind, "dtype": dtype, "bytes": speed.bytes, "flops": speed.flops,
        "TFLOP/s": peak.tflops, "GB/s": peak.gbytes_per_s,
    })  # fmt: skip


def search(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Exact search of vectors that this process holds, as mining and evaluation do it."""
    sizes = Sizes(2_000, 32, 100) if chosen.quick else Sizes(10_000_000, 256, 32_768)
    with child(search_side, sizes, environment=AS_NEEDED) as run:
        runs = interleave({OURS: run}, min(chosen.repeats, 3))
    seconds = [run.value / sizes.queries * 1e6 for run in runs[OURS]]
    measure = f"on a GPU: exact search, {K} of {sizes.vectors:,} × {sizes.dimension}"
    details = {**sizes._asdict(), "peak_mb": runs[OURS][-1].peak_mb}
    yield publish("gpu_search", measure, SEARCH, {OURS: seconds}, "s a million queries", chosen.results, details)


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


def share_of_training(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Training's share of the seconds of all stages of the rounds."""
    counted = "train", "mine", "evaluate", "report"
    stages = [stage for stage in read_cost(chosen.rounds) if stage["stage"].split()[0] in counted]
    training = sum(stage["seconds"] for stage in stages if stage["stage"].startswith("train"))
    share = training / sum(stage["seconds"] for stage in stages)
    details = {stage["stage"]: stage["seconds"] for stage in stages}
    measure = "on a GPU: seconds of training ÷ seconds of all rounds"
    yield publish("gpu_rounds", measure, SHARE, {OURS: [share]}, "", chosen.results, details)


if __name__ == "__main__":
    launch(main)
