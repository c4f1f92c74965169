"""Merges surveys into an alias table, range by range of the strings: processes merge ranges, and memory is bounded.

What stands on disk is that of `mel.corpora.alias_table`, and the same however many ranges there were.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mel.corpora.alias_columns import COLUMNS, LANGUAGES, LINE, LINKED, LINKS, NAMES
from mel.corpora.columns import ColumnWriter, read_column
from mel.corpora.shapes import COLUMNS as SHAPES
from mel.corpora.shapes import Shapes
from mel.corpora.sorting import chunks, concatenate_columns, concatenate_ends, pieces_of, write_sorted
from mel.corpora.strings import Strings, hash_files, hash_of, string_files
from mel.corpora.surveys import Numbers, Survey
from mel.corpora.workers import map_in_order

SAMPLES = 256  # of the strings of a survey
BYTES_A_STRING, BYTES_A_LINE = 400, 160  # that merging takes


class Merge(NamedTuple):
    """What alias tables are merged from.

    Attributes:
      surveys: in any order.
      numbers: of all ids.
      has_row: a file of bool, whether each number has a row; names of others are left out. None if all have one.
      memory: bytes that merging may take.
      workers: processes that merge; 0 for one a core.
    """

    surveys: Sequence[Survey]
    numbers: Numbers
    has_row: pathlib.Path | None
    memory: int
    workers: int

    @property
    def languages(self) -> list[str]:
        """Those of all lines, in the order of their names."""
        return sorted({language for survey in self.surveys for language in survey.languages})


class _Range(NamedTuple):
    """Strings from `low` up to below `high`; None is no bound."""

    low: str | None
    high: str | None
    folder: pathlib.Path


def write_alias_table(folder: pathlib.Path, scratch: pathlib.Path, merge: Merge) -> int:
    """Writes the columns of links, lemmas and names.

    Returns:
      How many surface forms were linked, counted once in each language.
    """
    numbers: dict[str, int] = {}  # of the languages, in the order in which the columns have them
    totals = []
    for name in COLUMNS:
        ranges = _ranges(merge, name, scratch)
        merged = list(map_in_order(functools.partial(_merge_range, merge=merge, name=name), ranges, merge.workers))
        for language in (language for _, languages in merged for language in languages):
            numbers.setdefault(language, len(numbers))
        totals.append(sum(pairs for pairs, _ in merged))
        of_rank = np.array([numbers.get(language, -1) for language in merge.languages], np.int16)
        _join(folder, scratch, name, [each.folder for each in ranges], of_rank, merge.memory)
    Strings.of(numbers).write(folder, LANGUAGES)
    _write_linked(folder, len(merge.numbers))
    return totals[0]


def _ranges(merge: Merge, name: str, scratch: pathlib.Path) -> list[_Range]:
    """Ranges of strings of which as many are merged at the same time as there are processes."""
    samples: list[str] = []
    size = 0
    for survey in merge.surveys:
        strings, _, lines = survey.run(name)
        size += len(strings) * BYTES_A_STRING + len(lines) * BYTES_A_LINE
        samples += (strings[row] for row in range(0, len(strings), max(1, len(strings) // SAMPLES)))
    pieces = pieces_of(size * max(1, merge.workers), merge.memory)
    samples.sort()
    cuts = sorted({samples[len(samples) * piece // pieces] for piece in range(1, pieces)}) if samples else []
    bounds = [None, *cuts, None]
    ranges = [
        _Range(low, high, scratch / f"{name}-{number:05d}")
        for number, (low, high) in enumerate(itertools.pairwise(bounds))
    ]
    for each in ranges:
        each.folder.mkdir()
    return ranges


def _merge_range(some: _Range, merge: Merge, name: str) -> tuple[int, list[str]]:
    """Writes the columns of a range, where languages are counted in the order of their names.

    Returns:
      how many strings there are, once in each language; and the languages in the order in which the lines have them.
    """
    languages = merge.languages
    strings, lines = _gathered(some, merge, name, languages)
    if name == NAMES and merge.has_row is not None:
        lines = lines[read_column(merge.has_row)[lines["entity"]]]
    distinct = sorted({strings[row] for row in np.unique(lines["string"]).tolist()})
    place_of = {string: place for place, string in enumerate(distinct)}
    lines["string"] = np.array([place_of.get(string, -1) for string in strings], np.int64)[lines["string"]]
    lines = _summed(lines)
    ends = np.searchsorted(lines["string"], np.arange(len(distinct)), side="right")
    Strings.of(distinct).write(some.folder, name)
    Shapes.of(distinct).write(some.folder, name)
    hashes = np.fromiter((hash_of(string.lower()) for string in distinct), np.uint64, len(distinct))
    np.save(some.folder / "hashes.npy", hashes)
    np.save(some.folder / f"{name}_line_ends.npy", ends.astype(np.int64))
    columns = np.zeros(len(lines), LINE)
    for column in LINE.fields or ():
        columns[column] = lines[column]
    np.save(some.folder / f"{name}_lines.npy", columns)
    found, first = np.unique(lines["language"], return_index=True)
    pairs = np.diff(lines["string"]) | np.diff(lines["language"])
    return int(np.count_nonzero(pairs)) + bool(len(lines)), [languages[found[place]] for place in np.argsort(first)]


_LINE = np.dtype([("string", np.int64), ("language", np.int16), ("entity", np.int32), ("count", np.int64)])


def _gathered(some: _Range, merge: Merge, name: str, languages: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The strings of a range in each survey, and their lines, each with the place of its string."""
    strings, gathered = [], [np.zeros(0, _LINE)]
    for survey in merge.surveys:
        theirs, ends, lines = survey.run(name)
        first = 0 if some.low is None else bisect.bisect_left(theirs, some.low)
        end = len(theirs) if some.high is None else bisect.bisect_left(theirs, some.high)
        if first == end:
            continue
        start, stop = int(ends[first - 1]) if first else 0, int(ends[end - 1])
        of_range = np.zeros(stop - start, _LINE)
        places = np.arange(len(strings), len(strings) + end - first)
        of_range["string"] = np.repeat(places, np.diff(ends[first:end], prepend=start))
        ranks = np.array([languages.index(language) for language in survey.languages], np.int16)
        of_range["language"] = ranks[lines["language"][start:stop]]
        of_range["entity"] = merge.numbers.of(survey, lines["entity"][start:stop])
        of_range["count"] = lines["count"][start:stop]
        gathered.append(of_range)
        strings += theirs.some(first, end)
    return strings, np.concatenate(gathered)


