"""Rows a second of our loader, beside loaders that read one example a record, on the same rows.

Everybody delivers the same work: batches of 1,024 shuffled rows with their QIDs, padded to 64 tokens. Ours
publishes row blocks, decodes them once (its seconds are in the details) and gathers from memory maps. The
rivals have one example a record: Grain over ArrayRecord, ArrayRecord read by hand a batch at a time, TFDS's
data source with `__getitems__`; the fastest of them is what the ratio is with. Hugging Face `datasets`
(Arrow, shuffled) has no records and stands beside them, as does the ceiling, a memory map of rows that are
padded already, and `batch_at`, which is ours with everything a training batch needs on top.

  python -m experiments.benchmarks.loader
"""

from __future__ import annotations

import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from experiments.benchmarks import rivals
from experiments.benchmarks.harness import Target, interleave, options, parser, publish, timed
from experiments.benchmarks.workload import LONGEST, Spec, Work, make_work, source_of
from experiments.programs import launch
from mel.artifacts import open_artifact
from mel.artifacts import publish as publish_artifact
from mel.shards.datasets import RowSet, open_rows, write_rows
from mel.shards.permutation import permuted

TARGET = Target(passes=10.0, stretch=50.0)
ROWS_A_BATCH = 1024
SLOW_ROWS = 16 * ROWS_A_BATCH  # what the rivals read in a run: a rate needs no more of them
GRAIN_THREADS = (0, 2, 16)

HUGGING_FACE = "Hugging Face datasets"

Batches = Iterator[tuple[np.ndarray, np.ndarray]]  # tokens [1024, 64] and QIDs [1024]


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__)
    chosen = options(flags, argv)
    rivals.require("grain", "datasets")
    work = make_work(Spec(tiny=chosen.quick))
    if chosen.quick:
        work = work._replace(entities=repeated(work.entities, 4 * ROWS_A_BATCH))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        rows, decode_seconds = our_rows(folder / "ours", work.entities)
        readers = {"row blocks": lambda: ours(rows, seed=0)} | one_example_readers(folder, work.entities)
        sides = {side: rate_of(read, None if side == "row blocks" else SLOW_ROWS) for side, read in readers.items()}
        sides["memory map of padded rows"] = rate_of(lambda: ceiling(folder / "padded.npy", work.entities), None)
        sides["batch_at"] = rate_of_batch_at(work)
        rates = interleave(sides, chosen.repeats)
    with_records = [side for side in readers if side not in ("row blocks", HUGGING_FACE)]
    best = max(with_records, key=lambda side: statistics.median(rates[side]))
    order = sorted(rates, key=lambda side: (side != "row blocks", side != best))
    details = {"rows": len(rows), "seconds to decode all once": decode_seconds}
    publish(
        "loader", "loader, row blocks ÷ the fastest with one example a record", TARGET,
        {side: rates[side] for side in order}, "rows/s", chosen.results, details,
    )  # fmt: skip


def rate_of(read: Callable[[], Batches], most: int | None) -> Callable[[], float]:
    """Reads `most` rows or all, and returns rows a second."""

    def rate() -> float:
        start, rows = time.perf_counter(), 0
        for tokens_BL, _ in read():
            rows += len(tokens_BL)
            if most is not None and rows >= most:
                break
        return rows / (time.perf_counter() - start)

    return rate


def rate_of_batch_at(work: Work, batches: int = 32) -> Callable[[], float]:
    """Texts a second of whole training batches: mentions and distinct candidates, in their layout."""
    source = source_of(work, Spec(batch_size=min(256, len(work.mentions))), 2048)
    layouts = source.plan()
    rows = [source.mention_rows(n) for n in range(batches)]
    texts = sum(len(mention_rows_B) + len(source.entity_rows(mention_rows_B)) for mention_rows_B in rows)
    run = timed(lambda: [source.batch_at(n, layouts) for n in range(batches)])
    return lambda: texts / run()


def our_rows(folder: pathlib.Path, row_set: RowSet) -> tuple[RowSet, float]:
    """The rows as published shards, decoded and mapped into memory, and the seconds of decoding."""
    with publish_artifact(folder / "tokens", "tokens") as draft:
        write_rows(draft, [row_set])
    tokens, start = open_artifact(folder / "tokens", "tokens"), time.perf_counter()
    return open_rows(tokens, folder / "cache"), time.perf_counter() - start


def ours(rows: RowSet, seed: int) -> Batches:
    """Gathers every batch at once from the decoded blocks."""
    for start in range(0, len(rows), ROWS_A_BATCH):
        places = np.arange(start, min(start + ROWS_A_BATCH, len(rows)))
        ids_B = permuted(places, len(rows), seed, 0)
        yield rows.rows.gather(ids_B, LONGEST), rows.entities_N[ids_B]


def ceiling(file: pathlib.Path, row_set: RowSet) -> Batches:
    """Rows padded on disk; no loader of ragged rows can be faster."""
    if not file.exists():
        np.save(file, row_set.rows.gather(np.arange(len(row_set)), LONGEST))
    padded_NL, order_N = np.load(file, mmap_mode="r"), np.random.default_rng(0).permutation(len(row_set))
    for start in range(0, len(row_set), ROWS_A_BATCH):
        ids_B = order_N[start : start + ROWS_A_BATCH]
        yield padded_NL[ids_B], row_set.entities_N[ids_B]


