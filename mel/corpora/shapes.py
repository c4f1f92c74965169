"""Bounds on how alike strings can be, from which characters they have: few of a column have to be compared then.

Distance is the number of insertions and deletions between two strings, lower-cased. The shape of a string is its length
and 128 bits: which of 64 classes its characters are of, and of which it has two or more. An insertion or a deletion
turns at most one of these bits, so strings whose bits differ in d places are at least d apart, and so they are where
their lengths differ by d.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mel.corpora.columns import ColumnWriter, read_column

CLASSES = 64
SPREAD = np.uint32(0x9E3779B1)  # neighbours among code points fall into different classes
STRINGS_AT_ONCE = 8192
SHAPES_AT_ONCE = 1 << 16  # as many as a core's cache holds
LONGEST = 1023  # of longer strings nothing is said where a long one is asked for; few names are
ROUNDING = np.float32(1e-6)  # more than quotients of small whole numbers in float32 are off
COLUMNS = {"once": np.uint64, "twice": np.uint64, "lengths": np.uint32}


class Shapes(NamedTuple):
    """The shapes of N strings.

    Attributes:
      once_N: uint64, of which classes there are characters.
      twice_N: uint64, of which there are two or more.
      lengths_N: uint32.
    """

    once_N: np.ndarray
    twice_N: np.ndarray
    lengths_N: np.ndarray

    @classmethod
    def of(cls, strings: Iterable[str]) -> Shapes:
        """Of these strings, whatever their case."""
        parts = [_shapes(some) for some in _grouped(strings)]
        return cls(*map(np.concatenate, zip(*parts, strict=True))) if parts else _shapes([])

    @classmethod
    def read(cls, folder: pathlib.Path, name: str) -> Shapes:
        """Maps what `write` or a `ShapesWriter` wrote."""
        return cls(*(read_column(file) for file in _files(folder, name)))

    def write(self, folder: pathlib.Path, name: str) -> None:
        for file, values in zip(_files(folder, name), self, strict=True):
            np.save(file, values)

    def levels(self, string: str, bounds: Sequence[float]) -> np.ndarray:
        """Below how many of these similarities each string is from this one for certain; uint8 [N].

        Similarity is 1 - distance / (sum of the lengths). Bounds fall.
        """
        (once,), (twice,), (length,) = _shapes([string])
        level_lb = _levels(int(length), bounds)
        longest, width = np.uint32(len(level_lb) - 1), np.uint32(level_lb.shape[1])
        levels_N = np.empty(len(self.lengths_N), np.uint8)
        for start in range(0, len(levels_N), SHAPES_AT_ONCE):
            some = slice(start, start + SHAPES_AT_ONCE)
            bits_n = np.bitwise_count(self.once_N[some] ^ once) + np.bitwise_count(self.twice_N[some] ^ twice)
            place_n = np.minimum(self.lengths_N[some], longest) * width + bits_n
            level_lb.reshape(-1).take(place_n, out=levels_N[some], mode="clip")  # "clip" writes straight into `out`
        return levels_N


def _levels(length: int, bounds: Sequence[float]) -> np.ndarray:
    """The level of a string by its length and by how many bits differ; the last length stands for all greater ones."""
    least = bounds[-1]
    farthest = int(length * (2 - least) / least) + 2 if least > 0 else LONGEST + 1  # below all bounds by its length
    length_l1 = np.arange(min(farthest, LONGEST) + 1, dtype=np.float32)[:, None]
    apart_lb = np.maximum(np.abs(length_l1 - length), np.arange(2 * CLASSES + 1, dtype=np.float32))
    apart_lb /= np.maximum(length_l1 + np.float32(length), np.float32(1))
    level_lb = np.zeros(apart_lb.shape, np.uint8)
    for bound in bounds:
        level_lb += apart_lb > np.float32(1 - bound) + ROUNDING
    if farthest > LONGEST:
        level_lb[-1] = 0
    return level_lb


class ShapesWriter:
    """Writes what `Shapes.read` reads, string by string."""

    def __init__(self, folder: pathlib.Path, name: str):
        files = zip(_files(folder, name), COLUMNS.values(), strict=True)
        self._columns = [ColumnWriter(file, dtype) for file, dtype in files]
        self._waiting: list[str] = []

    def add(self, string: str) -> None:
        self._waiting.append(string)
        if len(self._waiting) == STRINGS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        self._flush()
        for column in self._columns:
            column.close()

    def _flush(self) -> None:
        for column, values in zip(self._columns, _shapes(self._waiting), strict=True):
            column.extend(values)
        self._waiting = []


def _shapes(strings: Sequence[str]) -> Shapes:
    lowered = [string.lower() for string in strings]
    lengths_n = np.fromiter(map(len, lowered), np.uint32, len(lowered))
    characters_T = np.frombuffer("".join(lowered).encode("utf-32-le", "surrogatepass"), np.uint32)
    class_T = (characters_T * SPREAD) >> np.uint32(26)  # the six highest bits; overflow is meant
    string_T = np.repeat(np.arange(len(lowered)), lengths_n)
    counts_nC = np.bincount(string_T * CLASSES + class_T, minlength=len(lowered) * CLASSES).reshape(-1, CLASSES)
    once_n, twice_n = (
        np.packbits(counts_nC >= least, axis=1, bitorder="little").view(np.uint64).reshape(-1) for least in (1, 2)
    )
    return Shapes(once_n, twice_n, lengths_n)


def _grouped(strings: Iterable[str]) -> Iterator[list[str]]:
    group: list[str] = []
    for string in strings:
        group.append(string)
        if len(group) == STRINGS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _files(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    return [folder / f"{name}_{column}.npy" for column in COLUMNS]
