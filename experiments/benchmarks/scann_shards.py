"""Memory that building a ScaNN index takes: one tree over all rows, and shards of 100,000 rows.

Structured vectors of 128 dimensions and perturbed ones as queries, as in `mining_search`. Each index is published as
mel-mine-negatives publishes it, and its peak is that of the largest process that built a tree for it, in which the
pages of the file that it reads are counted. The law is the line through the peaks of all sizes, as bytes a row beside
what a process of no rows has. Recall is of the 100 rows nearest to each query.

  python -m experiments.benchmarks.scann_shards
"""

from __future__ import annotations

import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks.harness import Target, options, parser, publish, second_run
from experiments.benchmarks.mining_search import DIMENSION, K, Sizes, write_vectors
from experiments.programs import launch

TARGET = Target(passes=0.5, stretch=0.4, at_least=False)
RAW_BYTES = 4 * DIMENSION  # of a row


class Plan(NamedTuple):
    """What is built.

    Attributes:
      rows: of each index, ascending.
      rows_a_shard: of each that has shards.
      queries: of each search.
    """

    rows: tuple[int, ...]
    rows_a_shard: int
    queries: int


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    flags = parser(__doc__, repeats=1)
    chosen = options(flags, argv)
    plan = Plan((3_000, 6_000), 2_000, 100) if chosen.quick else Plan((100_000, 200_000, 400_000), 100_000, 1_000)
    with tempfile.TemporaryDirectory() as name:
        write_vectors(pathlib.Path(name), Sizes(plan.rows[-1], plan.queries, 0), seed=0)
        sides = {"in shards": plan.rows_a_shard, "one tree": plan.rows[-1]}
        found = {
            side: [build(pathlib.Path(name), plan, rows, most) for rows in plan.rows] for side, most in sides.items()
        }
    details: dict[str, Any] = {"rows": plan.rows}
    for side, measured in found.items():
        a_row, fixed = law(plan.rows, [each["peak_mb"] for each in measured])
        details |= {f"bytes a row, {side}": round(a_row), f"times the vectors, {side}": round(a_row / RAW_BYTES, 2)}
        details |= {f"MB without rows, {side}": fixed, f"recall@{K}, {side}": measured[-1]["recall"], side: measured}
    peaks = {side: [measured[-1]["peak_mb"]] for side, measured in found.items()}
    measure = f"peak memory of building ScaNN over {plan.rows[-1]:,} × {DIMENSION}, in shards ÷ one tree"
    return publish("scann_shards", measure, TARGET, peaks, "MB", chosen.results, details)


def build(folder: pathlib.Path, plan: Plan, rows: int, rows_a_shard: int) -> dict[str, Any]:
    """What publishing an index over the first rows took, in a process of its own; printed as it goes."""
    run = second_run((published, folder, plan, rows, rows_a_shard))
    print(f"  {rows:,} rows, {rows_a_shard:,} a shard: {run.value}", flush=True)
    return run.value


def published(turn: Callable[[Any], None], folder: pathlib.Path, plan: Plan, rows: int, rows_a_shard: int) -> None:
    """Publishes once, and tells; the first turn tells nothing."""
    from mel.artifacts import open_artifact, publish
    from mel.retrieval.approximate import ScannSettings
    from mel.retrieval.index import measure_recall, open_index, publish_index
    from mel.retrieval.probes import Probes, spread

    turn()
    vectors_ND = np.load(folder / "vectors.npy", mmap_mode="r")[:rows]
    queries_QD = np.load(folder / "queries.npy")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        here = pathlib.Path(name)
        with publish(here / "embeddings", "embeddings") as draft:
            np.save(draft / "embeddings.npy", vectors_ND)
        settings = ScannSettings(rows_a_shard=rows_a_shard, brute_force_below=min(1_000, plan.rows_a_shard))
        probes = Probes(queries_QD[spread(len(queries_QD))], "queries")
        started = time.perf_counter()
        index = publish_index(
            here / "index", "scann", open_artifact(here / "embeddings", "embeddings"), settings, probes
        )
        built = time.perf_counter() - started
        opened = open_index(here / "index")
        started = time.perf_counter()
        opened.search(queries_QD, K)
        seconds = time.perf_counter() - started
        recall = measure_recall(opened, vectors_ND, Probes(queries_QD, "queries"), K)
        told = {name: index.facts[name] for name in ("peak_mb", "needed_mb")} | {"shards": len(index.facts["shards"])}
        turn(
            told
            | {"recall": recall["recall"], "build s": round(built, 1), "queries/s": round(len(queries_QD) / seconds)}
        )


def law(rows: Sequence[int], peaks_mb: Sequence[float]) -> tuple[float, float]:
    """Bytes a row and megabytes without rows, of the line through the peaks."""
    slope, fixed = np.polyfit(np.asarray(rows, float), np.asarray(peaks_mb, float), 1)
    return float(slope) * 1e6, float(fixed)


if __name__ == "__main__":
    launch(main)
