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
        return cls(*map(read_column, string_files(folder, name)))

    def write(self, folder: pathlib.Path, name: str) -> None:
        for file, values in zip(string_files(folder, name), (self._bytes_T, self._ends_N), strict=True):
            np.save(file, values)

    def taken(self, some: slice, chosen_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The bytes of the chosen ones of some strings, one after the other, and how long each is.

        Args:
          some: a slice with both ends and no step.
          chosen_n: whether each string of it is chosen, bool [n].
        """
        start = int(self._ends_N[some.start - 1]) if some.start else 0
        ends_n = self._ends_N[some]
        lengths_n = np.diff(ends_n, prepend=start)
        bytes_t = self._bytes_T[start : int(ends_n[-1]) if len(ends_n) else start]
        if not chosen_n.all():
            bytes_t, lengths_n = bytes_t[np.repeat(chosen_n, lengths_n)], lengths_n[chosen_n]
        return bytes_t, lengths_n

    def __len__(self) -> int:
        return len(self._ends_N)

    def __getitem__(self, row: int) -> str:
        start = self._ends_N[row - 1] if row else 0
        return self._bytes_T[start : self._ends_N[row]].tobytes().decode("utf-8")

    def some(self, first: int, end: int) -> list[str]:
        """Those of the rows `first` up to below `end`, at once, which is faster than one by one."""
        if first >= end:
            return []
        start = int(self._ends_N[first - 1]) if first else 0
        ends_n = self._ends_N[first:end] - start
        bytes_t = self._bytes_T[start : start + int(ends_n[-1])]
        text = bytes_t.tobytes().decode("utf-8")
        if len(text) < len(bytes_t):  # where characters end: before the next byte that begins one
            ends_n = np.concatenate([[0], np.cumsum((bytes_t & 0xC0) != 0x80)])[ends_n]
        return [text[low:high] for low, high in itertools.pairwise([0, *ends_n.tolist()])]

    def __iter__(self) -> Iterator[str]:
        bounds = itertools.pairwise(itertools.chain([0], self._ends_N))
        return (self._bytes_T[start:end].tobytes().decode("utf-8") for start, end in bounds)


class StringsWriter:
    """Writes what `Strings.read` reads, string by string."""

    def __init__(self, folder: pathlib.Path, name: str):
        bytes_file, ends_file = string_files(folder, name)
        self._bytes, self._ends = ColumnWriter(bytes_file, np.uint8), ColumnWriter(ends_file, np.int64)
        self._waiting: list[bytes] = []
        self._end = 0

    def add(self, string: str) -> None:
        self._waiting.append(string.encode("utf-8"))
        self._end += len(self._waiting[-1])
        self._ends.add(self._end)
        if len(self._waiting) == STRINGS_AT_ONCE:
            self._flush()

    def extend(self, bytes_t: np.ndarray, lengths_n: np.ndarray) -> None:
        """Many more, as `Strings.taken` has them."""
        self._flush()
        self._bytes.extend(bytes_t)
        self._ends.extend(self._end + np.cumsum(lengths_n))
        self._end += len(bytes_t)

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
        return cls(*map(read_column, hash_files(folder, name)))

    def write(self, folder: pathlib.Path, name: str) -> None:
        for file, values in zip(hash_files(folder, name), (self.hashes_N, self.rows_N), strict=True):
            np.save(file, values)

    def __len__(self) -> int:
        return len(self.rows_N)

    def rows(self, key: str) -> list[int]:
        """The rows that may have this key, ascending: two keys may have one hash by chance."""
        hashed = np.uint64(hash_of(key))
        first = int(self.hashes_N.searchsorted(hashed))
        if first == len(self.hashes_N) or self.hashes_N[first] != hashed:  # so it is with most keys
            return []
        return self.rows_N[first : int(self.hashes_N.searchsorted(hashed, "right"))].tolist()

    def rows_of(self, keys: Sequence[str]) -> list[list[int]]:
        """`rows` of each key."""
        hashes_n = np.fromiter(map(hash_of, keys), np.uint64, len(keys))
        first_n, last_n = (np.searchsorted(self.hashes_N, hashes_n, side).tolist() for side in ("left", "right"))
        return [self.rows_N[first:last].tolist() for first, last in zip(first_n, last_n, strict=True)]


def hash_of(key: str) -> int:
    """64 bits that are the same on every machine."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8"), digest_size=8).digest())


def string_files(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Where `Strings` stand: their bytes, and where each ends."""
    return folder / f"{name}.npy", folder / f"{name}_ends.npy"


def hash_files(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Where `Hashes` stand: the hashes, and the rows."""
    return folder / f"{name}_hashes.npy", folder / f"{name}_rows.npy"
