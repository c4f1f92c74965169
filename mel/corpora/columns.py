"""Columns on disk, written from beginning to end in bounded memory and mapped into memory to be read."""

from __future__ import annotations

import mmap
import os
import pathlib
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mel.memory import free_memory

BYTES_AT_ONCE = 1 << 20
SHARE_OF_MEMORY = 0.5  # the rest is for what computes


def read_column(path: str | os.PathLike) -> np.ndarray:
    """Maps a .npy file into memory, to be read only: what nobody looks at is never read.

    It is a plain array, because each slice of a `numpy.memmap` costs several times as much.
    """
    return np.asarray(np.load(path, mmap_mode="r"))


def read_bytes(path: str | os.PathLike) -> np.ndarray:
    """Maps the bytes of any file into memory, to be read only."""
    return np.asarray(np.memmap(path, np.uint8, "r")) if os.path.getsize(path) else np.zeros(0, np.uint8)


def fits_in_memory(columns: Iterable[np.ndarray]) -> bool:
    """Whether mapped columns fit into memory together; yes where the system does not say how much it has."""
    return sum(column.nbytes for column in columns) <= SHARE_OF_MEMORY * free_memory()


def advise_random(column: np.ndarray) -> bool:
    """Tells the system that a mapped column is read here and there, so that it reads no page that nobody asked for.

    Reading it from end to end is slow from then on. Returns whether it was told: an array in memory is left alone.
    """
    mapped = _map_of(column)
    if mapped is None:
        return False
    mapped.madvise(mmap.MADV_RANDOM)
    return True


def announce(column: np.ndarray, first_n: np.ndarray, end_n: np.ndarray) -> int:
    """Tells the system which values of a mapped column will be read soon, so that it reads them all at the same time.

    Args:
      column: of one axis.
      first_n, end_n: where each stretch of values begins and ends.

    Returns:
      how many stretches of pages it was told; 0 for an array in memory.
    """
    mapped = _map_of(column)
    if mapped is None or not len(first_n):
        return 0
    offset = column.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    bytes_n, after_n = (offset + column.itemsize * np.asarray(each, np.int64) for each in (first_n, end_n))
    page_n = bytes_n // mmap.PAGESIZE
    count_n = np.maximum(after_n - 1, bytes_n) // mmap.PAGESIZE - page_n + 1
    within_p = np.arange(count_n.sum()) - np.repeat(np.cumsum(count_n) - count_n, count_n)
    pages_p = np.unique(np.repeat(page_n, count_n) + within_p)
    breaks = np.flatnonzero(np.diff(pages_p) > 1) + 1
    starts = pages_p[np.concatenate([[0], breaks])] * mmap.PAGESIZE
    ends = np.minimum((pages_p[np.concatenate([breaks, [len(pages_p)]]) - 1] + 1) * mmap.PAGESIZE, len(mapped))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        mapped.madvise(mmap.MADV_WILLNEED, start, end - start)
    return len(starts)


def _map_of(column: np.ndarray) -> mmap.mmap | None:
    """The map that an array is a view of; None where it is none, or where the system cannot be told anything."""
    owner = column
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_RANDOM") else None


class ColumnWriter:
    """Writes a .npy file of one axis, value by value or block by block; its length is known at the end."""

    def __init__(self, path: pathlib.Path, dtype: Any):
        self._dtype = np.dtype(dtype)
        self._file = open(path, "wb")
        weakref.finalize(self, self._file.close)  # where an error leaves it behind
        self._waiting: list[Any] = []
        self._values_at_once = max(1, BYTES_AT_ONCE // self._dtype.itemsize)
        self._written = 0
        self._write_header()

    @property
    def length(self) -> int:
        """How many values there are."""
        return self._written + len(self._waiting)

    def add(self, value: Any) -> None:
        """One more value."""
        self._waiting.append(value)
        if len(self._waiting) == self._values_at_once:
            self._flush()

    def extend(self, values: Sequence[Any] | np.ndarray) -> None:
        """Many more values."""
        self._flush()
        self._write(np.asarray(values, self._dtype))

    def close(self) -> None:
        """Finishes the file."""
        self._flush()
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._write(np.array(waiting, self._dtype))

    def _write(self, values: np.ndarray) -> None:
        self._file.write(values.tobytes())
        self._written += len(values)

    def _write_header(self) -> None:
        """NumPy leaves room in a header for a first axis that grows, so that a later one takes the same place."""
        described = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(self._file, described | {"shape": (self.length,)})
