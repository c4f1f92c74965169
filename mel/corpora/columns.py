"""Columns on disk, written from beginning to end in bounded memory and mapped into memory to be read."""

from __future__ import annotations

import mmap
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

BYTES_AT_ONCE = 1 << 20


def read_column(path: str | os.PathLike) -> np.ndarray:
    """Maps a .npy file into memory, to be read only: what nobody looks at is never read.

    It is a plain array, because each slice of a `numpy.memmap` costs several times as much.
    """
    return np.asarray(np.load(path, mmap_mode="r"))


def advise_random(column: np.ndarray) -> bool:
    """Tells the system that a mapped column is read here and there, so that it reads no page that nobody asked for.

    Reading it from end to end is slow from then on. Returns whether it was told: an array in memory is left alone.
    """
    owner = column
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if not isinstance(owner, mmap.mmap) or not hasattr(mmap, "MADV_RANDOM"):
        return False
    owner.madvise(mmap.MADV_RANDOM)
    return True


class ColumnWriter:
    """Writes a .npy file of one axis, value by value or block by block; its length is known at the end."""

    def __init__(self, path: pathlib.Path, dtype: Any):
        self._dtype = np.dtype(dtype)
        self._file = open(path, "wb")
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
