"""The knowledge base on disk: one row an entity and language, or one an entity, addressed by position.

entities.jsonl                what each language says about each entity, a line a row
entities.npy, languages.npy   the number of each row's entity, and the number of its language
titles.npy, titles_ends.npy   the title of each row; title_hashes.npy and title_rows.npy find rows by it, lower-cased;
                              title_{once,twice,lengths}.npy are its shape
ids.npy, ids_ends.npy         the id of each entity number, NIL first; id_hashes.npy and id_rows.npy find a number by it
row_keys.npy, row_order.npy   rows by entity and language, sorted

Numbers follow the order of the ids (`mel.types.id_order`), so that the smaller of two is the smaller QID. Entities that
the archives only link to are numbered too: an alias table knows them, although they have no row.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import orjson

from mel.corpora.columns import read_bytes, read_column
from mel.corpora.shapes import Shapes
from mel.corpora.strings import Hashes, Strings
from mel.types import NIL_ID, OUTSIDE, Entity, EntityId, id_order

FILE = "entities.jsonl"
COLUMNS = ("entities", "languages", "row_keys", "row_order")
ROWS_AT_ONCE = 1 << 20
IDS, TITLES, BY_ID, BY_TITLE = "ids", "titles", "id", "title"


class EntityRows(NamedTuple):
    """Finds the rows of entities.

    Attributes:
      keys_E: int64, number of the entity · `languages` + language of all rows, ascending.
      order_E: int32, the row of each key.
      languages: how many there are.
    """

    keys_E: np.ndarray
    order_E: np.ndarray
    languages: int

    @classmethod
    def of(cls, entities_E: np.ndarray, languages_E: np.ndarray | int = 0, languages: int = 1) -> EntityRows:
        """Of the entity and the language of each row."""
        keys_E = np.asarray(entities_E, np.int64) * languages + languages_E
        order_E = np.argsort(keys_E, kind="stable").astype(np.int32)
        return cls(keys_E[order_E], order_E, languages)

    def ranges(self, entities_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where in `order_E` the rows of each entity begin and end."""
        keys_n = np.asarray(entities_n, np.int64) * self.languages
        return np.searchsorted(self.keys_E, keys_n), np.searchsorted(self.keys_E, keys_n + self.languages)

    def has(self, entities_n: np.ndarray) -> np.ndarray:
        """Whether each entity has a row."""
        first_n, end_n = self.ranges(entities_n)
        return first_n < end_n

    def count(self) -> int:
        """How many entities have a row."""
        different = 0
        for start in range(1, len(self.keys_E), ROWS_AT_ONCE):
            entities_n = self.keys_E[start - 1 : start + ROWS_AT_ONCE] // self.languages
            different += int(np.count_nonzero(np.diff(entities_n[: ROWS_AT_ONCE + 1])))
        return different + bool(len(self.keys_E))


