"""Searching for hard negatives: build + search of our ScaNN index, beside faiss Flat and faiss IVF at equal recall.

A million structured vectors of 128 dimensions (a 32-dimensional latent space with 2,000 soft clusters,
through a small tanh network, with noise), 50,000 perturbed ones as queries, k = 100, two threads. Ours
includes tuning by a measured recall. Flat's time is proportional to the number of queries, so it is
measured on fewer and scaled up; its neighbours are what recall is measured against. The other faiss indexes probe as
few lists as give them our recall, which they find out while no clock runs.

  python -m experiments.benchmarks.mining_search
"""

from __future__ import annotations

import functools
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks import rivals
from experiments.benchmarks.harness import Run, Target, in_turn, options, parser, publish
from experiments.programs import launch

LEAST_RECALL = 0.95
K, DIMENSION, LATENT, CLUSTERS, PERTURBATION = 100, 128, 32, 2000, 0.05
ROWS_AT_ONCE = 65_536
OURS, FLAT = "ours", "faiss Flat"
# The index that faiss makes from a description, and its search parameters.
FAISS = {
    FLAT: ("Flat", ""),
    "faiss IVF,Flat": ("IVF{leaves},Flat", "nprobe={lists}"),
    "faiss IVF,PQ,refined": ("IVF{leaves},PQ64x4fsr,RFlat", "nprobe={lists},k_factor_rf=3"),
}
TARGETS = {FLAT: Target(passes=3.0, stretch=8.0), "faiss IVF,Flat": Target(passes=1.0, stretch=1.5)}
LISTS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # of which as few are probed as will do


class Sizes(NamedTuple):
    """Vectors, queries, and the queries of Flat, the first ones."""

    vectors: int
    queries: int
    flat_queries: int


class Equal(NamedTuple):
    """The true neighbours of the first queries, and the share of them that every side has to find."""

    true_qk: np.ndarray
    recall: float


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    flags = parser(__doc__, repeats=3)
    chosen = options(flags, argv)
    rivals.require("faiss")
    sizes = Sizes(30_000, 500, 200) if chosen.quick else Sizes(1_000_000, 50_000, 2_000)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_vectors(folder, sizes, seed=0)
        first = {OURS: (ours, folder), FLAT: (faiss, FLAT, folder, sizes.flat_queries, None)}
        first = {side: found[0].value["rows"] for side, found in in_turn(first, 1, warmups=0).items()}
        equal = Equal(first[FLAT], recall_at(first[OURS], first[FLAT]))
        if equal.recall < LEAST_RECALL:
            sys.exit(f"Our recall@{K} is {equal.recall:.4f}, below {LEAST_RECALL}: its speed does not count.")
        runs = measure(folder, sizes, equal, chosen.repeats)
    recall = {side: recall_at(found[-1].value["rows"], equal.true_qk) for side, found in runs.items()}
    seconds = {side: [total_seconds(run.value, sizes.queries) for run in found] for side, found in runs.items()}
    rates = {side: [sizes.queries / value for value in values] for side, values in seconds.items()}
    details = {f"recall@{K}, {side}": share for side, share in recall.items()}
    stages = {side: [(run.value["build"], run.value["search"]) for run in found] for side, found in runs.items()}
    lists = {side: found[-1].value["lists"] for side, found in runs.items() if "lists" in found[-1].value}
    details |= {"lists probed": lists, "seconds of build and search": stages, **sizes._asdict()}
    title = f"mining, build + search of {sizes.vectors:,} × {DIMENSION}, {sizes.queries:,} queries, k = {K}"
    results = []
    for rival, target in TARGETS.items():
        name = "mining_search" if rival == FLAT else "mining_search_ivf"
        both = {OURS: rates[OURS], rival: rates[rival]}
        results.append(publish(name, f"{title}, ours ÷ {rival}", target, both, "queries/s", chosen.results, details))
    return results


def measure(folder: pathlib.Path, sizes: Sizes, equal: Equal, repeats: int) -> dict[str, list[Run]]:
    """Each side in a process of its own; there is no warm-up, as imports are not measured."""
    queries = {side: sizes.flat_queries if side == FLAT else sizes.queries for side in FAISS}
    rival = {side: (faiss, side, folder, count, equal) for side, count in queries.items()}
    return in_turn({OURS: (ours, folder)} | rival, repeats, warmups=0)


def ours(turn: Callable[[Any], None], folder: pathlib.Path) -> None:
    """Builds and tunes as `mel-mine-negatives` does, and searches."""
    vectors_ND, queries_QD = read_vectors(folder)

    def build(vectors_ND: np.ndarray):
        return tuned_index(vectors_ND, queries_QD)

    while True:
        turn(build_and_search(build, lambda index: index.search(queries_QD, K)[0], vectors_ND, len(queries_QD)))


