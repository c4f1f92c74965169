"""A batch out of more mentions than memory holds, with the system told which rows it needs, and without.

Rows of 24 tokens in the mean are made on disk, an entity row for every third mention, and three negatives a
mention; a batch has 2,688 mentions where nothing else is said. Before each batch the tokens leave memory, as where they
are many times as large as it; the rest, 24 bytes a mention, stays. The details say what a batch costs where all is in
memory: there nobody is told anything.

  python -m experiments.benchmarks.random_reads --mentions=20000000
  python -m experiments.benchmarks.random_reads --mentions=50000000 --batch_size=512 --negatives=4
"""

from __future__ import annotations

import dataclasses
import mmap
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from experiments.benchmarks.harness import Target, forget, interleave, options, parser, publish
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
    flags.add_argument("--batch_size", type=int, default=BATCH, help="mentions a batch")
    flags.add_argument("--negatives", type=int, default=NEGATIVES, help="of a mention")
    flags.add_argument("--folder", type=pathlib.Path, help="where rows are made; a temporary folder if not given")
    chosen = options(flags, argv)
    mentions = 20_000 if chosen.quick else chosen.mentions
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = pathlib.Path(name)
        make(folder, mentions, chosen.negatives)
        layouts = source_in(folder, chosen.batch_size).plan()
        asked = folder, layouts, chosen.batches
        sides = {
            "told": lambda: batches(*asked, from_disk=True, batch_size=chosen.batch_size),
            "not told": lambda: batches(*asked, from_disk=False, batch_size=chosen.batch_size),
        }
        runs = interleave(sides, chosen.repeats, warmups=0)
    details: dict[str, float] = {"mentions": mentions, "mentions a batch": chosen.batch_size}
    details |= {"negatives": chosen.negatives, "batches": chosen.batches}
    for side, found in runs.items():
        details |= {f"{side}: {what}": statistics.median(run[what] for run in found) for what in found[0]}
    seconds = {side: [run["seconds"] for run in found] for side, found in runs.items()}
    measure = "a batch whose tokens are not in memory, with MADV_RANDOM and MADV_WILLNEED ÷ without"
    publish("random_reads", measure, TARGET, seconds, "s", chosen.results, details)


def make(folder: pathlib.Path, mentions: int, negatives: int = NEGATIVES) -> None:
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
    for name, shape in (("golds", (mentions,)), ("negatives", (mentions, negatives))):
        np.save(folder / f"{name}.npy", generator.integers(0, entities, shape, dtype=np.int32))


COLUMNS = {"tokens": np.int32, "offsets": np.int64}


def source_in(folder: pathlib.Path, batch_size: int = BATCH) -> BatchSource:
    """The batches of what `make` made; texts have no twins, which would be looked for in all of them."""
    mention_rows, entity_rows = (
        TokenRows(*(read_column(folder / f"{name}_{each}.npy") for each in COLUMNS))
        for name in ("mentions", "entities")
    )
    golds_N, numbers_E = read_column(folder / "golds.npy"), np.arange(len(entity_rows), dtype=np.int32)
    mentions = RowSet(mention_rows, golds_N, np.zeros(0, np.int32), golds_N)
    entities = RowSet(entity_rows, numbers_E, np.zeros(0, np.int32), numbers_E)
    negatives = Negatives(read_column(folder / "negatives.npy"))
    source = BatchSource(mentions, entities, negatives, batch_size, 0, CHUNK_TOKENS)
    source.__dict__["_twin_E"] = numbers_E
    return source


def batches(
    folder: pathlib.Path, layouts: Sequence[Layout], count: int, from_disk: bool, batch_size: int = BATCH
) -> dict[str, float]:
    """What a batch costs where its tokens are not in memory, and then where they are."""
    source = dataclasses.replace(source_in(folder, batch_size), from_disk=from_disk)
    source.__dict__["_twin_E"] = source.entities.entities_N
    _ = source.order
    found: dict[str, float] = {}
    for how, kept in (("", False), (", in memory", True)):
        read, busy, clock = 0, 0.0, 0.0
        for n in range(count):
            if not kept:
                forget_tokens(source, folder)
            started = bytes_read(), time.process_time(), time.perf_counter()
            source.batch_at(n, layouts)
            read, busy = read + bytes_read() - started[0], busy + time.process_time() - started[1]
            clock += time.perf_counter() - started[2]
        values = {"seconds": clock, "MB read": read / 1e6, "ms of a core": 1e3 * busy}
        found |= {f"{name}{how}": value / count for name, value in values.items()}
        for n in range(count if not kept else 0):
            source.batch_at(n, layouts)
    return found


def forget_tokens(source: BatchSource, folder: pathlib.Path) -> None:
    """Has the system drop the tokens that it has in memory."""
    for row_set in (source.mentions, source.entities):
        owner = row_set.rows.tokens_T
        while isinstance(owner, np.ndarray):
            owner = owner.base
        owner.madvise(mmap.MADV_DONTNEED)
    forget(folder.glob("*_tokens.npy"))


def bytes_read() -> int:
    """What this process has had read from disks so far."""
    lines = pathlib.Path("/proc/self/io").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


if __name__ == "__main__":
    launch(main)
