"""Token rows on disk: TFDS data sets whose records are blocks of rows, and their decoded cache.

A record is a block of rows, because reading one row a record is a hundred times slower. A trainer
needs rows in any order, so the shards are decoded once into flat arrays that it maps into memory;
the shards stay the form in which rows are published.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from mel.artifacts import Artifact, Draft, discard, exists, open_artifact, publish, readable
from mel.corpora.columns import ColumnWriter, read_column
from mel.locks import claim
from mel.progress import Progress
from mel.shards.rows import TokenRows
from mel.types import MelError

TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
DATASET, SPLIT = "rows", "train"  # TFDS wants both names; an artefact holds one split
ROWS_A_BLOCK = 1024
BLOCKS_A_SHARD = 1024
COLUMNS = {"entities": np.int32, "languages": np.int32, "entity_rows": np.int32}
TOKEN_IDS = "token_ids.npy"
TWINS = "twins.npy"


@dataclasses.dataclass(frozen=True)
class RowSet:
    """N token rows with what is known of each.

    Attributes:
      rows: the token ids.
      entities_N: the number of the entity, or of the mention's gold.
      languages_N: a position in the data set's list of languages.
      entity_rows_N: the entity's own row, or the row of the mention's gold, -1 where the KB lacks it.
    """

    rows: TokenRows
    entities_N: np.ndarray
    languages_N: np.ndarray
    entity_rows_N: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, row_ids_n: np.ndarray) -> RowSet:
        """These rows alone, in this order."""
        return RowSet(self.rows.take(row_ids_n), *(values_N[row_ids_n] for values_N in self.columns().values()))

    def columns(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(getattr(self, f"{name}_N"), dtype) for name, dtype in COLUMNS.items()}


def write_rows(draft: Draft, row_sets: Iterable[RowSet], may_be_empty: bool = False) -> int:
    """Writes row sets of any size, one after the other, as TFDS shards; returns the number of rows.

    The files depend on the rows only, not on how they were cut into sets. Beside the shards stand
    the distinct token ids in use, ascending, of which a trainer needs the embeddings.

    Raises:
      MelError: there is not one row, and that `may_be_empty` is not said.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = _features(tfds)
    serializer = ExampleSerializer(features.get_serialized_info())  # pyright: ignore[reportArgumentType]
    shards: list[pathlib.Path] = []
    lengths: list[int] = []
    writer, total, seen_V = None, 0, np.zeros(0, bool)
    for block in _cut_into_blocks(row_sets):
        if writer is None:
            shards.append(draft / f"shard-{len(shards):05d}")
            lengths.append(0)
            writer = ArrayRecordWriter(str(shards[-1]), "group_size:1")
        example = {"tokens": block.rows.tokens_T, "lengths": block.rows.lengths_N.astype(np.int32), **block.columns()}
        record = serializer.get_tf_example(features.encode_example(example))
        # A record is a protocol buffer with a map, whose order otherwise differs from process to process.
        writer.write(record.SerializeToString(deterministic=True))
        lengths[-1] += 1
        total += len(block)
        if (size := int(block.rows.tokens_T.max(initial=-1)) + 1) > len(seen_V):
            seen_V = np.concatenate([seen_V, np.zeros(size - len(seen_V), bool)])
        seen_V[block.rows.tokens_T] = True
        if lengths[-1] == BLOCKS_A_SHARD:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()
    if not total and may_be_empty:
        ArrayRecordWriter(str(draft / "shard-00000"), "group_size:1").close()
        shards, lengths = [draft / "shard-00000"], [0]
    elif not total:
        raise MelError(f"There are no rows for {draft.path}: nothing in the input was usable.")
    _write_metadata(tfds, draft.path, features, shards, lengths)
    np.save(draft / TOKEN_IDS, np.flatnonzero(seen_V).astype(np.int32))
    draft.facts["distinct_tokens"] = int(np.count_nonzero(seen_V))
    return total


def read_token_ids(tokens: Artifact) -> np.ndarray:
    """The distinct token ids that a published data set uses, ascending."""
    return np.load(tokens / TOKEN_IDS)


def read_rows(folder: pathlib.Path) -> Iterator[RowSet]:
    """Reads the blocks of a TFDS data set written by `write_rows`, in order."""
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(str(folder))
    if not builder.info.splits[SPLIT].num_examples:  # it finds no source of nothing
        return
    source = builder.as_data_source(SPLIT)
    for first in range(0, len(source), 8):
        for example in source.__getitems__(range(first, min(first + 8, len(source)))):
            offsets = np.concatenate([[0], np.cumsum(example["lengths"], dtype=np.int64)])
            yield RowSet(TokenRows(example["tokens"], offsets), *(example[name] for name in COLUMNS))


