"""A column of strings on disk: one block of UTF-8 and where each string ends, mapped into memory."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np


class Strings:
    """N strings without a Python object each: millions of those would not fit."""

    def __init__(self, bytes_T: np.ndarray, ends_N: np.ndarray):
        self._bytes_T, self._ends_N = bytes_T, ends_N

    @classmethod
    def of(cls, strings: Iterable[str]) -> Strings:
        encoded = [string.encode("utf-8") for string in strings]
        ends_N = np.cumsum([len(string) for string in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends_N)

    @classmethod
    def read(cls, folder: pathlib.Path, name: str) -> Strings:
        """Maps what `write` wrote."""
        return cls(*(np.load(file, mmap_mode="r") for file in _files(folder, name)))

    def write(self, folder: pathlib.Path, name: str) -> None:
        for file, values in zip(_files(folder, name), (self._bytes_T, self._ends_N), strict=True):
            np.save(file, values)

    def __len__(self) -> int:
        return len(self._ends_N)

    def __getitem__(self, row: int) -> str:
        start = self._ends_N[row - 1] if row else 0
        return self._bytes_T[start : self._ends_N[row]].tobytes().decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        bounds = itertools.pairwise(itertools.chain([0], self._ends_N))
        return (self._bytes_T[start:end].tobytes().decode("utf-8") for start, end in bounds)


def _files(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    return folder / f"{name}.npy", folder / f"{name}_ends.npy"
