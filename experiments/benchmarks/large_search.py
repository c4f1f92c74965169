"""Searching a large knowledge base: what opening and asking its index takes, exactly and with ScaNN in shards.

Structured vectors of 128 dimensions and perturbed ones as queries, as in `mining_search`, are published as embeddings.
Exact search then streams them from the disk; ScaNN's trees are built as mel-mine-negatives builds them, which goes on
where it was if --folder is given. The ratio is the seconds of opening ScaNN's index and searching with it for 2,000
mentions, which together with `large_tables` is all of an evaluation but encoding. Memory is what is no mapped file.

  python -m experiments.benchmarks.large_search --rows=20000000
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks.harness import Target, child, options, parser, publish
from experiments.benchmarks.memory_watch import anonymous_mb
from experiments.benchmarks.mining_search import DIMENSION, K, Sizes, write_vectors
from experiments.programs import launch
from mel.artifacts import exists, open_artifact
from mel.artifacts import publish as publish_artifact
from mel.retrieval.approximate import ScannSettings
from mel.retrieval.embeddings import EMBEDDINGS
from mel.retrieval.exact import ExactIndex
from mel.retrieval.index import measure_recall, open_index, publish_index
from mel.retrieval.probes import Probes, spread

TARGET = Target(passes=60.0, stretch=20.0, at_least=False)
QUERIES, MEASURED = 2_000, 200


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__, repeats=1)
    flags.add_argument("--rows", type=int, default=20_000_000)
    flags.add_argument("--rows_a_shard", type=int, default=1_000_000)
    flags.add_argument("--folder", type=pathlib.Path, help="where vectors and index are kept, 1.3 GB a million rows")
    chosen = options(flags, argv)
    rows, most = (3_000, 2_000) if chosen.quick else (chosen.rows, chosen.rows_a_shard)
    details: dict[str, Any] = {"rows": rows, "rows a shard": most}
    with contextlib.ExitStack() as temporary:
        folder = chosen.folder or pathlib.Path(temporary.enter_context(tempfile.TemporaryDirectory()))
        if not exists(folder / "embeddings"):
            make(folder, rows)
        for side in (exact, built, searched):
            with child(side, folder, most) as run:
                details |= run().value
            print({name: value for name, value in details.items() if name.startswith(side.__name__)}, flush=True)
    seconds = details["searched, seconds to open"] + details["searched, seconds"]
    measure = f"opening and searching ScaNN in shards over {rows:,} × {DIMENSION}, {QUERIES:,} mentions, k = {K}"
    publish("large_search", measure, TARGET, {"seconds": [seconds]}, "s", chosen.results, details)


def make(folder: pathlib.Path, rows: int) -> None:
    """Publishes the embeddings, and keeps the queries beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    with publish_artifact(folder / "embeddings", "embeddings") as draft:
        write_vectors(draft.path, Sizes(rows, QUERIES, 0), seed=0)
        (draft / "vectors.npy").rename(draft / EMBEDDINGS)


def exact(turn: Callable[[dict[str, Any]], None], folder: pathlib.Path, rows_a_shard: int) -> None:
    """Exact search of half of the queries, streamed from the disk."""
    vectors_ND, queries_QD = opened(folder)
    started, before = time.perf_counter(), anonymous_mb()
    ExactIndex(vectors_ND).search(queries_QD[: QUERIES // 2], K)
    turn({f"exact, seconds of {QUERIES // 2:,} queries": time.perf_counter() - started,
          "exact, MB": anonymous_mb() - before})  # fmt: skip


def built(turn: Callable[[dict[str, Any]], None], folder: pathlib.Path, rows_a_shard: int) -> None:
    """The index, where it is not there yet."""
    settings = ScannSettings(rows_a_shard=rows_a_shard, brute_force_below=min(1_000, rows_a_shard))
    _, queries_QD = opened(folder)
    told: dict[str, Any] = {}
    if not exists(folder / "index"):
        started = time.perf_counter()
        probes = Probes(queries_QD[spread(QUERIES)], "queries")
        publish_index(folder / "index", "scann", open_artifact(folder / "embeddings", "embeddings"), settings, probes)
        told["built, seconds"] = time.perf_counter() - started
    facts = open_artifact(folder / "index", "index", reads=()).facts
    size_gb = sum(path.stat().st_size for path in (folder / "index").rglob("*") if path.is_file()) / 1e9
    turn(told | {"built, peak MB": facts["peak_mb"], "built, shards": len(facts["shards"]), "built, GB": size_gb})


def searched(turn: Callable[[dict[str, Any]], None], folder: pathlib.Path, rows_a_shard: int) -> None:
    """What an evaluation does with the index."""
    vectors_ND, queries_QD = opened(folder)
    started, before = time.perf_counter(), anonymous_mb()
    index = open_index(folder / "index")
    opening = time.perf_counter() - started
    started = time.perf_counter()
    index.search(queries_QD, K)
    took = {"searched, seconds to open": opening, "searched, seconds": time.perf_counter() - started,
            "searched, MB": anonymous_mb() - before}  # fmt: skip
    recall = measure_recall(index, vectors_ND, Probes(queries_QD[-MEASURED:], "queries"), K)["recall"]
    turn(took | {f"searched, recall@{K}": recall})


def opened(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """The vectors, mapped, and the queries."""
    embeddings = folder / "embeddings"
    return np.load(embeddings / EMBEDDINGS, mmap_mode="r"), np.load(embeddings / "queries.npy")


if __name__ == "__main__":
    launch(main)
