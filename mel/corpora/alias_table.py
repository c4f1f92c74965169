"""The alias table: which entities a surface form was linked to, and how often; by lemma, too.

Beside the links stand the names that the archives give an entity (label, aliases, redirects). They
say what an entity may be called but not how often, so only `AliasTable.prior` knows them.

links.npy, links_ends.npy         the distinct surface forms, sorted by their code points (`Strings`)
links_lines.npy                   language, entity and count (`LINE`), the lines of a surface form together: by language
                                  in the order of its name, the greatest count first, of equal ones the smallest entity
links_line_ends.npy               where the lines of each surface form end
links_hashes.npy, links_rows.npy  finds surface forms by how they are lower-cased (`Hashes`)
links_once.npy, links_twice.npy, links_lengths.npy
                                  the shapes of surface forms (`Shapes`)
lemmas*.npy, names*.npy           the same of the lemmas of links, and of names
alias_languages*.npy              the languages that lines count
linked.npy                        the entities that were linked, ascending

All of it is mapped into memory, so that opening costs nothing and only what is asked for is read. The titles of the
knowledge base, which join the names, are found by a column of its own.
"""

from __future__ import annotations

import array
import itertools
import os
import pathlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from mel.corpora.columns import ColumnWriter, read_column
from mel.corpora.kb import KnowledgeBase
from mel.corpora.layers import JoinedLookup, LookupWithout
from mel.corpora.shapes import Shapes, ShapesWriter
from mel.corpora.strings import Hashes, Strings, StringsWriter, hash_of
from mel.types import Candidate, EntityId, MelError, Mention

LINKS, LEMMAS, NAMES = COLUMNS = ("links", "lemmas", "names")
LANGUAGES, LINKED = "alias_languages", "linked"
LINE = np.dtype([("language", np.int16), ("entity", np.int32), ("count", np.int32)])

Ambiguity = Literal["unseen", "unambiguous", "ambiguous"]

# Of (string, language, entity); the counts of several parts are merged by `update`.
AliasCounts = Counter[tuple[str, str, EntityId]]
_Line = tuple[str, int, int]  # language, entity, count
_Spellings = dict[str, list[_Line]]


class Counts(NamedTuple):
    """What a table is made from: links by surface form and by lemma, and the entities' names."""

    links: AliasCounts
    lemmas: AliasCounts
    names: AliasCounts


def count_aliases(mentions: Iterable[Mention]) -> AliasCounts:
    """Counts how often each surface form of each language is linked to each entity."""
    return Counter((mention.surface_form, mention.language, mention.gold) for mention in mentions)


def count_lemmas(mentions: Iterable[Mention]) -> AliasCounts:
    """Counts how often each lemma of each language is linked to each entity; mentions without one do not count."""
    return Counter((mention.lemma, mention.language, mention.gold) for mention in mentions if mention.lemma)


def write(folder: str | os.PathLike, counts: Counts, numbers: Mapping[EntityId, int]) -> int:
    """Writes the columns of links, lemmas and names.

    Args:
      folder: where.
      counts: what was counted.
      numbers: those of all entities in `counts`; the smaller one is first among equals.

    Returns:
      How many surface forms were linked, counted once in each language.
    """
    writer = AliasTableWriter(folder)
    totals = [writer.write(name, _sorted_lines(each, numbers)) for name, each in zip(COLUMNS, counts, strict=True)]
    writer.close()
    return totals[0]


def _sorted_lines(counts: AliasCounts, numbers: Mapping[EntityId, int]) -> Iterator[tuple[str, str, int, int]]:
    numbered = ((string, language, -count, numbers[name]) for (string, language, name), count in counts.items())
    return ((string, language, entity, -count) for string, language, count, entity in sorted(numbered))


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


class _Lookup(NamedTuple):
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
    languages: Sequence[str]

    @classmethod
    def read(cls, folder: pathlib.Path, name: str, languages: Sequence[str]) -> _Lookup:
        strings, by_lower_case = Strings.read(folder, name), Hashes.read(folder, name)
        shapes = Shapes.read(folder, name)
        ends_S, lines_P = (read_column(folder / f"{name}_{each}.npy") for each in ("line_ends", "lines"))
        if lines_P.dtype != LINE or not len(strings) == len(by_lower_case) == len(ends_S) == len(shapes.lengths_N):
            raise ValueError("the columns do not belong together")
        return cls(strings, shapes, by_lower_case, ends_S, lines_P, languages)

    def spellings(self, string: str) -> _Spellings:
        """The strings that are the same when lower-cased, in order, and the lines of each."""
        lowered, found = string.lower(), {}
        for row in self.by_lower_case.rows(lowered):
            spelling = self.strings[row]
            if spelling.lower() == lowered:
                found[spelling] = self._lines(row)
        return found

    def lines_in(self, language: str) -> Iterator[tuple[str, list[_Line]]]:
        """All strings of a language, sorted, and the lines of each in it."""
        if language in self.languages:
            places = np.flatnonzero(self.lines_P["language"] == self.languages.index(language))
            for row in np.unique(np.searchsorted(self.ends_S, places, side="right")).tolist():
                yield self.strings[row], [line for line in self._lines(row) if line[0] == language]

    def _lines(self, row: int) -> list[_Line]:
        lines = self.lines_P[self.ends_S[row - 1] if row else 0 : self.ends_S[row]].tolist()
        return [(self.languages[language], entity, count) for language, entity, count in lines]


