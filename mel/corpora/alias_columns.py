"""The columns of an alias table, whose files `mel.corpora.alias_table` lists: how they are written and looked up."""

from __future__ import annotations

import array
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from mel.corpora.columns import ColumnWriter, read_column
from mel.corpora.kb import KnowledgeBase
from mel.corpora.shapes import Shapes, ShapesWriter
from mel.corpora.strings import Hashes, Strings, StringsWriter, hash_of

LINKS, LEMMAS, NAMES = COLUMNS = ("links", "lemmas", "names")
LANGUAGES, LINKED = "alias_languages", "linked"
LINE = np.dtype([("language", np.int16), ("entity", np.int32), ("count", np.int32)])

Line = tuple[str, int, int]  # language, entity, count
Spellings = dict[str, list[Line]]


class AliasTableWriter:
    """Writes the columns from lines that come in order, in bounded memory but for 20 bytes a string.

    Args:
      folder: where.
    """

    def __init__(self, folder: str | os.PathLike):
        self._folder = pathlib.Path(folder)
        self._languages: dict[str, int] = {}

    def write(self, name: str, lines: Iterable[tuple[str, str, int, int]]) -> int:
        """Writes one of `COLUMNS`.

        Args:
          name: which.
          lines: string, language, entity and count; by string and language, both by their code points, then
            the greatest count first, of equal ones the smallest entity.

        Returns:
          how many strings there are, counted once in each language.
        """
        strings, shapes = StringsWriter(self._folder, name), ShapesWriter(self._folder, name)
        ends = ColumnWriter(self._folder / f"{name}_line_ends.npy", np.int64)
        columns, hashes = ColumnWriter(self._folder / f"{name}_lines.npy", LINE), array.array("Q")
        total = 0
        for string, of_string in itertools.groupby(lines, key=lambda line: line[0]):
            strings.add(string)
            shapes.add(string)
            hashes.append(hash_of(string.lower()))
            for language, of_language in itertools.groupby(of_string, key=lambda line: line[1]):
                number = self._languages.setdefault(language, len(self._languages))
                for _, _, entity, count in of_language:
                    columns.add((number, entity, count))
                total += 1
            ends.add(columns.length)
        for writer in (strings, shapes, ends, columns):
            writer.close()
        Hashes.of_hashes(np.frombuffer(hashes, np.uint64)).write(self._folder, name)
        return total

    def close(self) -> None:
        """Writes what all of them share."""
        Strings.of(self._languages).write(self._folder, LANGUAGES)
        np.save(self._folder / f"{LINKED}.npy", np.unique(read_column(self._folder / f"{LINKS}_lines.npy")["entity"]))


class Lookup(NamedTuple):
    """String -> how often it means which entity.

    Attributes:
      strings: S distinct ones, sorted.
      shapes: theirs.
      by_lower_case: finds them by how they are lower-cased.
      ends_S: where the lines of each string end.
      lines_P: `LINE`, by language and by falling count.
      languages: those that the lines count.
    """

    strings: Strings
    shapes: Shapes
    by_lower_case: Hashes
    ends_S: np.ndarray
    lines_P: np.ndarray
    languages: list[str]

    @classmethod
    def read(cls, folder: pathlib.Path, name: str, languages: list[str]) -> Lookup:
        strings, by_lower_case = Strings.read(folder, name), Hashes.read(folder, name)
        shapes = Shapes.read(folder, name)
        ends_S, lines_P = (read_column(folder / f"{name}_{each}.npy") for each in ("line_ends", "lines"))
        if lines_P.dtype != LINE or not len(strings) == len(by_lower_case) == len(ends_S) == len(shapes.lengths_N):
            raise ValueError("the columns do not belong together")
        return cls(strings, shapes, by_lower_case, ends_S, lines_P, languages)

    def spellings(self, string: str) -> Spellings:
        """The strings that are the same when lower-cased, in order, and the lines of each."""
        lowered, found = string.lower(), {}
        for row in self.by_lower_case.rows(lowered):
            spelling = self.strings[row]
            if spelling.lower() == lowered:
                found[spelling] = self._lines(row)
        return found

    def strings_in(self, language: str) -> Iterator[str]:
        """All strings of a language."""
        if language in self.languages:
            places = np.flatnonzero(self.lines_P["language"] == self.languages.index(language))
            rows = np.unique(np.searchsorted(self.ends_S, places, side="right"))
            yield from (self.strings[int(row)] for row in rows)

    def strings_of(self, entities_n: np.ndarray) -> Iterator[str]:
        """All strings of some entities."""
        places = np.flatnonzero(np.isin(self.lines_P["entity"], entities_n))
        yield from (self.strings[int(row)] for row in np.unique(np.searchsorted(self.ends_S, places, side="right")))

    def _lines(self, row: int) -> list[Line]:
        lines = self.lines_P[self.ends_S[row - 1] if row else 0 : self.ends_S[row]].tolist()
        return [(self.languages[language], entity, count) for language, entity, count in lines]


class Titles(NamedTuple):
    """The titles of a knowledge base, each counted once for its row, as a `Lookup`."""

    kb: KnowledgeBase

    @property
    def strings(self) -> Strings:
        return self.kb.titles

    @property
    def shapes(self) -> Shapes:
        return self.kb.title_shapes

    def spellings(self, string: str) -> Spellings:
        lowered, found = string.lower(), {}
        for row in self.kb.by_title.rows(lowered):
            if (title := self.kb.titles[row]).lower() == lowered:
                found.setdefault(title, []).append(self._line(row))
        return found

    def strings_in(self, language: str) -> Iterator[str]:
        if language in self.kb.languages:
            rows = np.flatnonzero(self.kb.languages_E == self.kb.languages.index(language))
            yield from (self.kb.titles[row] for row in rows.tolist())

    def _line(self, row: int) -> Line:
        return self.kb.languages[self.kb.languages_E[row]], int(self.kb.entities_E[row]), 1
