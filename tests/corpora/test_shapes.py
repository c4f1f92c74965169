"""A shape never calls strings farther apart than they are."""

import random

import pytest
from rapidfuzz.distance import Indel

from mel.corpora import shapes
from mel.corpora.shapes import Shapes, ShapesWriter


def bits(number):
    return {place for place in range(64) if int(number) >> place & 1}


def test_shapes_by_hand():
    found = Shapes.of(["aAb", "", "ab", "b"])
    once = [bits(each) for each in found.once_N]
    assert [len(each) for each in once] == [2, 0, 2, 1] and once[0] == once[2] and once[3] < once[0]
    assert [len(bits(each)) for each in found.twice_N] == [1, 0, 0, 0] and bits(found.twice_N[0]) == once[0] - once[3]
    assert found.lengths_N.tolist() == [3, 0, 2, 1]
    # At least 1, 2, 0 and 1 apart, of 5, 2, 4 and 3 characters together.
    assert found.levels("ab", (1.0, 0.8, 0.7, 0.1)).tolist() == [1, 4, 0, 3]
    assert found.levels("x" * 70_000, (0.5, 0.0)).tolist() == [1, 1, 1, 1]


def test_long_strings_are_not_called_far_from_longer_ones():
    found = Shapes.of(["ab" * 400, "ab" * 700, "c"])
    assert found.levels("ab" * 400, (0.9, 0.6)).tolist() == [0, 0, 2]


@pytest.mark.parametrize("seed", range(4))
def test_no_two_strings_are_more_similar_than_their_shapes_say(seed, monkeypatch):
    monkeypatch.setattr(shapes, "SHAPES_AT_ONCE", 13)
    draw, bounds = random.Random(seed), (1.0, 0.9, 0.8, 0.75, 2 / 3, 0.6, 0.5, 0.4, 0.0)
    letters = ["abc", "abcdefghijklmnop qrstuvwxyz", "İß🦊ΣςA", "".join(map(chr, range(0x4E00, 0x4F00)))][seed]
    strings = ["".join(draw.choices(letters, k=draw.randrange(0, 12))) for _ in range(200)]
    found = Shapes.of(strings)
    for asked in strings[::10]:
        levels = found.levels(asked, bounds)
        for string, level in zip(strings, levels.tolist(), strict=True):
            assert all(bound > Indel.normalized_similarity(asked.lower(), string.lower()) for bound in bounds[:level])
        assert levels[strings.index(asked)] == 0 and (levels > 2).sum() > (seed != 0) * 100


def test_shapes_written_one_by_one_are_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "STRINGS_AT_ONCE", 3)
    strings = [f"{n} name"[n % 5 :] for n in range(11)]
    Shapes.of(strings).write(tmp_path, "whole")
    writer = ShapesWriter(tmp_path, "each")
    for string in strings:
        writer.add(string)
    writer.close()
    ShapesWriter(tmp_path, "none").close()
    for file in ("once.npy", "twice.npy", "lengths.npy"):
        assert (tmp_path / f"each_{file}").read_bytes() == (tmp_path / f"whole_{file}").read_bytes()
    assert len(Shapes.read(tmp_path, "none").lengths_N) == len(Shapes.of([]).lengths_N) == 0
