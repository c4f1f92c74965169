"""Surface forms that nobody linked: the most similar aliases, and what these make probable."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel

from mel.corpora.alias_table import AliasTable
from mel.corpora.shapes import Shapes
from mel.corpora.strings import Strings
from mel.progress import Progress

LEAST_SIMILARITY = 0.6  # below it the most similar alias of an MDN dev mention is right one time in six
SIMILAR_ALIASES = 10
# Aliases are compared down to one bound after the other; most surface forms find ten before the last one.
BOUNDS = (0.9, 0.8, 0.75, 0.7, 0.65, LEAST_SIMILARITY)
STRINGS_AT_ONCE = 2**16

# Of surface form, language and lemma: {entity: probability}, and the probability of any other entity.
Prior = Callable[[str, str, str], tuple[dict[int, float], float]]


def similarity_prior(
    table: AliasTable, mentions: Iterable[tuple[str, str, str]], outside: float = 0.0, what: str = ""
) -> Prior:
    """`AliasTable.prior` with names, and for a surface form that it knows nothing of, the most similar aliases.

    There the evidence for an entity is c = its greatest similarity(surface form, alias) · prior(entity | alias),
    and its probability, as on every level of the prior, (c + outside) / (sum of all c + 1).

    Args:
      table: the aliases and names.
      mentions: surface form, language and lemma of all that the prior will be asked for.
      outside: the probability of an entity before any evidence.
      what: names the mentions in a line of progress; none where empty.
    """
    unseen = sorted({form for form, language, lemma in set(mentions) if not table.prior(form, language, lemma)[0]})
    similar = similar_aliases(unseen, table.shaped(), what) if unseen else {}

    def prior(form: str, language: str, lemma: str) -> tuple[dict[int, float], float]:
        if not similar.get(form):
            return table.prior(form, language, lemma, outside=outside)
        evidence: dict[int, float] = {}
        for alias, similarity in similar[form]:
            for entity, probability in table.prior(alias, language)[0].items():
                evidence[entity] = max(evidence.get(entity, 0.0), similarity * probability)
        total = sum(evidence.values()) + 1
        return {entity: (count + outside) / total for entity, count in evidence.items()}, outside / total

    return prior


def similar_aliases(
    surface_forms: Sequence[str], aliases: Sequence[tuple[Strings, Shapes]], what: str = ""
) -> dict[str, list[tuple[str, float]]]:
    """The aliases most similar to each surface form, of equals the first by their letters.

    Similarity is that of insertions and deletions, lower-cased: 2 · (longest common subsequence) / (sum of the
    lengths). Aliases below `LEAST_SIMILARITY` are left out. The answers are those of comparing with every alias, which
    shapes make needless.

    Args:
      surface_forms: distinct.
      aliases: columns of them with their shapes; what stands in several counts once.
      what: names what they are the forms of in a line of progress; none where empty.
    """
    progress = Progress(f"comparing the forms of {what}", len(surface_forms), "surface forms") if what else None
    most_similar = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda form: _most_similar(form, aliases), surface_forms)
        for form, most_similar[form] in zip(surface_forms, found, strict=True):
            if progress:
                progress.add()
    if progress:
        progress.close()
    return most_similar


def _most_similar(form: str, aliases: Sequence[tuple[Strings, Shapes]]) -> list[tuple[str, float]]:
    """Compares with the aliases that may be most similar first, until no other can be among the best."""
    lowered, best = form.lower(), []
    levels = [shapes.levels(form, BOUNDS) for _, shapes in aliases]
    for level, bound in enumerate(BOUNDS):
        similarity_of = dict(best)
        for (strings, _), levels_N in zip(aliases, levels, strict=True):
            rows = np.flatnonzero(levels_N == level)
            for start in range(0, len(rows), STRINGS_AT_ONCE):
                some = rows[start : start + STRINGS_AT_ONCE].tolist()
                similarity_of |= _similarities(lowered, [strings[row] for row in some])
        best = sorted(similarity_of.items(), key=lambda item: (-item[1], item[0]))[:SIMILAR_ALIASES]
        if len(best) == SIMILAR_ALIASES and best[-1][1] >= bound:
            break
    return best


def _similarities(lowered: str, strings: Sequence[str]) -> dict[str, float]:
    """How similar strings are, those that are not similar enough left out."""
    (similarity_s,) = process.cdist(
        [lowered], [string.lower() for string in strings], scorer=Indel.normalized_similarity,
        score_cutoff=LEAST_SIMILARITY, dtype=np.float32,
    )  # fmt: skip
    return {strings[place]: float(similarity_s[place]) for place in np.flatnonzero(similarity_s).tolist()}
