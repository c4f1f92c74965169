"""Columns of strings, in memory and on disk."""

import pytest

from mel.corpora import strings
from mel.corpora.strings import Hashes, Strings, StringsWriter, hash_of

TITLES = ["Paris", "", "パリ", "Pärís 🦊"]


def test_every_string_stands_in_its_row():
    column = Strings.of(TITLES)
    assert [column[row] for row in range(4)] == list(column) == TITLES and len(column) == 4


@pytest.mark.parametrize("strings", [["a", "", "bcd", ""], ["ä", "", "日本", "🦊x", "y", "e\u0301"]])
def test_some_are_what_each_is(strings):
    column = Strings.of(strings)
    for first in range(len(strings) + 1):
        for end in range(len(strings) + 1):
            assert column.some(first, end) == strings[first:end]


def test_strings_survive_the_disk(tmp_path):
    Strings.of(TITLES).write(tmp_path, "titles")
    Strings.of(["a"]).write(tmp_path, "ids")
    assert list(Strings.read(tmp_path, "titles")) == TITLES
    assert list(Strings.read(tmp_path, "ids")) == ["a"]


def test_no_strings():
    assert list(Strings.of([])) == [] and len(Strings.of([])) == 0


def test_strings_written_one_by_one_are_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(strings, "STRINGS_AT_ONCE", 3)
    Strings.of(TITLES).write(tmp_path, "whole")
    writer = StringsWriter(tmp_path, "each")
    for title in TITLES:
        writer.add(title)
    writer.close()
    for end in (".npy", "_ends.npy"):
        assert (tmp_path / f"each{end}").read_bytes() == (tmp_path / f"whole{end}").read_bytes()


def test_rows_are_found_by_their_keys(tmp_path):
    Hashes.of(["b", "a", "b", "", "🦊"]).write(tmp_path, "keys")
    found = Hashes.read(tmp_path, "keys")
    assert found.rows_of(["b", "a", "", "🦊", "c"]) == [[0, 2], [1], [3], [4], []] and len(found) == 5
    assert found.rows("b") == [0, 2]
    assert Hashes.of([]).rows("b") == []


def test_a_hash_is_the_same_everywhere():
    # From b2sum: printf Paris | b2sum -l 64
    assert f"{hash_of('Paris'):016x}" == "6be76756dfb79024"