def open_rows(tokens: Artifact, cache: pathlib.Path) -> RowSet:
    """Maps the rows of `tokens` into memory, decoding its shards into `cache` where that is missing or damaged.

    Raises:
      MelError: a shard is damaged.
    """

    def decode(folder: pathlib.Path) -> None:
        tokens.check("*")
        with readable(tokens):
            _decode(tokens, folder)

    _make_where_missing(cache, "row cache", tokens, decode)
    arrays = {name: np.load(cache / f"{name}.npy", mmap_mode="r") for name in ("tokens", "offsets", *COLUMNS)}
    return RowSet(TokenRows(arrays["tokens"], arrays["offsets"]), *(arrays[name] for name in COLUMNS))


def open_twins(tokens: Artifact, cache: pathlib.Path, rows: TokenRows) -> np.ndarray:
    """Maps `rows.twins()` into memory, looking for them where `cache` lacks them: that reads all rows.

    Args:
      tokens: what the rows are of.
      cache: where they stand.
      rows: all of them.
    """
    _make_where_missing(cache, "twins", tokens, lambda folder: np.save(folder / TWINS, rows.twins()))
    return read_column(cache / TWINS)


def _make_where_missing(cache: pathlib.Path, kind: str, tokens: Artifact, make: Callable[[pathlib.Path], None]) -> None:
    """Publishes what is made of `tokens` in a folder, where it is missing or damaged."""
    if not _is_sound(tokens, cache, kind):
        with claim(cache, wait=True):
            if not _is_sound(tokens, cache, kind):
                discard(cache)
                with publish(cache, kind) as draft:
                    draft.reads("tokens", tokens)
                    make(draft.path)


def _is_sound(tokens: Artifact, cache: pathlib.Path, kind: str) -> bool:
    """Whether what was made of `tokens` stands in `cache` as it was; says so where something else stands there."""
    if not exists(cache):
        return False
    try:
        open_artifact(cache, kind, {"tokens": tokens}).settle()
    except MelError as error:
        logging.warning("%s That is done now.", error)
        return False
    return True


def _decode(tokens: Artifact, folder: pathlib.Path) -> None:
    """Writes the rows as columns, a block at a time."""
    dtypes = {"tokens": np.int32, "offsets": np.int64, **COLUMNS}
    writers = {name: ColumnWriter(folder / f"{name}.npy", dtype) for name, dtype in dtypes.items()}
    writers["offsets"].add(0)
    progress = Progress(f"decoding {tokens.path.name}", tokens.facts.get("rows", 0), "rows")
    for block in read_rows(tokens.path):
        writers["offsets"].extend(writers["tokens"].length + block.rows.offsets_N1[1:])
        writers["tokens"].extend(block.rows.tokens_T)
        for name, values in block.columns().items():
            writers[name].extend(values)
        progress.add(len(block))
    for writer in writers.values():
        writer.close()
    progress.close()


def _cut_into_blocks(row_sets: Iterable[RowSet]) -> Iterator[RowSet]:
    waiting: list[RowSet] = []
    for row_set in row_sets:
        waiting.append(row_set)
        if sum(map(len, waiting)) >= ROWS_A_BLOCK:
            whole = concatenate(waiting)
            full = len(whole) // ROWS_A_BLOCK * ROWS_A_BLOCK
            yield from (whole.take(np.arange(i, i + ROWS_A_BLOCK)) for i in range(0, full, ROWS_A_BLOCK))
            waiting = [whole.take(np.arange(full, len(whole)))]
    rest = concatenate(waiting) if waiting else None
    if rest:
        yield rest


def concatenate(row_sets: Sequence[RowSet]) -> RowSet:
    """One row set of several, in order."""
    rows = TokenRows.concatenate([row_set.rows for row_set in row_sets])
    return RowSet(rows, *(np.concatenate([row_set.columns()[name] for row_set in row_sets]) for name in COLUMNS))


def _features(tfds):
    columns = {"tokens": np.int32, "lengths": np.int32, **COLUMNS}
    tensors = {name: tfds.features.Tensor(shape=(None,), dtype=dtype) for name, dtype in columns.items()}
    return tfds.features.FeaturesDict(tensors)


def _write_metadata(tfds, folder: pathlib.Path, features, shards: list[pathlib.Path], lengths: list[int]) -> None:
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, template=TEMPLATE, dataset_name=DATASET, split=SPLIT, filetype_suffix="array_record"
    )
    num_bytes = sum(shard.stat().st_size for shard in shards)
    for number, shard in enumerate(shards):
        shard.rename(template.sharded_filepath(shard_index=number, num_shards=len(shards)))
    split = tfds.core.SplitInfo(name=SPLIT, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template)
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder), features=features, split_infos=[split], filename_template=TEMPLATE, check_data=False
    )
