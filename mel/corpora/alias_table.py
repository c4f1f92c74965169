"""The alias table: which entities a surface form was linked to, and how often; by lemma, too.

Beside the links stand the names that the archives give an entity (label, aliases, redirects). They
say what an entity may be called but not how often, so only `AliasTable.prior` knows them.
"""

from __future__ import annotations

import itertools
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import orjson

from mel.corpora.kb import KnowledgeBase
from mel.types import Candidate, EntityId, MelError, Mention

FILES = ("aliases.jsonl", "lemmas.jsonl", "names.jsonl")  # of links, of lemmas, of names

Ambiguity = Literal["unseen", "unambiguous", "ambiguous"]

# Of (string, language, entity); the counts of several parts are merged by `update`.
AliasCounts = Counter[tuple[str, str, EntityId]]


class Counts(NamedTuple):
    """What a table is made from: links by surface form and by lemma, and the entities' names."""

    links: AliasCounts
    lemmas: AliasCounts
    names: AliasCounts


class _Row(NamedTuple):
    language: str
    entities: tuple[int, ...]
    counts: tuple[int, ...]


def count_aliases(mentions: Iterable[Mention]) -> AliasCounts:
    """Counts how often each surface form of each language is linked to each entity."""
    return Counter((mention.surface_form, mention.language, mention.gold) for mention in mentions)


def count_lemmas(mentions: Iterable[Mention]) -> AliasCounts:
    """Counts how often each lemma of each language is linked to each entity; mentions without one do not count."""
    return Counter((mention.lemma, mention.language, mention.gold) for mention in mentions if mention.lemma)


def write(folder: str | os.PathLike, counts: Counts, numbers: Mapping[EntityId, int]) -> int:
    """Writes a file each for links, lemmas and names.

    Args:
      folder: where.
      counts: what was counted.
      numbers: those of all entities in `counts`; in the files, the smaller one is first among equals.

    Returns:
      How many surface forms were linked, counted once in each language.
    """
    lines = [_write(pathlib.Path(folder) / name, each, numbers) for name, each in zip(FILES, counts, strict=True)]
    return lines[0]


def _write(path: pathlib.Path, counts: AliasCounts, numbers: Mapping[EntityId, int]) -> int:
    """Writes one JSON line for each string and language, sorted, its most frequent entity first."""
    lines = 0
    numbered = ((string, language, -count, numbers[name]) for (string, language, name), count in counts.items())
    with open(path, "wb") as file:
        for (string, language), items in itertools.groupby(sorted(numbered), key=lambda item: item[:2]):
            entities, shares = zip(*((entity, -count) for _, _, count, entity in items), strict=True)
            row = {"surface_form": string, "language": language, "entities": entities, "counts": shares}
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            lines += 1
    return lines


class _Lookup:
    """String -> how often it means which entity."""

    def __init__(self):
        self._rows: dict[str, list[_Row]] = {}
        self._by_lower_case: dict[str, list[str]] = {}

    def add(self, string: str, row: _Row) -> None:
        if string not in self._rows:
            self._rows[string] = []
            self._by_lower_case.setdefault(string.lower(), []).append(string)
        self._rows[string].append(row)

    def exact(self, string: str, language: str | None = None) -> Counter[int]:
        """The counts in one language, or in all of them together."""
        counts: Counter[int] = Counter()
        for row in self._rows.get(string, []):
            if language in (None, row.language):
                counts.update(dict(zip(row.entities, row.counts, strict=True)))
        return counts

    def lower(self, string: str, language: str | None = None) -> Counter[int]:
        """The counts of all strings that are the same when lower-cased."""
        strings = self._by_lower_case.get(string.lower(), [])
        return sum((self.exact(each, language) for each in strings), Counter())

    def strings(self, language: str | None = None) -> list[str]:
        """Those of one language, or all, sorted."""
        return sorted(
            string
            for string, rows in self._rows.items()
            if language is None or any(row.language == language for row in rows)
        )

    def entities(self) -> set[int]:
        return {entity for rows in self._rows.values() for row in rows for entity in row.entities}


class AliasTable:
    """Surface form -> candidates, by their share of the links.

    Example:
      table = AliasTable.read(folder)
      table.candidates("Paris")  # (Candidate(entity=90, score=0.9), Candidate(entity=663094, score=0.1))
    """

    def __init__(self):
        self._links, self._lemmas, self._names = _Lookup(), _Lookup(), _Lookup()

    @classmethod
    def read(cls, folder: str | os.PathLike) -> AliasTable:
        """Reads what `write` wrote.

        Raises:
          MelError: a file is missing or damaged.
        """
        table = cls()
        for name, lookup in zip(FILES, (table._links, table._lemmas, table._names), strict=True):
            for string, row in _read(pathlib.Path(folder) / name):
                lookup.add(string, row)
        return table

    def add_titles(self, kb: KnowledgeBase) -> None:
        """Adds the titles of a knowledge base to the names."""
        languages = (kb.languages[place] for place in kb.languages_E.tolist())
        for title, language, entity in zip(kb.titles, languages, kb.entities_E.tolist(), strict=True):
            self._names.add(title, _Row(language, (entity,), (1,)))

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
        counts = self._links.exact(surface_form, language) or self._links.lower(surface_form, language)
        counts = counts or self._lemmas.lower(lemma, language)
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
        names = (self._names.exact(surface_form) or self._names.lower(surface_form)) if with_names else Counter()
        links = self._links
        levels = names, self._lemmas.lower(lemma), links.lower(surface_form), links.exact(surface_form)
        prior: dict[int, float] = {}
        for counts in (*levels, links.exact(surface_form, language)):
            total = counts.total() + 1
            prior = {entity: (counts[entity] + prior.get(entity, outside)) / total for entity in prior | counts}
            outside /= total
        return prior, outside

    def ambiguity(self, surface_form: str) -> Ambiguity:
        """Whether a surface form, lower-cased, was linked to no, one or several entities in any language."""
        match len(self._links.lower(surface_form)):
            case 0:
                return "unseen"
            case 1:
                return "unambiguous"
            case _:
                return "ambiguous"

    def surface_forms(self, with_names: bool = False) -> list[str]:
        """All distinct surface forms that were linked, and all names if asked, sorted."""
        names = self._names.strings() if with_names else []
        return sorted({*self._links.strings(), *names})

    def aliases_in(self, language: str) -> dict[str, list[int]]:
        """What a language calls its entities, names among it: those linked most often first, then those named so.

        Of equal ones the smaller number is first.
        """
        found: dict[str, list[int]] = {}
        strings = {*self._links.strings(language), *self._names.strings(language)}
        for string in sorted(strings):
            links, names = (lookup.exact(string, language) for lookup in (self._links, self._names))
            found[string] = sorted(links | names, key=lambda entity: (-links[entity], entity))
        return found

    def entities(self) -> set[int]:
        """All entities that were linked."""
        return self._links.entities()


def _read(path: pathlib.Path) -> Iterator[tuple[str, _Row]]:
    number = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                row = orjson.loads(line)
                yield row["surface_form"], _Row(row["language"], tuple(row["entities"]), tuple(row["counts"]))
    except OSError as error:
        raise MelError(f"The alias table {path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MelError(f"{path}:{number} is damaged: delete {path.parent} and make it again.") from error
