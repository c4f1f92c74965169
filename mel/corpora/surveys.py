"""What some records say of entities, on disk: rows, and sorted runs that many of them are merged from.

qids.npy, others*.npy         the ids that are named, in their order: numbers of QIDs, and all other ids (`Strings`);
                              an id's place among both is its number here
entities.jsonl, line_ends.npy the rows, as a knowledge base has them, and where each line ends; rows whose entity the
                              redirects moved are the last ones
row_ids.npy, row_languages.npy, row_levels.npy
                              the id and the language of each row, and how much is known of its entity (`LEVELS`)
titles*.npy, title_*.npy      the title of each row, its hash and its shape
links*.npy, lemmas*.npy, names*.npy
                              strings by their code points, and the lines of each (`mel.corpora.alias_columns.LINE`)
"""

from __future__ import annotations

import array
import itertools
import pathlib
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mel.corpora.alias_columns import COLUMNS, LINE
from mel.corpora.columns import ColumnWriter, read_column
from mel.corpora.kb import BY_TITLE, FILE, TITLES, write_record
from mel.corpora.shapes import Shapes, ShapesWriter
from mel.corpora.strings import Strings, StringsWriter, hash_of
from mel.types import Entity, EntityId, id_order

# How much is known of an entity in a language: a name; a description, too; a page. Own entities are all wanted.
LEVELS = NAMED, DESCRIBED, PAGE = 0, 1, 2
OTHERS = "others"
ROWS = {"row_ids": np.int32, "row_languages": np.int16, "row_levels": np.uint8}
TITLE_HASHES = f"{BY_TITLE}_hashes.npy"


class Ids:
    """Ids in the order in which they are seen; `write` puts them into their own."""

    def __init__(self):
        self._numbers: dict[EntityId, int] = {}
        self._places_I: np.ndarray | None = None

    def number(self, entity_id: EntityId) -> int:
        """The same for the same id."""
        return self._numbers.setdefault(entity_id, len(self._numbers))

    def write(self, folder: pathlib.Path) -> np.ndarray:
        """Writes the ids in their order, if that is not done yet; returns the place of each number there, int32."""
        if self._places_I is not None and len(self._places_I) == len(self._numbers):
            return self._places_I
        orders = sorted(((id_order(name), number) for name, number in self._numbers.items()))
        qids = [order[1] for order, _ in orders if not order[0]]
        np.save(folder / "qids.npy", np.array(qids, np.int64))
        Strings.of(order[2] for order, _ in orders[len(qids) :]).write(folder, OTHERS)
        places_I = np.zeros(len(orders), np.int32)
        places_I[[number for _, number in orders]] = np.arange(len(orders))
        self._places_I = places_I
        return places_I


class SurveyWriter:
    """Writes what `Survey` reads: rows as they come, and at the end what was counted.

    Args:
      folder: where.
      ids: number the ids; `close` writes those of rows and counts, and of whatever else was numbered with them.
    """

    def __init__(self, folder: pathlib.Path, ids: Ids):
        self._folder, self._ids = folder, ids
        self._languages: dict[str, int] = {}
        self._file = open(folder / FILE, "wb")
        weakref.finalize(self, self._file.close)  # where an error leaves it behind
        self._ends, self._titles = ColumnWriter(folder / "line_ends.npy", np.int64), StringsWriter(folder, TITLES)
        self._shapes, self._hashes = ShapesWriter(folder, BY_TITLE), ColumnWriter(folder / TITLE_HASHES, np.uint64)
        self._columns = {name: array.array("i") for name in ROWS}
        self._moved: list[tuple[Entity, int]] = []
        self._end = 0

    def add(self, entity: Entity, level: int, moved: bool = False) -> None:
        """One more row.

        Args:
          entity: of the row.
          level: how much is known of it, one of `LEVELS`.
          moved: whether the redirects moved it, so that its row comes after all others.
        """
        if moved:
            self._moved.append((entity, level))
        else:
            self._write(entity, level)

    def close(self, counts: Sequence[Mapping[tuple[str, str, EntityId], int]]) -> dict[str, Any]:
        """Finishes the files.

        Args:
          counts: how often each string of each language stands for each entity: links, lemmas, names.

        Returns:
          facts for `Survey`.
        """
        firmly = len(self._columns["row_ids"])
        for entity, level in self._moved:
            self._write(entity, level)
        of_rows = len(self._languages)
        for each in (self._ends, self._titles, self._shapes, self._hashes, self._file):
            each.close()
        keys = [[(*key, self._ids.number(key[2]), count) for key, count in sorted(some.items())] for some in counts]
        places_I = self._ids.write(self._folder)
        columns = {name: np.asarray(values, np.int64) for name, values in self._columns.items()}
        columns["row_ids"] = places_I[columns["row_ids"]]
        for name, dtype in ROWS.items():
            np.save(self._folder / f"{name}.npy", columns[name].astype(dtype))
        for name, lines in zip(COLUMNS, keys, strict=True):
            self._write_run(name, lines, places_I)
        return {"languages": list(self._languages), "row_languages": of_rows, "unmoved": firmly}

    def _write(self, entity: Entity, level: int) -> None:
        line = write_record(entity)
        self._file.write(line)
        self._end += len(line)
        self._ends.add(self._end)
        self._titles.add(entity.title)
        self._shapes.add(entity.title)
        self._hashes.add(hash_of(entity.title.lower()))
        values = self._ids.number(entity.entity_id), self._language(entity.language), level
        for name, value in zip(ROWS, values, strict=True):
            self._columns[name].append(value)

    def _write_run(self, name: str, lines: Sequence[tuple], places_I: np.ndarray) -> None:
        strings, ends = StringsWriter(self._folder, name), array.array("q")
        columns = np.zeros(len(lines), LINE)
        columns["language"] = [self._language(line[1]) for line in lines]
        columns["entity"] = places_I[[line[3] for line in lines]] if lines else 0
        columns["count"] = [line[4] for line in lines]
        end = 0
        for string, of_string in itertools.groupby(lines, key=lambda line: line[0]):
            strings.add(string)
            end += sum(1 for _ in of_string)
            ends.append(end)
        strings.close()
        np.save(self._folder / f"{name}_line_ends.npy", np.asarray(ends, np.int64))
        np.save(self._folder / f"{name}_lines.npy", columns)

    def _language(self, language: str) -> int:
        return self._languages.setdefault(language, len(self._languages))