@dataclasses.dataclass(frozen=True, eq=False)
class KnowledgeBase:
    """Which entity stands in which row, and what it is called.

    Attributes:
      entities_E: int32, the number of each row's entity.
      languages_E: int32, the position of each row's language in `languages`.
      languages: in the order of preference where an entity lacks the language that is asked for.
      ids: the id of each entity number.
      titles: the title of each row.
      by_id: finds numbers by their ids.
      by_title: finds rows by their titles, lower-cased.
      title_shapes: what tells which titles are alike.
      entity_rows: finds rows by their entities.
    """

    entities_E: np.ndarray
    languages_E: np.ndarray
    languages: tuple[str, ...]
    ids: Strings
    titles: Strings
    by_id: Hashes
    by_title: Hashes
    title_shapes: Shapes
    entity_rows: EntityRows

    @classmethod
    def of(
        cls, rows: Sequence[tuple[EntityId, int]], titles: Iterable[str], languages: Sequence[str],
        linked: Iterable[EntityId] = (),
    ) -> KnowledgeBase:  # fmt: skip
        """A knowledge base in memory.

        Args:
          rows: entity of each row, and the number of its language.
          titles: of each row.
          languages: in the order of preference.
          linked: entities to be numbered whether they have a row or not.
        """
        names = sorted({*linked, *(name for name, _ in rows)} - {NIL_ID}, key=id_order)
        numbers = {name: number for number, name in enumerate([NIL_ID, *names])}
        titles = list(titles)
        entities_E = np.fromiter((numbers[name] for name, _ in rows), np.int32, len(rows))
        languages_E = np.fromiter((language for _, language in rows), np.int32, len(rows))
        found_by = Hashes.of(numbers), Hashes.of(title.lower() for title in titles), Shapes.of(titles)
        strings = Strings.of(numbers), Strings.of(titles)
        return cls(
            entities_E,
            languages_E,
            tuple(languages),
            *strings,
            *found_by,
            EntityRows.of(entities_E, languages_E, len(languages)),
        )

    @classmethod
    def read(cls, folder: str | os.PathLike, languages: Sequence[str]) -> KnowledgeBase:
        """Maps the columns of a knowledge base, or of a bundle, into memory."""
        folder = pathlib.Path(folder)
        entities_E, languages_E, keys_E, order_E = (read_column(folder / f"{name}.npy") for name in COLUMNS)
        strings = Strings.read(folder, IDS), Strings.read(folder, TITLES)
        found_by = Hashes.read(folder, BY_ID), Hashes.read(folder, BY_TITLE), Shapes.read(folder, BY_TITLE)
        return cls(
            entities_E, languages_E, tuple(languages), *strings, *found_by, EntityRows(keys_E, order_E, len(languages))
        )

    def write(self, folder: str | os.PathLike) -> None:
        """Writes what `read` reads."""
        folder = pathlib.Path(folder)
        columns = self.entities_E, self.languages_E, self.entity_rows.keys_E, self.entity_rows.order_E
        for name, values in zip(COLUMNS, columns, strict=True):
            np.save(folder / f"{name}.npy", values)
        self.ids.write(folder, IDS)
        self.titles.write(folder, TITLES)
        self.by_id.write(folder, BY_ID)
        self.by_title.write(folder, BY_TITLE)
        self.title_shapes.write(folder, BY_TITLE)

    def __len__(self) -> int:
        return len(self.entities_E)

    def numbers_of(self, ids: Sequence[EntityId]) -> np.ndarray:
        """The number of each entity, OUTSIDE where it has none; int64."""
        distinct = list(dict.fromkeys(ids))
        found = zip(distinct, self.by_id.rows_of(distinct), strict=True)
        number_of = {name: next((n for n in numbers if self.ids[n] == name), OUTSIDE) for name, numbers in found}
        return np.fromiter((number_of[name] for name in ids), np.int64, len(ids))

    def rows_of(self, entities_n: np.ndarray, language: str) -> np.ndarray:
        """The row of each entity in `language`, or else in the first language that has it, or else -1; int32."""
        keys, order = self.entity_rows.keys_E, self.entity_rows.order_E
        count, entities_n = len(self.languages), np.asarray(entities_n, np.int64)
        number = self.languages.index(language) if language in self.languages else 0
        exact_n = np.minimum(np.searchsorted(keys, entities_n * count + number), len(keys) - 1)
        first_n = np.minimum(np.searchsorted(keys, entities_n * count), len(keys) - 1)
        in_language_n = keys[exact_n] == entities_n * count + number
        in_any_n = keys[first_n] // count == entities_n
        return np.where(in_language_n, order[exact_n], np.where(in_any_n, order[first_n], -1)).astype(np.int32)

    def titles_of(self, entity: int) -> list[str]:
        """The titles of an entity in all languages that have it, in their order."""
        (first,), (end,) = self.entity_rows.ranges(np.array([entity]))
        return [self.titles[row] for row in self.entity_rows.order_E[first:end].tolist()]


def read_entities(folder: str | os.PathLike, start: int = 0, end: int | None = None) -> Iterator[Entity]:
    """The entities of a knowledge base, row by row, with their descriptions.

    Args:
      folder: where it stands.
      start, end: bytes of `FILE`, at the beginning and at the end of rows; all of it otherwise.
    """
    with open(pathlib.Path(folder) / FILE, "rb") as file:
        file.seek(start)
        while (end is None or file.tell() < end) and (line := file.readline()):
            record = orjson.loads(line)
            yield Entity(record["id"], record["language"], record["title"], record["description"])


def row_ranges(folder: str | os.PathLike, rows: int) -> Iterator[tuple[int, int]]:
    """Bytes of `FILE`, as `read_entities` takes them, that hold so many rows each; the last ones may be fewer."""
    bytes_T = read_bytes(pathlib.Path(folder) / FILE)
    start = waiting = 0
    for first in range(0, len(bytes_T), ROWS_AT_ONCE):
        ends = np.flatnonzero(bytes_T[first : first + ROWS_AT_ONCE] == ord("\n")) + first + 1
        for end in ends[rows - 1 - waiting :: rows].tolist():
            yield start, end
            start = end
        waiting = (waiting + len(ends)) % rows
    if start < len(bytes_T):
        yield start, len(bytes_T)


def write_record(entity: Entity) -> bytes:
    """One line of the file of entities, its end included."""
    record = {
        "id": entity.entity_id, "language": entity.language, "title": entity.title, "description": entity.description,
    }  # fmt: skip
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