def tuned_index(embeddings_ND: np.ndarray, queries_QD: np.ndarray):
    """A ScaNN index of one shard in this process, tuned with some of the queries, as mining tunes it."""
    from mel.retrieval import approximate, probes

    settings = approximate.ScannSettings()
    some_qD = queries_QD[probes.spread(len(queries_QD))]
    nearest_qk = probes.nearest_scores(embeddings_ND, some_qD, probes.DEPTH)
    return approximate.tune(approximate.build(embeddings_ND, settings), some_qD, nearest_qk, settings.least_recall)[0]


def faiss(turn: Callable[[Any], None], side: str, folder: pathlib.Path, count: int, equal: Equal | None) -> None:
    """Builds the index that the side names, and searches the first `count` queries."""
    import faiss

    faiss.omp_set_num_threads(rivals.THREADS)
    description, parameters = FAISS[side]
    vectors_ND, queries_QD = read_vectors(folder)
    leaves = max(16, min(2048, len(vectors_ND) // 40))
    found: dict[str, int] = {}

    def build(vectors_ND: np.ndarray):
        index = faiss.index_factory(DIMENSION, description.format(leaves=leaves), faiss.METRIC_INNER_PRODUCT)
        index.train(vectors_ND[:: max(1, len(vectors_ND) // (100 * leaves))])
        index.add(vectors_ND)
        return index

    def probe(index) -> None:
        if not parameters or equal is None:
            return
        some_qD = queries_QD[: len(equal.true_qk)]
        for lists in LISTS if not found else [found["lists"]]:
            faiss.ParameterSpace().set_index_parameters(index, parameters.format(lists=lists))
            if found or recall_at(index.search(some_qD, K)[1], equal.true_qk) >= equal.recall:
                break
        found["lists"] = lists

    while True:
        search = functools.partial(_faiss_rows, queries_QD[:count])
        turn(build_and_search(build, search, vectors_ND, count, probe) | found)


def _faiss_rows(queries_QD: np.ndarray, index) -> np.ndarray:
    return index.search(queries_QD, K)[1]


def build_and_search(
    build: Callable, search: Callable, vectors_ND: np.ndarray, queries: int, between: Callable = lambda index: None
) -> dict[str, Any]:
    """Seconds of both, and the rows found; what is done between them is not counted."""
    start = time.perf_counter()
    index = build(vectors_ND)
    built = time.perf_counter() - start
    between(index)
    start = time.perf_counter()
    rows_qk = search(index)
    return {"build": built, "search": time.perf_counter() - start, "queries": queries, "rows": rows_qk}


def total_seconds(value: dict[str, Any], queries: int) -> float:
    """Build and search of all queries; the search is scaled up where fewer were asked."""
    return value["build"] + value["search"] * queries / value["queries"]


def recall_at(rows_Qk: np.ndarray, true_qk: np.ndarray) -> float:
    """The mean share of the true neighbours of the first q queries among those found."""
    shares = [np.isin(true_k, rows_k).mean() for rows_k, true_k in zip(rows_Qk, true_qk)]
    return float(np.mean(shares))


def write_vectors(folder: pathlib.Path, sizes: Sizes, seed: int) -> None:
    """Writes vectors and queries, each of unit length."""
    generator = np.random.default_rng(seed)
    vectors_ND = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(sizes.vectors, DIMENSION)
    )
    centres = generator.standard_normal((CLUSTERS, LATENT), np.float32)
    layers = [generator.standard_normal((rows, DIMENSION), np.float32) / rows**0.5 for rows in (LATENT, DIMENSION)]
    for first in range(0, sizes.vectors, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, sizes.vectors - first)
        latent = centres[generator.integers(CLUSTERS, size=count)]
        latent = latent + 0.5 * generator.standard_normal((count, LATENT), np.float32)
        vectors_nD = np.tanh(latent @ layers[0]) @ layers[1]
        vectors_ND[first : first + count] = unit_length(perturbed(vectors_nD, generator))
    vectors_ND.flush()
    origins_QD = vectors_ND[generator.integers(sizes.vectors, size=sizes.queries)]
    np.save(folder / "queries.npy", unit_length(perturbed(origins_QD, generator)))


def read_vectors(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and queries, both in memory before any clock runs."""
    return np.load(folder / "vectors.npy"), np.load(folder / "queries.npy")


def perturbed(vectors_nD: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """With noise on every dimension."""
    return vectors_nD + PERTURBATION * generator.standard_normal(vectors_nD.shape, np.float32)


def unit_length(vectors_nD: np.ndarray) -> np.ndarray:
    return vectors_nD / np.linalg.norm(vectors_nD, axis=1, keepdims=True)


if __name__ == "__main__":
    launch(main)
