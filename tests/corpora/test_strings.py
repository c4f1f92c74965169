"""Columns of strings, in memory and on disk."""

from mel.corpora.strings import Strings

TITLES = ["Paris", "", "パリ", "Pärís 🦊"]


def test_every_string_stands_in_its_row():
    column = Strings.of(TITLES)
    assert [column[row] for row in range(4)] == list(column) == TITLES and len(column) == 4


def test_strings_survive_the_disk(tmp_path):
    Strings.of(TITLES).write(tmp_path, "titles")
    Strings.of(["a"]).write(tmp_path, "ids")
    assert list(Strings.read(tmp_path, "titles")) == TITLES
    assert list(Strings.read(tmp_path, "ids")) == ["a"]


def test_no_strings():
    assert list(Strings.of([])) == [] and len(Strings.of([])) == 0
