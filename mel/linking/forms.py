"""The surface forms of a knowledge base: where they occur in a text, and on how many pages each was linked.

forms.marisa                  the folded forms, each with a number
named.npy                     whether a form is a title or another name of an entity, or was only linked
ends.npy                      where the rows of each form end
later.marisa                  folded names that came later, where there are any
gone.npy                      numbers of forms that are looked for no more, where there are any
languages.npy, pages.npy      a language in which pages hold the form, and on how many of them it is linked and found
                              without and with an upper-case letter

The trie is mapped into memory: opening it takes no time, and all processes share it.
"""

from __future__ import annotations

import heapq
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import marisa_trie
import numpy as np

from mel.corpora.columns import read_column
from mel.text.folding import Folded, fold
from mel.types import MelError

TRIE, LATER, GONE = "forms.marisa", "later.marisa", "gone.npy"
COLUMNS = ("named", "ends", "languages", "pages")
MAX_CHARACTERS = 100  # of a folded form; longer ones are titles of works at best


class Found(NamedTuple):
    """A form in a folded text: `text[start:end]` is the form of number `form`."""

    start: int
    end: int
    form: int


class PageCounts(NamedTuple):
    """On how many pages of one language forms occur, [n] each.

    Attributes:
      forms: int64, ascending and distinct.
      pages: uint32 [n, 2, 2]: (linked, found) x (without, with an upper-case letter).
    """

    forms: np.ndarray
    pages: np.ndarray


class FormTrie:
    """Finds forms in texts."""

    def __init__(self, trie: marisa_trie.Trie):
        self._trie = trie

    @classmethod
    def of(cls, forms: Iterable[str]) -> FormTrie:
        """A trie of folded forms, which may come twice and in any order."""
        return cls(marisa_trie.Trie(form for form in forms if is_form(form)))

    @classmethod
    def open(cls, path: str | os.PathLike) -> FormTrie:
        """Maps what `save` wrote.

        Raises:
          MelError: it is no trie.
        """
        try:
            return cls(marisa_trie.Trie().mmap(os.fspath(path)))
        except (RuntimeError, OSError) as error:
            raise MelError(f"{path} cannot be read as a trie: {error}.") from None

    def save(self, path: str | os.PathLike) -> None:
        self._trie.save(os.fspath(path))

    def __len__(self) -> int:
        return len(self._trie)

    def __iter__(self) -> Iterator[str]:
        return self._trie.iterkeys()

    def number(self, form: str) -> int:
        """The number of a folded form, -1 where there is none."""
        return self._trie.get(form, -1)

    def find(self, text: Folded) -> Iterator[Found]:
        """All forms in a text that begin and end where words may, by their start; they may overlap."""
        prefixes = self._trie.iter_prefixes_with_ids
        for start in text.starts():
            for form, number in prefixes(text.text[start : start + MAX_CHARACTERS]):
                if text.ends_at(start + len(form)):
                    yield Found(start, start + len(form), number)


def is_form(form: str) -> bool:
    """Whether a folded text can be looked for: it has a letter or digit, no space at an end, and is not too long."""
    return 0 < len(form) <= MAX_CHARACTERS and form.strip() == form and any(map(str.isalnum, form))


