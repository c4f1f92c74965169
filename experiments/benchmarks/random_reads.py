"""A batch out of many mentions on disk, with the system told that rows are read here and there, and without.

Rows of 24 tokens in the mean are made on disk, an entity row for every third mention, and three negatives a
mention; a batch has 2,688 mentions. Before each run the files leave the page cache, so a run's first batches
find nothing in memory, as where the corpus is larger than it. The details say how much was read, and what a
batch costs one core once its pages are there.

  python -m experiments.benchmarks.random_reads --mentions=20000000
"""

from __future__ import annotations

import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from experiments.benchmarks.harness import Target, interleave, options, parser, publish
from experiments.programs import launch
from mel.corpora.columns import ColumnWriter, read_column
from mel.shards.batches import BatchSource, Layout
from mel.shards.datasets import RowSet
from mel.shards.negatives import Negatives
from mel.shards.rows import TokenRows

TARGET = Target(passes=0.5, stretch=0.25, at_least=False)
BATCH, NEGATIVES, MENTIONS_AN_ENTITY = 2688, 3, 3
MEAN, DEVIATION, LONGEST = 3.08, 0.45, 64  # of the logarithms of lengths
ROWS_AT_ONCE = 2**20
CHUNK_TOKENS = 16_384


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__, repeats=3)
    flags.add_argument("--mentions", type=int, default=20_000_000)
    flags.add_argument("--batches", type=int, default=10, help="batches of a run")
    flags.add_argument("--folder", type=pathlib.Path, help="where rows are made; a temporary folder if not given")
    chosen = options(flags, argv)
    mentions = 20_000 if chosen.quick else chosen.mentions
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = pathlib.Path(name)
        make(folder, mentions)
        layouts = source_in(folder).plan()
        sides = {
            "told": lambda: batches(folder, layouts, chosen.batches, told=True),
            "not told": lambda: batches(folder, layouts, chosen.batches, told=False),
        }
        runs = interleave(sides, chosen.repeats, warmups=0)
    details = {"mentions": mentions, "batches": chosen.batches}
    for side, found in runs.items():
        for what in ("MB read a batch", "ms of a core a batch", "ms a batch once it was read"):
            details[f"{what}, {side}"] = statistics.median(run[what] for run in found)
    seconds = {side: [run["seconds"] for run in found] for side, found in runs.items()}
    measure = "a batch out of rows that are not in memory, with MADV_RANDOM ÷ without"
    publish("random_reads", measure, TARGET, seconds, "s", chosen.results, details)


def make(folder: pathlib.Path, mentions: int) -> None:
    """Writes the columns of mentions, entities and negatives."""
    generator, entities = np.random.default_rng(0), mentions // MENTIONS_AN_ENTITY
    for name, count in (("mentions", mentions), ("entities", entities)):
        tokens, offsets = (ColumnWriter(folder / f"{name}_{each}.npy", dtype) for each, dtype in COLUMNS.items())
        offsets.add(0)
        end = 0
        for start in range(0, count, ROWS_AT_ONCE):
            rows = min(ROWS_AT_ONCE, count - start)
            lengths = generator.lognormal(MEAN, DEVIATION, rows).astype(np.int64).clip(2, LONGEST)
            ends = end + np.cumsum(lengths)
            offsets.extend(ends)
            tokens.extend(generator.integers(1, 1000, int(lengths.sum()), dtype=np.int32))
            end = int(ends[-1])
        tokens.close()
        offsets.close()
    for name, shape in (("golds", (mentions,)), ("negatives", (mentions, NEGATIVES))):
        np.save(folder / f"{name}.npy", generator.integers(0, entities, shape, dtype=np.int32))


COLUMNS = {"tokens": np.int32, "offsets": np.int64}


def source_in(folder: pathlib.Path) -> BatchSource:
    """The batches of what `make` made; texts have no twins, which would be looked for in all of them."""
    mention_rows, entity_rows = (
        TokenRows(*(read_column(folder / f"{name}_{each}.npy") for each in COLUMNS))
        for name in ("mentions", "entities")
    )
    golds_N, numbers_E = read_column(folder / "golds.npy"), np.arange(len(entity_rows), dtype=np.int32)
    mentions = RowSet(mention_rows, golds_N, np.zeros(0, np.int32), golds_N)
    entities = RowSet(entity_rows, numbers_E, np.zeros(0, np.int32), numbers_E)
    source = BatchSource(mentions, entities, Negatives(read_column(folder / "negatives.npy")), BATCH, 0, CHUNK_TOKENS)
    source.__dict__["_twin_E"] = numbers_E
    return source


def batches(folder: pathlib.Path, layouts: Sequence[Layout], count: int, told: bool) -> dict[str, float]:
    """What the first batches cost when nothing is in memory, a batch."""
    for file in folder.iterdir():
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    source = source_in(folder)
    _ = source.order
    if told:
        source.read_here_and_there()
    bytes_before, clock, busy = bytes_read(), time.perf_counter(), time.process_time()
    for n in range(count):
        source.batch_at(n, layouts)
    seconds, busy = time.perf_counter() - clock, time.process_time() - busy
    read = bytes_read() - bytes_before
    clock = time.perf_counter()
    for n in range(count):
        source.batch_at(n, layouts)
    return {
        "seconds": seconds / count, "MB read a batch": read / 1e6 / count, "ms of a core a batch": 1e3 * busy / count,
        "ms a batch once it was read": 1e3 * (time.perf_counter() - clock) / count,
    }  # fmt: skip


def bytes_read() -> int:
    """What this process has had read from disks so far."""
    lines = pathlib.Path("/proc/self/io").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


if __name__ == "__main__":
    launch(main)
