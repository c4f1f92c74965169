"""Sorts columns that are larger than the memory one wants to give them, and concatenates what was written in pieces."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from mel.corpora.columns import ColumnWriter, read_column

VALUES_AT_ONCE = 1 << 20
SAMPLES_A_PIECE = 64
BYTES_A_VALUE = 40  # that sorting takes: the value, its row, the order, and a copy of each


def pieces_of(total_bytes: int, memory: int) -> int:
    """Into how many pieces something has to be cut whose pieces may take so much memory."""
    return max(1, math.ceil(total_bytes / max(memory, 1)))


def cuts_of(samples_n: np.ndarray, pieces: int) -> np.ndarray:
    """Values that cut what was sampled into about so many pieces of equal size, ascending, each once."""
    if pieces < 2 or not len(samples_n):
        return samples_n[:0]
    return np.unique(np.sort(samples_n)[np.arange(1, pieces) * len(samples_n) // pieces])


def write_sorted(values_N: np.ndarray, sorted_file: pathlib.Path, rows_file: pathlib.Path, memory: int) -> None:
    """Writes a column in ascending order, and int32 the row of each value; of equal ones the first row first.

    Args:
      values_N: of one axis, as a rule mapped; it is read once for each piece that the memory allows.
      sorted_file, rows_file: where.
      memory: bytes that this may take. How it is cut changes nothing in what is written.
    """
    pieces = pieces_of(len(values_N) * BYTES_A_VALUE, memory)
    step = max(1, len(values_N) // (pieces * SAMPLES_A_PIECE))
    bounds = [None, *cuts_of(np.asarray(values_N[::step]), pieces), None]
    ascending, rows = ColumnWriter(sorted_file, values_N.dtype), ColumnWriter(rows_file, np.int32)
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        rows_n = np.concatenate([np.zeros(0, np.int32), *_rows_between(values_N, low, high)])
        values_n = values_N[rows_n]
        order_n = np.argsort(values_n, kind="stable")
        ascending.extend(values_n[order_n])
        rows.extend(rows_n[order_n])
    ascending.close()
    rows.close()


def chunks(length: int) -> Iterator[slice]:
    """Slices that cover so many values, some at a time."""
    return (slice(start, min(start + VALUES_AT_ONCE, length)) for start in range(0, length, VALUES_AT_ONCE))


def concatenate_columns(files: Sequence[pathlib.Path], file: pathlib.Path, dtype: np.dtype | type) -> None:
    """Writes the columns of some files, one after the other."""
    column = ColumnWriter(file, dtype)
    for each in files:
        values = read_column(each)
        for some in chunks(len(values)):
            column.extend(values[some])
    column.close()


def concatenate_ends(files: Sequence[pathlib.Path], file: pathlib.Path) -> None:
    """Writes where things end, one column after the other: each goes on where the one before ended."""
    column, base = ColumnWriter(file, np.int64), 0
    for each in files:
        ends = read_column(each)
        for some in chunks(len(ends)):
            column.extend(ends[some] + base)
        base += int(ends[-1]) if len(ends) else 0
    column.close()


def _rows_between(values_N: np.ndarray, low, high) -> Iterator[np.ndarray]:
    """The rows of values from `low` up to below `high`; None is no bound."""
    for some in chunks(len(values_N)):
        values_n = values_N[some]
        inside_n = np.ones(len(values_n), bool)
        if low is not None:
            inside_n &= values_n >= low
        if high is not None:
            inside_n &= values_n < high
        yield (np.flatnonzero(inside_n) + some.start).astype(np.int32)
