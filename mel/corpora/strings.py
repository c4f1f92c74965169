"""Columns of strings on disk, mapped into memory, and what finds a row by its string."""

from __future__ import annotations

import hashlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mel.corpora.columns import ColumnWriter, read_column

STRINGS_AT_ONCE = 8192


class Strings:
    """N strings without a Python object each, which would not fit where there are millions.

    One block of UTF-8, and where each string ends.
    """

    def __init__(self, bytes_T: np.ndarray, ends_N: np.ndarray):
        self._bytes_T, self._ends_N = bytes_T, ends_N

    @classmethod
    def of(cls, strings: Iterable[str]) -> Strings:
        encoded = [string.encode("utf-8") for string in strings]
        ends_N = np.cumsum([len(string) for string in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends_N)

    @classmethod
    def read(cls, folder: pathlib.Path, name: str) -> Strings:
        """Maps what `write` or a `StringsWriter` wrote."""
        return cls(*map(read_column, _files(folder, name)))

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


class StringsWriter:
    """Writes what `Strings.read` reads, string by string."""

    def __init__(self, folder: pathlib.Path, name: str):
        bytes_file, ends_file = _files(folder, name)
        self._bytes, self._ends = ColumnWriter(bytes_file, np.uint8), ColumnWriter(ends_file, np.int64)
        self._waiting: list[bytes] = []
        self._end = 0

    def add(self, string: str) -> None:
        self._waiting.append(string.encode("utf-8"))
        self._end += len(self._waiting[-1])
        self._ends.add(self._end)
        if len(self._waiting) == STRINGS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._bytes.close()
        self._ends.close()

    def _flush(self) -> None:
        self._bytes.extend(np.frombuffer(b"".join(self._waiting), np.uint8))
        self._waiting = []


class Hashes:
    """Finds the rows of a column by a key without a Python object each.

    Attributes:
      hashes_N: uint64, of all keys, ascending.
      rows_N: int32, the row of each; of equal keys the first row first.
    """

    def __init__(self, hashes_N: np.ndarray, rows_N: np.ndarray):
        self.hashes_N, self.rows_N = hashes_N, rows_N

    @classmethod
    def of(cls, keys: Iterable[str]) -> Hashes:
        """Of the keys of all rows, in order."""
        return cls.of_hashes(np.fromiter(map(hash_of, keys), np.uint64))

    @classmethod
    def of_hashes(cls, hashes_N: np.ndarray) -> Hashes:
        """Of the hashes of all rows, in order."""
        rows_N = np.argsort(hashes_N, kind="stable").astype(np.int32)
        return cls(hashes_N[rows_N], rows_N)

    @classmethod
    def read(cls, folder: pathlib.Path, name: str) -> Hashes:
        """Maps what `write` wrote."""
        return cls(*map(read_column, _hash_files(folder, name)))

    def write(self, folder: pathlib.Path, name: str) -> None:
        for file, values in zip(_hash_files(folder, name), (self.hashes_N, self.rows_N), strict=True):
            np.save(file, values)

    def __len__(self) -> int:
        return len(self.rows_N)

    def rows(self, key: str) -> list[int]:
        """The rows that may have this key, ascending: two keys may have one hash by chance."""
        return self.rows_of([key])[0]

    def rows_of(self, keys: Sequence[str]) -> list[list[int]]:
        """`rows` of each key."""
        hashes_n = np.fromiter(map(hash_of, keys), np.uint64, len(keys))
        first_n, last_n = (np.searchsorted(self.hashes_N, hashes_n, side).tolist() for side in ("left", "right"))
        return [self.rows_N[first:last].tolist() for first, last in zip(first_n, last_n, strict=True)]


def hash_of(key: str) -> int:
    """64 bits that are the same on every machine."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8"), digest_size=8).digest())


def _files(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    return folder / f"{name}.npy", folder / f"{name}_ends.npy"


def _hash_files(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    return folder / f"{name}_hashes.npy", folder / f"{name}_rows.npy"