class _Titles(NamedTuple):
    """The titles of a knowledge base, each counted once for its row, as a `_Lookup`."""

    kb: KnowledgeBase

    @property
    def strings(self) -> Strings:
        return self.kb.titles

    @property
    def shapes(self) -> Shapes:
        return self.kb.title_shapes

    def spellings(self, string: str) -> _Spellings:
        lowered, found = string.lower(), {}
        for row in self.kb.by_title.rows(lowered):
            if (title := self.kb.titles[row]).lower() == lowered:
                found.setdefault(title, []).append(self._line(row))
        return found

    def lines_in(self, language: str) -> Iterator[tuple[str, list[_Line]]]:
        if language in self.kb.languages:
            rows = np.flatnonzero(self.kb.languages_E == self.kb.languages.index(language)).tolist()
            titles = sorted((self.kb.titles[row], row) for row in rows)
            yield from ((title, [self._line(row)]) for title, row in titles)

    def _line(self, row: int) -> _Line:
        return self.kb.languages[self.kb.languages_E[row]], int(self.kb.entities_E[row]), 1


class AliasTable:
    """Surface form -> candidates, by their share of the links.

    Example:
      table = AliasTable.read(folder)
      table.candidates("Paris")  # (Candidate(entity=90, score=0.9), Candidate(entity=663094, score=0.1))
    """

    def __init__(
        self, links: _Lookup | JoinedLookup, lemmas: _Lookup | JoinedLookup, names: _Lookup | JoinedLookup,
        linked: np.ndarray,
    ):  # fmt: skip
        self._links, self._lemmas, self._linked = links, lemmas, linked
        self._names: list[_Lookup | _Titles | JoinedLookup] = [names]

    @classmethod
    def read(cls, folder: str | os.PathLike) -> AliasTable:
        """Maps what `write` wrote.

        Raises:
          MelError: a file is missing or damaged.
        """
        folder = pathlib.Path(folder)
        try:
            languages = list(Strings.read(folder, LANGUAGES))
            lookups = [_Lookup.read(folder, name, languages) for name in COLUMNS]
            return cls(*lookups, read_column(folder / f"{LINKED}.npy"))
        except OSError as error:
            raise MelError(f"The alias table {folder} cannot be read: {error.strerror or error}.") from error
        except (ValueError, EOFError) as error:
            raise MelError(f"{folder} is damaged ({error}): delete it and make it again.") from error

    def joined(self, later: AliasTable, kb: KnowledgeBase, replaced: Collection[tuple[str, int]]) -> AliasTable:
        """This table, without titles, and what came later, with the titles of `kb`.

        Args:
          later: counts the same entities.
          kb: both layers of the knowledge base.
          replaced: language and entity of the names here that are none any more.
        """
        both = (JoinedLookup([self._links, later._links]), JoinedLookup([self._lemmas, later._lemmas]))
        names = JoinedLookup([LookupWithout(self._names[0], replaced), later._names[0]])
        table = AliasTable(*both, names, np.union1d(self._linked, later._linked))
        table.add_titles(kb)
        return table

    def lines(self, name: str) -> Iterator[tuple[str, list[_Line]]]:
        """The strings of one of `COLUMNS`, sorted, and the lines of each; titles are not among them."""
        lookup = dict(zip(COLUMNS, (self._links, self._lemmas, self._names[0]), strict=True))[name]
        return ((string, lookup.spellings(string)[string]) for string in sorted(set(lookup.strings)))

    def add_titles(self, kb: KnowledgeBase) -> None:
        """Adds the titles of a knowledge base to the names."""
        self._names.append(_Titles(kb))

    def candidates(self, surface_form: str, language: str | None = None, lemma: str = "") -> tuple[Candidate, ...]:
        """All entities that a surface form was linked to, best first.

        Args:
          surface_form: looked up as it is; if it was never linked, lower-cased, among all surface forms lower-cased.
          language: count the links of this language only; of all languages if None.
          lemma: looked up among the lemmas of the links if the surface form lower-cased was never linked either;
            "" where it is unknown, as in Mewsli-9, which has no lemmas.

        Returns:
          Candidates whose scores are their shares of the links; the smaller number is first among equals.
        """
        linked = self._links.spellings(surface_form)
        counts = _exact(linked, surface_form, language) or _lower(linked, language)
        counts = counts or _lower(self._lemmas.spellings(lemma), language)
        best_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple(Candidate(entity, count / counts.total()) for entity, count in best_first)

    def prior(
        self, surface_form: str, language: str, lemma: str = "", with_names: bool = True, outside: float = 0.0
    ) -> tuple[dict[int, float], float]:
        """How probable each entity is before the context is read, from the narrowest evidence that there is.

        Levels of evidence, from the broadest: names (as they are, or else lower-cased), lemmas, the
        surface form lower-cased, as it is, and as it is in `language`. Each level with counts c that
        sum to n turns the probability p of the levels before it into (c + p) / (n + 1), which is
        smoothing with a Dirichlet prior (MacKay and Peto 1995) of weight 1. One link more always
        outweighs all broader evidence, so the order is that of looking the levels up one after the
        other, narrowest first.

        Args:
          surface_form: of a mention.
          language: of the mention.
          lemma: of the surface form, "" if unknown.
          with_names: whether names count, too.
          outside: the probability of an entity before any evidence.

        Returns:
          {entity: probability} of the entities with evidence, and the probability of any other.
        """
        named = _joined(self._names, surface_form) if with_names else {}
        linked = self._links.spellings(surface_form)
        levels = (
            _exact(named, surface_form) or _lower(named), _lower(self._lemmas.spellings(lemma)), _lower(linked),
            _exact(linked, surface_form), _exact(linked, surface_form, language),
        )  # fmt: skip
        prior: dict[int, float] = {}
        for counts in levels:
            total = counts.total() + 1
            prior = {entity: (counts[entity] + prior.get(entity, outside)) / total for entity in prior | counts}
            outside /= total
        return prior, outside

    def ambiguity(self, surface_form: str) -> Ambiguity:
        """Whether a surface form, lower-cased, was linked to no, one or several entities in any language."""
        match len(_lower(self._links.spellings(surface_form))):
            case 0:
                return "unseen"
            case 1:
                return "unambiguous"
            case _:
                return "ambiguous"

    def surface_forms(self, with_names: bool = False) -> list[str]:
        """All distinct surface forms that were linked, and all names if asked, sorted."""
        lookups = [self._links, *(self._names if with_names else [])]
        return sorted({string for lookup in lookups for string in lookup.strings})

    def shaped(self) -> list[tuple[Strings, Shapes]]:
        """All surface forms that were linked, and all names, in columns, with their shapes."""
        lookups = (self._links, *self._names)
        return [shaped for lookup in lookups for shaped in _shaped(lookup)]

    def aliases_in(self, language: str) -> dict[str, list[int]]:
        """What a language calls its entities, names among it: those linked most often first, then those named so.

        Of equal ones the smaller number is first.
        """
        links = {string: _counted(lines) for string, lines in self._links.lines_in(language)}
        names: dict[str, Counter[int]] = {}
        for lookup in self._names:
            for string, lines in lookup.lines_in(language):
                names.setdefault(string, Counter()).update(_counted(lines))
        found: dict[str, list[int]] = {}
        for string in sorted({*links, *names}):
            linked = links.get(string, Counter())
            found[string] = sorted(linked | names.get(string, Counter()), key=lambda entity: (-linked[entity], entity))
        return found

    def is_linked(self, entities_n: np.ndarray | Sequence[int]) -> np.ndarray:
        """Whether each entity was linked at all, bool [n]."""
        if not len(self._linked):
            return np.zeros(len(entities_n), bool)
        places_n = np.searchsorted(self._linked, entities_n)
        return self._linked[np.minimum(places_n, len(self._linked) - 1)] == entities_n


def _shaped(lookup: _Lookup | _Titles | JoinedLookup) -> list[tuple[Strings, Shapes]]:
    return lookup.shaped() if isinstance(lookup, JoinedLookup) else [(lookup.strings, lookup.shapes)]


def _joined(lookups: Iterable[_Lookup | _Titles | JoinedLookup], string: str) -> _Spellings:
    """The spellings of all of them together."""
    found: _Spellings = {}
    for lookup in lookups:
        for spelling, lines in lookup.spellings(string).items():
            found.setdefault(spelling, []).extend(lines)
    return found


def _exact(spellings: _Spellings, string: str, language: str | None = None) -> Counter[int]:
    """The counts of a string as it is, in one language or in all of them together."""
    return _counted(spellings.get(string, ()), language)


def _lower(spellings: _Spellings, language: str | None = None) -> Counter[int]:
    """The counts of all strings that are the same when lower-cased."""
    return _counted(itertools.chain.from_iterable(spellings.values()), language)


def _counted(lines: Iterable[_Line], language: str | None = None) -> Counter[int]:
    counts: Counter[int] = Counter()
    for of_line, entity, count in lines:
        if language in (None, of_line):
            counts[entity] += count
    return counts