class Survey(NamedTuple):
    """What a `SurveyWriter` wrote; its columns are mapped when they are asked for.

    Attributes:
      folder: where it stands.
      languages: those that rows and lines count; those of rows are the first `row_languages`.
      row_languages: how many of them rows have.
      unmoved: how many rows there are before those that the redirects moved.
    """

    folder: pathlib.Path
    languages: Sequence[str]
    row_languages: int
    unmoved: int

    @classmethod
    def read(cls, folder: pathlib.Path, facts: Mapping[str, Any]) -> Survey:
        return cls(folder, *(facts[name] for name in ("languages", "row_languages", "unmoved")))

    def column(self, name: str) -> np.ndarray:
        """`qids`, `line_ends`, one of `ROWS` or `title_hashes`."""
        return read_column(self.folder / f"{name}.npy")

    @property
    def others(self) -> Strings:
        return Strings.read(self.folder, OTHERS)

    @property
    def titles(self) -> Strings:
        return Strings.read(self.folder, TITLES)

    @property
    def title_shapes(self) -> Shapes:
        return Shapes.read(self.folder, BY_TITLE)

    def run(self, name: str) -> tuple[Strings, np.ndarray, np.ndarray]:
        """The strings of one of `COLUMNS`, where the lines of each end, and the lines."""
        return Strings.read(self.folder, name), self.column(f"{name}_line_ends"), self.column(f"{name}_lines")


class Numbers(NamedTuple):
    """The numbers that a knowledge base gives ids: NIL is 0, QIDs follow, and then all others.

    Attributes:
      folder: holds the QIDs of all, ascending, as `qids.npy`.
      others: the other ids, in their order; they come from files of one's own only.
    """

    folder: pathlib.Path
    others: tuple[EntityId, ...]

    @property
    def qids_Q(self) -> np.ndarray:
        return read_column(self.folder / "qids.npy")

    def __len__(self) -> int:
        return 1 + len(self.qids_Q) + len(self.others)

    def of(self, survey: Survey, places_n: np.ndarray) -> np.ndarray:
        """Of the ids at these places of a survey; int64."""
        theirs_I, qids_Q = survey.column("qids"), self.qids_Q
        numbers_n = np.zeros(len(places_n), np.int64)
        is_qid_n = places_n < len(theirs_I)
        numbers_n[is_qid_n] = 1 + np.searchsorted(qids_Q, theirs_I[places_n[is_qid_n]])
        if not is_qid_n.all():
            number_of = {name: 1 + len(qids_Q) + number for number, name in enumerate(self.others)}
            of_others = np.array([number_of[name] for name in survey.others], np.int64)
            numbers_n[~is_qid_n] = of_others[places_n[~is_qid_n] - len(theirs_I)]
        return numbers_n
