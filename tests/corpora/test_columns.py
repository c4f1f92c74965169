"""Columns that are written in pieces and mapped into memory, and what the system is told of them."""

import numpy as np

from mel.corpora import columns
from mel.corpora.columns import ColumnWriter, advise_random, announce, fits_in_memory, read_column


def test_a_column_is_what_numpy_writes_however_it_came(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "BYTES_AT_ONCE", 16)
    values = np.arange(1, 12, dtype=np.int32) ** 2
    np.save(tmp_path / "whole.npy", values)
    writer = ColumnWriter(tmp_path / "each.npy", np.int32)
    for value in values[:6]:
        writer.add(value)
    writer.extend(values[6:10])
    writer.add(values[10])
    writer.close()
    assert writer.length == 11
    assert (tmp_path / "each.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert read_column(tmp_path / "each.npy").tolist() == values.tolist()


def test_an_empty_column(tmp_path):
    ColumnWriter(tmp_path / "none.npy", np.int64).close()
    assert read_column(tmp_path / "none.npy").shape == (0,)


def test_a_mapped_column_is_advised_and_one_in_memory_is_not(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(9000))
    mapped = read_column(tmp_path / "a.npy")
    for column in (mapped, mapped[10:20], np.load(tmp_path / "a.npy", mmap_mode="r")):
        assert advise_random(column)
    assert mapped[4321] == 4321
    assert not advise_random(np.arange(9)) and not advise_random(np.load(tmp_path / "a.npy"))


def test_what_is_announced_of_a_mapped_column_is_whole_pages(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.arange(9000, dtype=np.int32))  # 128 bytes of header, 36,000 of values: 9 pages
    mapped, told = read_column(tmp_path / "a.npy"), []

    class Map(columns.mmap.mmap):
        def madvise(self, advice, start, length):
            told.append((advice, start, length))

    with open(tmp_path / "a.npy", "rb") as file:
        memory = Map(file.fileno(), 0, access=columns.mmap.ACCESS_READ)
    spied = np.ndarray(9000, np.int32, memory, offset=128)
    assert announce(spied, np.array([0, 1000, 8999, 990]), np.array([10, 1001, 9000, 995])) == 2
    will_need = columns.mmap.MADV_WILLNEED
    assert told == [(will_need, 0, 8192), (will_need, 8 * 4096, 128 + 36_000 - 8 * 4096)]
    told.clear()
    assert announce(spied[1000:], np.array([0, 7000]), np.array([3500, 7001])) == 2
    # Bytes 4,128 to 18,127 and 32,128 to 32,131 of the file.
    assert told == [(will_need, 4096, 4 * 4096), (will_need, 7 * 4096, 4096)]
    assert announce(mapped, np.array([5]), np.array([5])) == 1 and announce(mapped, np.array([]), np.array([])) == 0
    assert announce(np.arange(9), np.array([1]), np.array([2])) == 0
    assert mapped.tolist() == list(range(9000))


def test_what_fits_in_memory(monkeypatch):
    monkeypatch.setattr(columns, "free_memory", lambda: 1000)
    assert fits_in_memory([np.zeros(400, np.uint8), np.zeros(100, np.uint8)])
    assert not fits_in_memory([np.zeros(400, np.uint8), np.zeros(101, np.uint8)])
