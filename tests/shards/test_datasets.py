"""Rows written as TFDS blocks come back as they were, however they were cut."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mel.artifacts import open_artifact, publish
from mel.shards import datasets
from mel.shards.datasets import RowSet, concatenate, open_rows, open_twins, read_rows, write_rows
from mel.shards.rows import TokenRows
from mel.types import MelError


def row_set(size, seed):
    generator = np.random.default_rng(seed)
    rows = TokenRows.from_rows([generator.integers(1, 2**20, generator.integers(0, 9)) for _ in range(size)])
    return RowSet(rows, generator.integers(1, 2**31, size), generator.integers(0, 9, size), np.arange(size) - 1)


def put(path, sets):
    with publish(path, "tokens") as draft:
        draft.facts["rows"] = write_rows(draft, sets)
    return open_artifact(path, "tokens")


def equal(one, other):
    pairs = zip(one.columns().values(), other.columns().values())
    same_rows = np.array_equal(one.rows.tokens_T, other.rows.tokens_T)
    return (
        same_rows
        and np.array_equal(one.rows.offsets_N1, other.rows.offsets_N1)
        and all(map(np.array_equal, *zip(*pairs)))
    )


@pytest.fixture(autouse=True)
def several_shards(monkeypatch):
    monkeypatch.setattr(datasets, "ROWS_A_BLOCK", 16)
    monkeypatch.setattr(datasets, "BLOCKS_A_SHARD", 3)


def test_rows_come_back_through_tfds_and_through_the_cache(tmp_path):
    sets = [row_set(size, seed) for seed, size in enumerate((5, 0, 100, 1))]
    tokens = put(tmp_path / "tokens", sets)
    whole = concatenate(sets)
    assert tokens.facts["rows"] == 106
    assert equal(concatenate(list(read_rows(tokens.path))), whole)
    assert equal(open_rows(tokens, tmp_path / "cache"), whole)
    assert equal(open_rows(tokens, tmp_path / "cache"), whole)


def test_tfds_itself_reads_the_shards(tmp_path):
    tokens = put(tmp_path / "tokens", [row_set(100, 0)])
    source = tfds.builder_from_directory(str(tokens.path)).as_data_source("train")
    assert [len(example["entities"]) for example in source] == [16] * 6 + [4]
    assert len(list(tokens.path.glob("*array_record*"))) == 3


def test_files_depend_on_the_rows_not_on_how_they_were_cut(tmp_path):
    sets = [row_set(size, seed) for seed, size in enumerate((40, 30))]
    assert put(tmp_path / "a", sets).digest == put(tmp_path / "b", [concatenate(sets)]).digest


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def test_a_cache_of_other_rows_is_decoded_anew(tmp_path, caplog):
    one, other = put(tmp_path / "a", [row_set(3, 0)]), put(tmp_path / "b", [row_set(3, 1)])
    open_rows(one, tmp_path / "cache")
    with caplog.at_level("WARNING", logger="absl"):
        found = open_rows(other, tmp_path / "cache")
    assert equal(found, row_set(3, 1))
    assert f"{tmp_path}/cache was not made from the tokens at {tmp_path}/b" in caplog.text


def test_a_bit_that_changed_in_any_file_of_a_cache_has_it_decoded_anew(tmp_path, caplog):
    tokens = put(tmp_path / "tokens", [row_set(3, 0)])
    open_rows(tokens, tmp_path / "cache")
    for name in sorted(path.name for path in (tmp_path / "cache").iterdir()):
        caplog.clear()
        flip_a_bit(tmp_path / "cache" / name)
        with caplog.at_level("WARNING", logger="absl"):
            found = open_rows(tokens, tmp_path / "cache")
        assert f"{tmp_path}/cache/{name} is damaged" in caplog.text
        assert equal(found, row_set(3, 0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "tokens"]


def test_twins_are_looked_for_once_and_again_where_they_were_damaged(tmp_path, monkeypatch, caplog):
    rows = TokenRows.from_rows([[5, 6], [7], [5, 6], [6, 5], [7]])
    tokens = put(tmp_path / "tokens", [RowSet(rows, *[np.arange(5)] * 3)])
    assert open_twins(tokens, tmp_path / "twins", rows).tolist() == [0, 1, 0, 3, 1]
    with monkeypatch.context() as nothing:
        nothing.setattr(TokenRows, "twins", None)
        assert open_twins(tokens, tmp_path / "twins", rows).tolist() == [0, 1, 0, 3, 1]
    flip_a_bit(tmp_path / "twins" / "twins.npy")
    with caplog.at_level("WARNING", logger="absl"):
        assert open_twins(tokens, tmp_path / "twins", rows).tolist() == [0, 1, 0, 3, 1]
    assert f"{tmp_path}/twins/twins.npy is damaged" in caplog.text


def test_a_bit_that_changed_in_any_file_of_the_shards_is_a_sentence(tmp_path):
    tokens = put(tmp_path / "tokens", [row_set(3000, 0)])
    for name in tokens.files:
        copy = shutil.copytree(tmp_path / "tokens", tmp_path / "copy")
        flip_a_bit(copy / name)
        damaged = dataclasses.replace(tokens, path=copy)
        with pytest.raises(
            MelError, match=f"{copy}/{name} is damaged, .* delete {copy} and run mel-prepare-data again"
        ):
            open_rows(damaged, tmp_path / "cache")
        assert not (tmp_path / "cache").exists()
        shutil.rmtree(copy)


def test_who_needs_a_cache_that_is_being_decoded_waits_for_it(tmp_path):
    tokens = put(tmp_path / "tokens", [row_set(3, 0)])
    decoding = """
import sys, time
from mel.artifacts import open_artifact
from mel.shards import datasets
decode = datasets._decode
def slowly(tokens, folder):
    print("decoding", flush=True)
    time.sleep(1)
    decode(tokens, folder)
datasets._decode = slowly
datasets.open_rows(open_artifact(sys.argv[1], "tokens"), __import__("pathlib").Path(sys.argv[2]))
"""
    command = [sys.executable, "-c", decoding, tmp_path / "tokens", tmp_path / "cache"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "decoding\n"
        assert equal(open_rows(tokens, tmp_path / "cache"), row_set(3, 0))
        assert other.wait() == 0


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(MelError, match="There are no rows"):
        put(tmp_path / "tokens", [])
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import sys
import subprocess
import sys

import numpy as np
from mel.artifacts import open_artifact, publish
from mel.shards.datasets import RowSet, write_rows
from mel.shards.rows import TokenRows
row_set = RowSet(TokenRows.from_rows([np.arange(1, 9)] * 3), np.arange(3), np.zeros(3), np.arange(3))
with publish(sys.argv[1], "tokens") as draft:
    write_rows(draft, [row_set])
print(open_artifact(sys.argv[1], "tokens").digest)
"""


def test_every_process_writes_the_same_bytes(tmp_path):
    commands = [[sys.executable, "-c", PROGRAM, str(tmp_path / str(number))] for number in range(5)]
    digests = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands}
    assert len(digests) == 1
