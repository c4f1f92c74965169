"""The knowledge base on disk: one row an entity and language, addressed by position."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import orjson

from mel.types import Entity, MelError, format_qid, parse_qid

FILE = "entities.jsonl"


@dataclasses.dataclass(frozen=True, eq=False)
class KnowledgeBase:
    """Which entity stands in which row.

    Attributes:
      qids_E: int64, the QID of each row.
      languages_E: int32, the position of each row's language in `languages`.
      languages: in the order of preference where an entity lacks the language that is asked for.
    """

    qids_E: np.ndarray
    languages_E: np.ndarray
    languages: tuple[str, ...]

    @classmethod
    def read(cls, folder: str | os.PathLike, languages: Sequence[str]) -> KnowledgeBase:
        """Reads the rows' QIDs and languages, memory mapped."""
        arrays = (np.load(pathlib.Path(folder) / f"{name}.npy", mmap_mode="r") for name in ("qids", "languages"))
        return cls(*arrays, tuple(languages))

    def rows_of(self, qids_n: np.ndarray, language: str) -> np.ndarray:
        """The row of each QID in `language`, or else in the first language that has it, or else -1; int32."""
        keys, order = self._keys
        count, qids_n = len(self.languages), np.asarray(qids_n, np.int64)
        number = self.languages.index(language) if language in self.languages else 0
        exact_n = np.minimum(np.searchsorted(keys, qids_n * count + number), len(keys) - 1)
        first_n = np.minimum(np.searchsorted(keys, qids_n * count), len(keys) - 1)
        in_language_n = keys[exact_n] == qids_n * count + number
        in_any_n = keys[first_n] // count == qids_n
        return np.where(in_language_n, order[exact_n], np.where(in_any_n, order[first_n], -1)).astype(np.int32)

    @functools.cached_property
    def _keys(self) -> tuple[np.ndarray, np.ndarray]:
        """QID and language as one number a row, sorted, and the rows in that order."""
        keys_E = self.qids_E.astype(np.int64) * len(self.languages) + self.languages_E
        order = np.argsort(keys_E, kind="stable")
        return keys_E[order], order


class KnowledgeBaseWriter:
    """Writes entities row by row, the first of each QID and language only.

    Attributes:
      counts: how many rows each language has.
      duplicates: how many entities each language had twice.
    """

    def __init__(self, folder: str | os.PathLike, languages: Sequence[str]):
        self._folder = pathlib.Path(folder)
        self._file = open(self._folder / FILE, "wb")
        self._languages = {language: number for number, language in enumerate(languages)}
        self._qids: list[int] = []
        self._numbers: list[int] = []
        self._seen: set[int] = set()
        self.counts = dict.fromkeys(languages, 0)
        self.duplicates = dict.fromkeys(languages, 0)

    def add(self, entities: Iterable[Entity]) -> None:
        for entity in entities:
            number = self._languages[entity.language]
            key = entity.qid * len(self._languages) + number
            if key in self._seen:
                self.duplicates[entity.language] += 1
                continue
            self._seen.add(key)
            self._qids.append(entity.qid)
            self._numbers.append(number)
            self.counts[entity.language] += 1
            record = dataclasses.asdict(entity) | {"qid": format_qid(entity.qid)}
            self._file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> int:
        """Finishes the files; returns the number of rows.

        Raises:
          MelError: there are none.
        """
        self._file.close()
        if not self._qids:
            raise MelError("The knowledge base is empty: the archives hold no entity of the languages asked for.")
        np.save(self._folder / "qids.npy", np.asarray(self._qids, np.int64))
        np.save(self._folder / "languages.npy", np.asarray(self._numbers, np.int32))
        return len(self._qids)


def read_entities(folder: str | os.PathLike) -> Iterator[Entity]:
    """The entities of a knowledge base, row by row."""
    with open(pathlib.Path(folder) / FILE, "rb") as file:
        for line in file:
            record = orjson.loads(line)
            yield Entity(parse_qid(record["qid"]), record["language"], record["title"], record["description"])
