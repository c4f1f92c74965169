"""The alias table: which entities a surface form was linked to, and how often."""

from __future__ import annotations

import itertools
import os
import pathlib
from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

import orjson

from mel.types import Candidate, MelError, Mention, Qid

FILE = "aliases.jsonl"

Ambiguity = Literal["unseen", "unambiguous", "ambiguous"]

# Of (surface form, language, gold); the counts of several parts are merged by `update`.
AliasCounts = Counter[tuple[str, str, Qid]]


class _Row(NamedTuple):
    language: str
    qids: tuple[Qid, ...]
    counts: tuple[int, ...]


def count_aliases(mentions: Iterable[Mention]) -> AliasCounts:
    """Counts how often each surface form of each language is linked to each QID."""
    return Counter((mention.surface_form, mention.language, mention.gold) for mention in mentions)


def write(folder: str | os.PathLike, counts: AliasCounts) -> int:
    """Writes one JSON line for each surface form and language, sorted, its most frequent QID first.

    Returns:
      How many lines there are.
    """
    lines = 0
    ordered = sorted(counts.items(), key=lambda item: (item[0][0], item[0][1], -item[1], item[0][2]))
    with open(pathlib.Path(folder) / FILE, "wb") as file:
        for (surface_form, language), items in itertools.groupby(ordered, key=lambda item: item[0][:2]):
            qids, numbers = zip(*((qid, number) for (_, _, qid), number in items))
            row = {"surface_form": surface_form, "language": language, "qids": qids, "counts": numbers}
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            lines += 1
    return lines


class AliasTable:
    """Surface form -> candidates, by their share of the links.

    Example:
      table = AliasTable.read(folder)
      table.candidates("Paris")  # (Candidate(qid=90, score=0.9), Candidate(qid=663094, score=0.1))
    """

    def __init__(self):
        self._rows: dict[str, list[_Row]] = {}
        self._by_lower_case: dict[str, list[str]] = {}

    @classmethod
    def read(cls, folder: str | os.PathLike) -> AliasTable:
        """Reads what `write` wrote.

        Raises:
          MelError: the file is missing or damaged.
        """
        table, path, number = cls(), pathlib.Path(folder) / FILE, 0
        try:
            with open(path, "rb") as file:
                for number, line in enumerate(file, 1):
                    row = orjson.loads(line)
                    table._add(row["surface_form"], _Row(row["language"], tuple(row["qids"]), tuple(row["counts"])))
        except OSError as error:
            raise MelError(f"The alias table {path} cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise MelError(f"{path}:{number} is damaged: delete {folder} and make it again.") from error
        return table

    def candidates(self, surface_form: str, language: str | None = None) -> tuple[Candidate, ...]:
        """All entities that a surface form was linked to, best first.

        Args:
          surface_form: looked up as it is; if it was never linked, lower-cased, among all surface forms lower-cased.
          language: count the links of this language only; of all languages if None.

        Returns:
          Candidates whose scores are their shares of the links; the smaller QID is first among equals.
        """
        counts = self._count([surface_form], language)
        counts = counts or self._count(self._by_lower_case.get(surface_form.lower(), []), language)
        best_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple(Candidate(qid, count / counts.total()) for qid, count in best_first)

    def ambiguity(self, surface_form: str) -> Ambiguity:
        """Whether a surface form, lower-cased, was linked to no, one or several entities in any language."""
        match len(self._count(self._by_lower_case.get(surface_form.lower(), []), None)):
            case 0:
                return "unseen"
            case 1:
                return "unambiguous"
            case _:
                return "ambiguous"

    def _add(self, surface_form: str, row: _Row) -> None:
        if surface_form not in self._rows:
            self._rows[surface_form] = []
            self._by_lower_case.setdefault(surface_form.lower(), []).append(surface_form)
        self._rows[surface_form].append(row)

    def _count(self, surface_forms: list[str], language: str | None) -> Counter[Qid]:
        counts: Counter[Qid] = Counter()
        for surface_form in surface_forms:
            for row in self._rows.get(surface_form, []):
                if language in (None, row.language):
                    counts.update(dict(zip(row.qids, row.counts)))
        return counts
