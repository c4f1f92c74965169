"""A knowledge base and an alias table in two layers: a large one, never written again, and what came later.

Rows of the later layer follow those of the base, and numbers of new entities those of all others, so nothing that
was said of the base becomes untrue. A row of the base that is no more is hidden: it means NIL, which no search
answers, and no id or title finds it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mel.corpora.kb import EntityRows, KnowledgeBase
from mel.corpora.shapes import Shapes
from mel.corpora.strings import Hashes, Strings
from mel.types import NIL

Line = tuple[str, int, int]  # language, entity, count
Spellings = dict[str, list[Line]]


class LayeredStrings(Strings):
    """Strings, and more of them."""

    def __init__(self, base: Strings, more: Strings):
        self._base, self._more = base, more

    def __len__(self) -> int:
        return len(self._base) + len(self._more)

    def __getitem__(self, row: int) -> str:
        return self._base[row] if row < len(self._base) else self._more[row - len(self._base)]

    def __iter__(self) -> Iterator[str]:
        return itertools.chain(self._base, self._more)


class LayeredHashes(Hashes):
    """Finds rows of both layers by a key.

    Args:
      base: finds those of the base.
      more: finds those of the later layer.
      base_rows: how many the base has.
      is_hidden: whether a row of the base is to be found no more.
    """

    def __init__(
        self, base: Hashes, more: Hashes, base_rows: int, is_hidden: Callable[[int], bool] = lambda row: False
    ):
        self._base, self._more, self._base_rows, self._is_hidden = base, more, base_rows, is_hidden

    def __len__(self) -> int:
        return len(self._base) + len(self._more)

    def rows(self, key: str) -> list[int]:
        return self.rows_of([key])[0]

    def rows_of(self, keys: Sequence[str]) -> list[list[int]]:
        return [
            [*itertools.filterfalse(self._is_hidden, rows), *(row + self._base_rows for row in more)]
            for rows, more in zip(self._base.rows_of(keys), self._more.rows_of(keys), strict=True)
        ]


class LayeredShapes(Shapes):
    """The shapes of both layers, of which only `levels` can be asked."""

    layers: tuple[Shapes, Shapes]

    def __new__(cls, base: Shapes, more: Shapes):
        shapes = super().__new__(cls, *more)
        shapes.layers = base, more
        return shapes

    def levels(self, string: str, bounds: Sequence[float]) -> np.ndarray:
        return np.concatenate([layer.levels(string, bounds) for layer in self.layers])


class LaterRows(NamedTuple):
    """What came after a knowledge base of E rows was made.

    Attributes:
      entities_M, languages_M: int32, the number of each later row's entity, and the number of its language.
      languages: those of the base, and new ones after them.
      titles: of the later rows.
      new_ids: of the entities that the base has no number for, in the order of their numbers.
      hidden_H: int32, rows of the base that are no more, ascending.
    """

    entities_M: np.ndarray
    languages_M: np.ndarray
    languages: tuple[str, ...]
    titles: Strings
    new_ids: Strings
    hidden_H: np.ndarray

    @classmethod
    def none(cls, base: KnowledgeBase) -> LaterRows:
        """Nothing came later."""
        no_rows = np.zeros(0, np.int32)
        return cls(no_rows, no_rows, tuple(base.languages), Strings.of([]), Strings.of([]), no_rows)


@dataclasses.dataclass(frozen=True, eq=False)
class LayeredKnowledgeBase(KnowledgeBase):
    """A knowledge base and what came later, as one.

    Attributes:
      base: the knowledge base as it was made.
    """

    base: KnowledgeBase

    @classmethod
    def join(cls, base: KnowledgeBase, later: LaterRows) -> LayeredKnowledgeBase:
        """Both layers; of the columns only numbers are copied, 20 bytes a row."""
        entities_E = np.concatenate([base.entities_E, later.entities_M]).astype(np.int32)
        entities_E[later.hidden_H] = NIL
        languages_E = np.concatenate([base.languages_E, later.languages_M]).astype(np.int32)
        order_E = base.entity_rows.order_E
        order_E = order_E[~_isin(order_E, later.hidden_H)]
        order_E = np.concatenate([order_E, len(base) + np.arange(len(later.entities_M), dtype=np.int32)])
        keys_E = entities_E[order_E].astype(np.int64) * len(later.languages) + languages_E[order_E]
        sorted_E = np.argsort(keys_E, kind="stable")  # the base's are sorted already, so this only merges
        hidden = frozenset(later.hidden_H.tolist())
        by_title = Hashes.of(title.lower() for title in later.titles)
        return cls(
            entities_E, languages_E, later.languages,
            LayeredStrings(base.ids, later.new_ids),
            LayeredStrings(base.titles, later.titles),
            LayeredHashes(base.by_id, Hashes.of(later.new_ids), len(base.ids)),
            LayeredHashes(base.by_title, by_title, len(base), hidden.__contains__),
            LayeredShapes(base.title_shapes, Shapes.of(later.titles)),
            EntityRows(keys_E[sorted_E], order_E[sorted_E], len(later.languages)),
            base,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class JoinedLookup:
    """What several lookups of an alias table know, together."""

    lookups: Sequence[Any]

    @property
    def strings(self) -> Iterable[str]:
        return itertools.chain.from_iterable(lookup.strings for lookup in self.lookups)

    def shaped(self) -> list[tuple[Strings, Shapes]]:
        """The strings of each, with their shapes."""
        return [(lookup.strings, lookup.shapes) for lookup in self.lookups]

    def spellings(self, string: str) -> Spellings:
        found: Spellings = {}
        for lookup in self.lookups:
            for spelling, lines in lookup.spellings(string).items():
                found.setdefault(spelling, []).extend(lines)
        return found

    def strings_in(self, language: str) -> Iterator[str]:
        return itertools.chain.from_iterable(lookup.strings_in(language) for lookup in self.lookups)


@dataclasses.dataclass(frozen=True)
class LookupWithout:
    """A lookup without what some languages say of some entities, which have other names now."""

    lookup: Any
    replaced: Collection[tuple[str, int]]

    @property
    def strings(self) -> Strings:
        return self.lookup.strings

    @property
    def shapes(self) -> Shapes:
        return self.lookup.shapes

    def spellings(self, string: str) -> Spellings:
        return {spelling: self._kept(lines) for spelling, lines in self.lookup.spellings(string).items()}

    def strings_in(self, language: str) -> Iterator[str]:
        for string in self.lookup.strings_in(language):
            if any(line[0] == language for line in self._kept(self.lookup.spellings(string)[string])):
                yield string

    def _kept(self, lines: Sequence[Line]) -> list[Line]:
        return [line for line in lines if line[:2] not in self.replaced]


def _isin(rows_n: np.ndarray, sorted_H: np.ndarray) -> np.ndarray:
    """Whether each row is among sorted ones."""
    if not len(sorted_H):
        return np.zeros(len(rows_n), bool)
    return sorted_H[np.minimum(np.searchsorted(sorted_H, rows_n), len(sorted_H) - 1)] == rows_n