class Forms:
    """Forms and how often they were linked.

    Forms that came later have the numbers after those of the trie, and no page.

    Example:
      forms = Forms.read(folder, languages)
      [found] = forms.find(folded("Paris"))
      forms.link_probability([found.form], [True], "de", prior=(0.5, 0.6))  # [.94]: 94 of 100 pages with it link it
    """

    def __init__(
        self, trie: FormTrie, languages: Sequence[str], named_F: np.ndarray, ends_F: np.ndarray,
        language_N: np.ndarray, pages_N22: np.ndarray, later: FormTrie | None = None,
        gone: frozenset[int] = frozenset(),
    ):  # fmt: skip
        self.trie, self.languages = trie, tuple(languages)
        self.named_F = named_F
        self._ends_F, self._language_N, self._pages_N22 = ends_F, language_N, pages_N22
        self._later, self._gone = later, gone

    @classmethod
    def of(cls, trie: FormTrie, named_F: np.ndarray, counts: Sequence[tuple[str, PageCounts]]) -> Forms:
        """Puts what was counted in each language together."""
        forms = np.concatenate([np.zeros(0, np.int64), *(of.forms for _, of in counts)])
        order = np.argsort(forms, kind="stable")
        ends_F = np.cumsum(np.bincount(forms, minlength=len(trie)), dtype=np.int64)
        sizes = [len(of.forms) for _, of in counts]
        language_N = np.repeat(np.arange(len(counts), dtype=np.uint16), sizes)[order]
        pages_N22 = np.concatenate([np.zeros((0, 2, 2), np.uint32), *(of.pages for _, of in counts)])[order]
        return cls(trie, [language for language, _ in counts], named_F, ends_F, language_N, pages_N22)

    @classmethod
    def read(cls, folder: pathlib.Path, languages: Sequence[str]) -> Forms:
        """Maps what `write` wrote."""
        named_F, ends_F, language_N, pages_N22 = (read_column(folder / f"{name}.npy") for name in COLUMNS)
        later = FormTrie.open(folder / LATER) if (folder / LATER).is_file() else None
        gone = read_column(folder / GONE).tolist() if (folder / GONE).is_file() else ()
        trie = FormTrie.open(folder / TRIE)
        return cls(trie, languages, named_F, ends_F, language_N, pages_N22, later, frozenset(gone))

    def write(self, folder: pathlib.Path) -> None:
        """Writes what `read` reads, but for the languages."""
        self.trie.save(folder / TRIE)
        if self._later:
            self._later.save(folder / LATER)
        if self._gone:
            np.save(folder / GONE, np.array(sorted(self._gone), np.int64))
        values = self.named_F, self._ends_F, self._language_N, self._pages_N22
        for name, column in zip(COLUMNS, values, strict=True):
            np.save(folder / f"{name}.npy", column)

    def with_names(self, strings: Iterable[str]) -> Forms:
        """These forms and more names that came later, which no page holds; what comes again is as it was."""
        names = list(folded_forms(strings))
        new = FormTrie.of(form for form in itertools.chain(self._later or (), names) if self.trie.number(form) < 0)
        return self._copy(new, self._gone.difference(map(self.trie.number, names)))

    def without(self, strings: Iterable[str]) -> Forms:
        """These forms but for some, which are looked for no more."""
        lost = set(folded_forms(strings))
        later = None if self._later is None else FormTrie.of(form for form in self._later if form not in lost)
        return self._copy(later, self._gone.union(map(self.trie.number, lost)) - {-1})

    def of_others(self, names: Iterable[str], linked: Iterable[str] = ()) -> Forms:
        """Other names and surface forms; of those that are known here too it keeps what pages say of them."""
        named = FormTrie.of(folded_forms(names))
        trie = FormTrie.of(itertools.chain(named, folded_forms(linked)))
        named_F, before_F = np.zeros(len(trie), bool), np.full(len(trie), -1)
        for form in trie:
            number = trie.number(form)
            named_F[number], before_F[number] = named.number(form) >= 0, self.trie.number(form)
        known_k = np.flatnonzero(before_F >= 0)
        owner, rows = self._rows(before_F[known_k])
        counts = []
        for number, language in enumerate(self.languages):
            spoken = self._language_N[rows] == number
            counts.append((language, PageCounts(known_k[owner[spoken]], self._pages_N22[rows[spoken]])))
        return Forms.of(trie, named_F, counts)

    def find(self, text: Folded) -> Iterator[Found]:
        """All forms in a text that begin and end where words may, by their start; they may overlap."""
        found = self.trie.find(text)
        if self._gone:
            found = (each for each in found if each.form not in self._gone)
        if not self._later:
            return found
        later = (each._replace(form=each.form + len(self.trie)) for each in self._later.find(text))
        return heapq.merge(found, later)

    def counts(self, forms_n: np.ndarray, language: str | None = None) -> np.ndarray:
        """Pages of one language, or of all, that hold some forms: float64 [n, 2, 2] as in `PageCounts`."""
        owner, rows = self._rows(forms_n)
        if language is not None:
            number = self.languages.index(language) if language in self.languages else -1
            wanted = self._language_N[rows] == number
            owner, rows = owner[wanted], rows[wanted]
        counts_n22 = np.zeros((len(forms_n), 2, 2))
        np.add.at(counts_n22, owner, self._pages_N22[rows])
        return counts_n22

    def link_probability(
        self, forms: Sequence[int] | np.ndarray, upper: Sequence[bool] | np.ndarray, language: str | None,
        prior: Sequence[float],
    ) -> np.ndarray:  # fmt: skip
        """How probable it is that a page links a form that it holds, float64 [n].

        The share of the pages that link it, from the narrowest evidence: as it is in the language, in any case in the
        language, as it is in all languages, in any case in all. Each level with `linked` of `found` pages turns the
        probability p of the levels before it into (linked + p) / (found + 1), as `AliasTable.prior` does.

        Args:
          forms: numbers of forms.
          upper: whether each has an upper-case letter in the text.
          language: of the text; None if it is not known.
          prior: the probability before any evidence, of a form that is only linked and of one that is a name.
        """
        forms_n, case_n = np.asarray(forms, np.int64), np.asarray(upper, np.int64)
        named_n = forms_n >= len(self.trie)
        named_n[~named_n] = self.named_F[forms_n[~named_n]]
        probability_n = np.asarray(prior, np.float64)[named_n.astype(np.int64)]
        everywhere = self.counts(forms_n)
        levels = [everywhere] if language is None else [everywhere, self.counts(forms_n, language)]
        for counts_n22 in levels:
            as_it_is_n2 = counts_n22[np.arange(len(forms_n)), :, case_n]
            for linked_n, found_n in (counts_n22.sum(axis=2).T, as_it_is_n2.T):
                probability_n = (linked_n + probability_n) / (found_n + 1)
        return probability_n

    def _rows(self, forms_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of some forms: for each row the place of its form among them, and the row."""
        known_n = forms_n < len(self.trie)  # what came later has none
        places_n = np.where(known_n, forms_n, 0)
        ends_n = np.where(known_n, self._ends_F[places_n], 0)
        begins_n = np.where(known_n & (places_n > 0), self._ends_F[places_n - 1], 0)
        sizes_n = ends_n - begins_n
        owner = np.repeat(np.arange(len(forms_n)), sizes_n)
        return owner, np.arange(len(owner)) + np.repeat(begins_n - np.cumsum(sizes_n) + sizes_n, sizes_n)

    def _copy(self, later: FormTrie | None, gone: frozenset[int]) -> Forms:
        values = self.named_F, self._ends_F, self._language_N, self._pages_N22
        return Forms(self.trie, self.languages, *values, later, gone)


def folded_forms(strings: Iterable[str]) -> Iterator[str]:
    """The folded forms of what can be looked for among some strings."""
    return (form for form in (fold(string).strip() for string in strings) if is_form(form))
