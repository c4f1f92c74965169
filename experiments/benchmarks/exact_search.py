"""Exact search on a CPU: queries a second of ours and of faiss Flat, the same neighbours of the same vectors.

A million structured vectors of 128 dimensions as in `mining_search`, a thousand queries, k = 100, two threads, each
side in a process of its own. The details have both for one query and eight, as a service asks them, and what a thousand
queries take for each million vectors, which is a law: exact search is proportional to both.

  python -m experiments.benchmarks.exact_search
"""

from __future__ import annotations

import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks import mining_search, rivals
from experiments.benchmarks.harness import Target, in_turn, options, parser, publish
from experiments.programs import launch

TARGET = Target(passes=1.0)
K, FEW = 100, (1, 8)
LEAST_ALIKE = 0.9999  # of the neighbours: sums of products are rounded in another order


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    flags = parser(__doc__, repeats=3)
    flags.add_argument("--vectors", type=int, default=1_000_000)
    flags.add_argument("--queries", type=int, default=1_000)
    chosen = options(flags, argv)
    rivals.require("faiss")
    count = (5_000, 50) if chosen.quick else (chosen.vectors, chosen.queries)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        mining_search.write_vectors(folder, mining_search.Sizes(*count, 0), seed=0)
        runs = in_turn({"ours": (ours, folder), "faiss Flat": (theirs, folder)}, chosen.repeats)
    alike = mining_search.recall_at(runs["ours"][0].value["rows"], runs["faiss Flat"][0].value["rows"])
    if alike < LEAST_ALIKE:
        sys.exit(f"Only {alike:.6f} of our neighbours are faiss Flat's: a speed does not count.")
    seconds = {side: [run.value["seconds"] for run in found] for side, found in runs.items()}
    of_thousand = statistics.median(seconds["ours"]) * 1e9 / (count[0] * count[1])
    details = {
        "vectors": count[0], "queries": count[1], "k": K, "neighbours alike": alike,
        "seconds a thousand queries and million vectors": of_thousand,
        **{f"seconds of {few} queries, {side}": statistics.median(run.value[few] for run in found)
           for few in FEW for side, found in runs.items()},
        "peak_mb": {side: found[-1].peak_mb for side, found in runs.items()},
    }  # fmt: skip
    rates = {side: [count[1] / each for each in took] for side, took in seconds.items()}
    measure = f"exact search of {count[0]:,} × {mining_search.DIMENSION} on a CPU, k = {K}, ours ÷ faiss Flat"
    return publish("exact_search", measure, TARGET, rates, "queries/s", chosen.results, details)


def ours(turn: Callable[[Any], None], folder: pathlib.Path) -> None:
    """A side that searches as mining and evaluation do."""
    from mel.retrieval.exact import ExactIndex

    _, queries_QD = mining_search.read_vectors(folder)
    index = ExactIndex(np.load(folder / "vectors.npy", mmap_mode="r"))  # mapped, as published embeddings are
    take_turns(turn, lambda queries_qD: index.search(queries_qD, K)[0], queries_QD)


def theirs(turn: Callable[[Any], None], folder: pathlib.Path) -> None:
    """A side that searches with faiss."""
    import faiss

    faiss.omp_set_num_threads(rivals.THREADS)
    vectors_ND, queries_QD = mining_search.read_vectors(folder)
    index = faiss.IndexFlatIP(vectors_ND.shape[1])
    index.add(vectors_ND)
    take_turns(turn, lambda queries_qD: index.search(queries_qD, K)[1], queries_QD)


def take_turns(turn: Callable[[Any], None], search: Callable[[np.ndarray], np.ndarray], queries_QD: np.ndarray) -> None:
    """Searches all queries, and a few of them, a turn."""
    while True:
        start = time.perf_counter()
        told: dict[Any, Any] = {"rows": search(queries_QD), "seconds": time.perf_counter() - start}
        for few in FEW:
            start = time.perf_counter()
            search(queries_QD[:few])
            told[few] = time.perf_counter() - start
        turn(told)


if __name__ == "__main__":
    launch(main)