def one_example_readers(folder: pathlib.Path, row_set: RowSet) -> dict[str, Callable[[], Batches]]:
    """The rivals, with their files written: each reads the same rows in an order of its own."""
    records, examples, arrow = (folder / name for name in ("records", "tfds", "arrow"))
    write_records(records, row_set)
    write_examples(examples, row_set)
    write_arrow(arrow, row_set)
    readers = {
        f"Grain, {threads} threads": lambda threads=threads: by_grain(records, threads) for threads in GRAIN_THREADS
    }
    readers |= {"ArrayRecord by hand": lambda: by_array_record(records), "TFDS": lambda: by_tfds(examples)}
    return readers | {HUGGING_FACE: lambda: by_datasets(arrow)}


def write_records(file: pathlib.Path, row_set: RowSet) -> None:
    """A record is the QID and the tokens of one row, raw, as it decodes fastest."""
    rows = zip(rivals.pieces(row_set.rows), row_set.entities_N)
    write_array_record(file, (np.int64(qid).tobytes() + row.tobytes() for row, qid in rows))


def write_array_record(file: os.PathLike, records: Iterable[bytes]) -> None:
    """ArrayRecord with groups of one record, which random reading is fastest with."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(file), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def by_grain(file: pathlib.Path, threads: int) -> Batches:
    """Grain: global shuffle, one record decoded and padded at a time, batches of them."""
    import grain

    source = grain.sources.ArrayRecordDataSource(str(file))
    dataset = grain.MapDataset.source(source).shuffle(seed=0).map(decode_record).batch(ROWS_A_BATCH)
    yield from dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))


def decode_record(record: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Padded tokens and the QID of one record."""
    tokens_L = np.zeros(LONGEST, np.int32)
    found = np.frombuffer(record, np.int32, offset=8)
    tokens_L[: len(found)] = found
    return tokens_L, np.frombuffer(record, np.int64, count=1)[0]


def by_array_record(file: pathlib.Path) -> Batches:
    """No library above ArrayRecord: a shuffled batch of records in one call, decoded together."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    source = ArrayRecordDataSource(str(file))
    order_N = np.random.default_rng(0).permutation(len(source))
    for start in range(0, len(source), ROWS_A_BATCH):
        records = source.__getitems__(order_N[start : start + ROWS_A_BATCH].tolist())
        lengths_B = np.fromiter(map(len, records), np.int64, len(records)) // 4 - 2
        tokens_T = np.frombuffer(b"".join(record[8:] for record in records), np.int32)
        yield padded(tokens_T, lengths_B), np.frombuffer(b"".join(record[:8] for record in records), np.int64)


def write_examples(folder: pathlib.Path, row_set: RowSet) -> None:
    """A TFDS data set of one example a record."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {"tokens": tfds.features.Tensor(shape=(None,), dtype=np.int32), "qid": tfds.features.Scalar(np.int64)}
    )
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    files = tfds.core.ShardedFileTemplate(
        data_dir=folder, template=template, dataset_name="rows", split="train", filetype_suffix="array_record"
    )
    folder.mkdir()
    examples = ({"tokens": row, "qid": int(qid)} for row, qid in zip(rivals.pieces(row_set.rows), row_set.entities_N))
    write_array_record(
        files.sharded_filepath(shard_index=0, num_shards=1),
        (features.serialize_example(features.encode_example(example)) for example in examples),
    )
    split = tfds.core.SplitInfo(name="train", shard_lengths=[len(row_set)], num_bytes=0, filename_template=files)
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder), features=features, split_infos=[split], filename_template=template, check_data=False
    )


def by_tfds(folder: pathlib.Path) -> Batches:
    """TFDS: a shuffled batch of examples in one call."""
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(str(folder)).as_data_source("train")
    order_N = np.random.default_rng(0).permutation(len(source))
    for start in range(0, len(source), ROWS_A_BATCH):
        examples = source.__getitems__(order_N[start : start + ROWS_A_BATCH].tolist())
        tokens = [example["tokens"] for example in examples]
        lengths_B = np.fromiter(map(len, tokens), np.int64, len(tokens))
        yield padded(np.concatenate(tokens), lengths_B), np.array([example["qid"] for example in examples])


def write_arrow(folder: pathlib.Path, row_set: RowSet) -> None:
    """An Arrow data set on disk."""
    import datasets

    datasets.disable_progress_bars()
    columns = {"tokens": rivals.pieces(row_set.rows), "qid": row_set.entities_N}
    datasets.Dataset.from_dict(columns).save_to_disk(str(folder))


def by_datasets(folder: pathlib.Path) -> Batches:
    """`datasets`: shuffled, read as Arrow tables, which is its fastest format, and padded all at once."""
    import datasets

    dataset = datasets.load_from_disk(str(folder)).with_format("arrow").shuffle(seed=0)
    for table in dataset.iter(ROWS_A_BATCH):
        tokens = table["tokens"].combine_chunks()
        lengths_B = tokens.value_lengths().to_numpy().astype(np.int64)
        yield padded(tokens.flatten().to_numpy(), lengths_B), table["qid"].to_numpy()


def padded(tokens_T: np.ndarray, lengths_B: np.ndarray) -> np.ndarray:
    """Ragged rows, one behind the other, as [B, 64]."""
    tokens_BL = np.zeros((len(lengths_B), LONGEST), np.int32)
    tokens_BL[np.arange(LONGEST) < lengths_B[:, None]] = tokens_T
    return tokens_BL


def repeated(row_set: RowSet, count: int) -> RowSet:
    """`count` rows, from the beginning again where there are fewer."""
    return row_set.take(np.arange(count) % len(row_set))


if __name__ == "__main__":
    launch(main)
