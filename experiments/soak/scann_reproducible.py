"""Is a ScaNN index the same when it is built twice? As mel builds it, and with its seeds set and one thread.

Each build is a process of its own, over the same random vectors around clusters; what is compared is
every file of the serialised index, and the answers to 500 queries.

  python -m experiments.soak.scann_reproducible --rows=50000,200000
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from mel.artifacts import write_text
from mel.checks import file_digest

HERE = pathlib.Path(__file__).parent
WAYS = ("as mel builds it", "seeded, one thread")
BUILDS = 3
DIMENSION, CLUSTERS = 128, 500
QUERIES, NEIGHBOURS = 500, 10


def vectors(rows: int) -> np.ndarray:
    """Unit vectors around clusters, float32 [rows, DIMENSION]."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLUSTERS, DIMENSION), np.float32)
    found = centres[rng.integers(CLUSTERS, size=rows)] + rng.standard_normal((rows, DIMENSION), np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def build(rows: int, way: str, folder: pathlib.Path) -> None:
    """Builds, serialises and asks one index."""
    from mel.retrieval import approximate

    embeddings = vectors(rows)
    if way == WAYS[0]:
        searcher = approximate.build(embeddings, approximate.ScannSettings()).searcher
    else:
        searcher = seeded(embeddings)
    folder.mkdir()
    searcher.serialize(str(folder), relative_path=True)
    found, _ = searcher.search_batched(embeddings[:QUERIES] + 0.01, final_num_neighbors=NEIGHBOURS)
    np.save(folder / "answers.npy", found)


def seeded(embeddings: np.ndarray):
    """The same settings with every seed that ScaNN has, built by one thread."""
    from mel.retrieval.approximate import ScannSettings, _scann

    rows, settings = len(embeddings), ScannSettings()
    leaves = round(2 * rows**0.5)
    builder = _scann().builder(embeddings, NEIGHBOURS, "dot_product").set_n_training_threads(1)
    builder = builder.tree(
        leaves, max(1, min(100, leaves // 10)), training_sample_size=min(rows, 100 * leaves), random_init=False
    )
    builder = builder.score_ah(settings.dimensions_per_block).reorder(settings.reorder)
    config = builder.create_config().replace("partitioning {", "partitioning {\n clustering_seed: 7", 1)
    return _scann().create_searcher(embeddings, config, 1)


def compare(rows: int, way: str) -> dict[str, object]:
    """Builds an index some times; says which files were not the same in all."""
    with tempfile.TemporaryDirectory() as parent:
        seconds, folders = [], [pathlib.Path(parent, str(number)) for number in range(BUILDS)]
        for folder in folders:
            command = [sys.executable, "-m", "experiments.soak.scann_reproducible", f"--build={folder}"]
            started = time.monotonic()
            said = subprocess.run([*command, f"--rows={rows}", f"--way={way}"], capture_output=True, text=True)
            seconds.append(round(time.monotonic() - started, 1))
            if said.returncode:
                return {"rows": rows, "way": way, "failed": said.stderr.strip().splitlines()[-1]}
        names = sorted(file.name for file in folders[0].iterdir())
        differ = [name for name in names if len({file_digest(folder / name) for folder in folders}) > 1]
    return {"rows": rows, "way": way, "builds": BUILDS, "differ": differ, "of": len(names), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="50000,200000", help="how many vectors, some numbers")
    parser.add_argument("--ways", default="0+1", help="0: as mel builds it, 1: seeded")
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results" / "scann_reproducible.json")
    parser.add_argument("--build", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(int(options.rows), options.way, options.build)
        return
    found = []
    print("| rows | built | files that differ | of | seconds |\n|---:|---|---|---:|---|")
    for rows in map(int, options.rows.split(",")):
        for way in (WAYS[int(number)] for number in options.ways.split("+")):
            said = compare(rows, way)
            found.append(said)
            differ = said.get("failed") or ", ".join(said["differ"]) or "none"
            print(f"| {rows:,} | {way} | {differ} | {said.get('of', '')} | {said.get('seconds', '')} |", flush=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.results, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
