"""Many strings compared with all aliases at once, in blocks that a processor compares several of in one instruction.

A character n-gram that both have cannot stand in for this: strings that are less than two thirds alike need share no
bigram, and of MDN's forms that nobody linked seven in ten have no ten aliases that are more alike. What is left out is
what lengths exclude, ever more the better the best aliases are that were found so far.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel

from mel.corpora.strings import Strings

STRINGS_AT_ONCE = 32  # lanes of an instruction: bytes of 256 bits
ALIASES_AT_ONCE = 1 << 16
SAMPLED, SAMPLE_EVERY = 1 << 12, 20
ROUNDING = 1e-6  # more than a similarity in float32 is off


class Comparison:
    """Strings, and the most similar aliases of each so far, both lower-cased to be compared.

    Args:
      strings: to be compared.
      least: aliases that are no more similar are left out.
      most: how many aliases are kept, and others that are as similar as the last one.
    """

    def __init__(self, strings: Sequence[str], least: float, most: int):
        # Strings of a length fit an instruction best, and bound the lengths of aliases most.
        self._ordered = sorted({string.lower() for string in strings}, key=len)
        self._places = {lowered: place for place, lowered in enumerate(self._ordered)}
        self._above, self._most = least + ROUNDING, most
        self._best: list[dict[str, float]] = [{} for _ in self._ordered]
        self._least_f = np.full(len(self._ordered), least)

    def compare(self, column: Strings, done: Callable[[int], None] | None = None, sampled: bool = False) -> None:
        """Compares with aliases.

        Args:
          column: of them; what stands in several counts once.
          done: is told how many more have been compared with.
          sampled: with a twentieth of them only, taken here and there.
        """
        step, size = (SAMPLED * SAMPLE_EVERY, SAMPLED) if sampled else (ALIASES_AT_ONCE, ALIASES_AT_ONCE)
        for start in range(0, len(column), step):
            end = min(start + size, len(column))
            self._compare(column.some(start, end))
            if done:
                done(end - start)

    def best(self, string: str) -> dict[str, float]:
        """The aliases most similar to one of the strings, and how similar they are."""
        return self._best[self._places[string.lower()]]

    def least(self, string: str) -> float:
        """How similar to one of the strings an alias must be to be among the best."""
        return float(self._least_f[self._places[string.lower()]])

    def _compare(self, aliases: Sequence[str]) -> None:
        lowered = [alias.lower() for alias in aliases]
        lengths_n = np.fromiter(map(len, lowered), np.int64, len(lowered))
        order_n = np.argsort(lengths_n, kind="stable")
        lengths_n, lowered = lengths_n[order_n], np.array(lowered, object)[order_n].tolist()
        for group in self._groups():
            least = float(self._least_f[group].min()) - ROUNDING
            shortest, longest = len(self._ordered[group.start]), len(self._ordered[group.stop - 1])
            first = int(np.searchsorted(lengths_n, shortest * least / (2 - least) - ROUNDING))
            end = int(np.searchsorted(lengths_n, longest * (2 - least) / least + ROUNDING, side="right"))
            if first < end:
                similarity_fn = process.cdist(
                    self._ordered[group], lowered[first:end], scorer=Indel.normalized_similarity, score_cutoff=least,
                    dtype=np.float32, workers=os.cpu_count() or 1,
                )  # fmt: skip
                for form, similarity_n in enumerate(similarity_fn, group.start):
                    self._keep(form, similarity_n, order_n[first:end], aliases)

    def _keep(self, form: int, similarity_n: np.ndarray, rows_n: np.ndarray, aliases: Sequence[str]) -> None:
        """Adds what is as similar as the last of the best, of these and of those before; an alias may occur twice."""
        least, best = self._least_f[form], self._best[form]
        places = np.flatnonzero(similarity_n >= max(least - ROUNDING, self._above))
        if not len(places):
            return
        found: list[int] = rows_n[places].tolist()
        best |= zip([aliases[row] for row in found], similarity_n[places].tolist(), strict=True)
        if len(best) >= self._most:
            self._least_f[form] = last = sorted(best.values())[-self._most]
            self._best[form] = {alias: value for alias, value in best.items() if value >= last}

    def _groups(self) -> Iterator[slice]:
        for start in range(0, len(self._ordered), STRINGS_AT_ONCE):
            yield slice(start, min(start + STRINGS_AT_ONCE, len(self._ordered)))