def _summed(lines: np.ndarray) -> np.ndarray:
    """One line for each string, language and entity, with the sum of the counts, in the order of an alias table."""
    lines = lines[np.lexsort((lines["entity"], lines["language"], lines["string"]))]
    if not len(lines):
        return lines
    keys = [lines[name] for name in ("string", "language", "entity")]
    starts = np.flatnonzero(np.concatenate([[True], np.any([np.diff(key) != 0 for key in keys], axis=0)]))
    counts = np.add.reduceat(lines["count"], starts)
    lines = lines[starts]
    lines["count"] = counts
    return lines[np.lexsort((lines["entity"], -lines["count"], lines["language"], lines["string"]))]


def _join(
    folder: pathlib.Path, scratch: pathlib.Path, name: str, ranges: Sequence[pathlib.Path], of_rank: np.ndarray,
    memory: int,
) -> None:  # fmt: skip
    """Writes the columns of all ranges as one; `of_rank` has the number of each language."""
    (text, ends), shapes = string_files(folder, name), {f"{name}_{each}.npy": dtype for each, dtype in SHAPES.items()}
    for file, dtype in ({text.name: np.uint8} | shapes).items():
        concatenate_columns([each / file for each in ranges], folder / file, dtype)
    concatenate_columns([each / "hashes.npy" for each in ranges], scratch / f"{name}_hashes.npy", np.uint64)
    write_sorted(read_column(scratch / f"{name}_hashes.npy"), *hash_files(folder, name), memory)
    for file in (ends.name, f"{name}_line_ends.npy"):
        concatenate_ends([each / file for each in ranges], folder / file)
    column = ColumnWriter(folder / f"{name}_lines.npy", LINE)
    for lines, some in _pieces(each / f"{name}_lines.npy" for each in ranges):
        numbered = np.array(lines[some])
        numbered["language"] = of_rank[numbered["language"]]
        column.extend(numbered)
    column.close()


def _write_linked(folder: pathlib.Path, entities: int) -> None:
    linked_U = np.zeros(entities, bool)
    for lines, some in _pieces([folder / f"{LINKS}_lines.npy"]):
        linked_U[lines["entity"][some]] = True
    np.save(folder / f"{LINKED}.npy", np.flatnonzero(linked_U).astype(np.int32))


def _pieces(files: Iterable[pathlib.Path]):
    """Each file mapped, with slices that cover it."""
    for file in files:
        values = read_column(file)
        yield from ((values, some) for some in chunks(len(values)))
