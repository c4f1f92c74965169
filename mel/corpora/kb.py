"""The knowledge base on disk: one row an entity and language, or one an entity, addressed by position.

entities.jsonl                what each language says about each entity, a line a row
entities.npy, languages.npy   the number of each row's entity, and the number of its language
titles.npy, titles_ends.npy   the title of each row
ids.npy, ids_ends.npy         the id of each entity number, NIL first; number_of.npy finds a number by its id

Numbers follow the order of the ids (`mel.types.id_order`), so that the smaller of two is the smaller QID. Entities that
the archives only link to are numbered too: an alias table knows them, although they have no row.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import orjson

from mel.corpora.strings import Strings
from mel.types import NIL_ID, OUTSIDE, Entity, EntityId, MelError, id_order

FILE = "entities.jsonl"
COLUMNS = ("entities", "languages")
IDS, TITLES, NUMBER_OF = "ids", "titles", "number_of"
_HASHED = np.dtype([("hash", np.uint64), ("number", np.int32)])


@dataclasses.dataclass(frozen=True, eq=False)
class KnowledgeBase:
    """Which entity stands in which row, and what it is called.

    Attributes:
      entities_E: int32, the number of each row's entity.
      languages_E: int32, the position of each row's language in `languages`.
      languages: in the order of preference where an entity lacks the language that is asked for.
      ids: the id of each entity number.
      titles: the title of each row.
      number_of_I: the hashes of all ids, ascending, with their numbers.
    """

    entities_E: np.ndarray
    languages_E: np.ndarray
    languages: tuple[str, ...]
    ids: Strings
    titles: Strings
    number_of_I: np.ndarray

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
        return cls(
            np.fromiter((numbers[name] for name, _ in rows), np.int32, len(rows)),
            np.fromiter((language for _, language in rows), np.int32, len(rows)),
            tuple(languages),
            Strings.of(numbers),
            Strings.of(titles),
            _by_hash(list(numbers)),
        )

    @classmethod
    def read(cls, folder: str | os.PathLike, languages: Sequence[str]) -> KnowledgeBase:
        """Maps the columns of a knowledge base, or of a bundle, into memory."""
        folder = pathlib.Path(folder)
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in (*COLUMNS, NUMBER_OF)]
        entities_E, languages_E, number_of_I = arrays
        ids, titles = Strings.read(folder, IDS), Strings.read(folder, TITLES)
        return cls(entities_E, languages_E, tuple(languages), ids, titles, number_of_I)

    def write(self, folder: str | os.PathLike) -> None:
        """Writes what `read` reads."""
        folder = pathlib.Path(folder)
        columns = dict(zip((*COLUMNS, NUMBER_OF), (self.entities_E, self.languages_E, self.number_of_I), strict=True))
        for name, values in columns.items():
            np.save(folder / f"{name}.npy", values)
        self.ids.write(folder, IDS)
        self.titles.write(folder, TITLES)

    def __len__(self) -> int:
        return len(self.entities_E)

    def numbers_of(self, ids: Sequence[EntityId]) -> np.ndarray:
        """The number of each entity, OUTSIDE where it has none; int64."""
        distinct, known_I = list(dict.fromkeys(ids)), self.number_of_I
        hashes_d = np.fromiter(map(_hash, distinct), np.uint64, len(distinct))
        places_d = np.minimum(np.searchsorted(known_I["hash"], hashes_d), len(known_I) - 1)
        numbers_d = known_I["number"][places_d].tolist()
        # An unknown id has some other one's place, and two ids may have one hash by chance.
        number_of = {name: n if self.ids[n] == name else OUTSIDE for name, n in zip(distinct, numbers_d, strict=True)}
        return np.fromiter((number_of[name] for name in ids), np.int64, len(ids))

    def rows_of(self, entities_n: np.ndarray, language: str) -> np.ndarray:
        """The row of each entity in `language`, or else in the first language that has it, or else -1; int32."""
        keys, order = self._keys
        count, entities_n = len(self.languages), np.asarray(entities_n, np.int64)
        number = self.languages.index(language) if language in self.languages else 0
        exact_n = np.minimum(np.searchsorted(keys, entities_n * count + number), len(keys) - 1)
        first_n = np.minimum(np.searchsorted(keys, entities_n * count), len(keys) - 1)
        in_language_n = keys[exact_n] == entities_n * count + number
        in_any_n = keys[first_n] // count == entities_n
        return np.where(in_language_n, order[exact_n], np.where(in_any_n, order[first_n], -1)).astype(np.int32)

    def titles_of(self, entity: int) -> list[str]:
        """The titles of an entity in all languages that have it, in their order."""
        keys, order = self._keys
        first, last = np.searchsorted(keys, np.array([entity, entity + 1]) * len(self.languages))
        return [self.titles[row] for row in order[first:last]]

    @functools.cached_property
    def _keys(self) -> tuple[np.ndarray, np.ndarray]:
        """Entity and language as one number a row, sorted, and the rows in that order."""
        keys_E = self.entities_E.astype(np.int64) * len(self.languages) + self.languages_E
        order = np.argsort(keys_E, kind="stable")
        return keys_E[order], order


class KnowledgeBaseWriter:
    """Writes entities row by row, the first of each entity and language only.

    `languages` are those of all entities, in the order of preference, or else come in the order of the entities.

    Attributes:
      counts: how many rows each language has.
      duplicates: how many entities each language had twice.
    """

    def __init__(self, folder: str | os.PathLike, languages: Sequence[str]):
        self._folder = pathlib.Path(folder)
        self._file = open(self._folder / FILE, "wb")
        self._languages = {language: number for number, language in enumerate(languages)}
        self._rows: dict[tuple[EntityId, int], str] = {}
        self.counts = dict.fromkeys(languages, 0)
        self.duplicates = dict.fromkeys(languages, 0)

    def add(self, entities: Iterable[Entity]) -> None:
        for entity in entities:
            if entity.language not in self._languages:
                self._languages[entity.language] = len(self._languages)
                self.counts[entity.language] = self.duplicates[entity.language] = 0
            key = entity.entity_id, self._languages[entity.language]
            if key in self._rows:
                self.duplicates[entity.language] += 1
                continue
            self._rows[key] = entity.title
            self.counts[entity.language] += 1
            self._file.write(orjson.dumps(_record(entity), option=orjson.OPT_APPEND_NEWLINE))

    def keep_most_linked(self, links: Mapping[tuple[EntityId, str], int]) -> list[tuple[str, str, EntityId]]:
        """Leaves each entity one row: that of the language which links to it most; of equal ones the first language.

        Args:
          links: how often each language links to each entity.

        Returns:
          title, language and entity of the rows that are left out.
        """
        names = list(self._languages)
        best: dict[EntityId, tuple[int, int]] = {}
        for entity_id, language in self._rows:
            of_row = -links.get((entity_id, names[language]), 0), language
            best[entity_id] = min(best.get(entity_id, of_row), of_row)
        out = [(title, *key) for key, title in self._rows.items() if best[key[0]][1] != key[1]]
        self._file.close()
        everything = self._folder / f"all-{FILE}"
        os.rename(self._folder / FILE, everything)
        self._file = open(self._folder / FILE, "wb")
        with open(everything, "rb") as file:
            for (entity_id, language), line in zip(self._rows, file, strict=True):
                if best[entity_id][1] == language:
                    self._file.write(line)
        everything.unlink()
        for _, entity_id, language in out:
            del self._rows[entity_id, language]
            self.counts[names[language]] -= 1
        return [(title, names[language], entity_id) for title, entity_id, language in out]

    def close(self, linked: Iterable[EntityId] = ()) -> KnowledgeBase:
        """Finishes the files.

        Args:
          linked: entities to be numbered whether they have a row or not.

        Raises:
          MelError: there are no rows.
        """
        self._file.close()
        if not self._rows:
            raise MelError("The knowledge base is empty: the input holds no entity of the languages asked for.")
        kb = KnowledgeBase.of(list(self._rows), self._rows.values(), tuple(self._languages), linked)
        kb.write(self._folder)
        return kb


def read_entities(folder: str | os.PathLike) -> Iterator[Entity]:
    """The entities of a knowledge base, row by row, with their descriptions."""
    with open(pathlib.Path(folder) / FILE, "rb") as file:
        for line in file:
            record = orjson.loads(line)
            yield Entity(record["id"], record["language"], record["title"], record["description"])


def _record(entity: Entity) -> dict[str, str]:
    return {
        "id": entity.entity_id, "language": entity.language, "title": entity.title, "description": entity.description,
    }  # fmt: skip


def _by_hash(ids: Sequence[EntityId]) -> np.ndarray:
    table_I = np.empty(len(ids), _HASHED)
    table_I["hash"] = np.fromiter(map(_hash, ids), np.uint64, len(ids))
    table_I["number"] = np.arange(len(ids))
    return np.sort(table_I, order="hash")


def _hash(entity_id: EntityId) -> int:
    return int.from_bytes(hashlib.blake2b(entity_id.encode("utf-8"), digest_size=8).digest())
