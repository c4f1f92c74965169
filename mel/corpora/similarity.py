"""Surface forms that nobody linked: the most similar aliases, and what these make probable."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel

from mel.corpora.alias_table import AliasTable
from mel.corpora.comparison import Comparison
from mel.corpora.shapes import Shapes
from mel.corpora.strings import Strings
from mel.progress import Progress

LEAST_SIMILARITY = 0.6  # below it the most similar alias of an MDN dev mention is right one time in six
SIMILAR_ALIASES = 10
# Aliases are compared down to one bound after the other; most surface forms find ten before the last one.
BOUNDS = (0.9, 0.8, 0.75, 0.7, 0.65, LEAST_SIMILARITY)
STRINGS_AT_ONCE = 2**16
FEW = 8  # surface forms; more are faster compared together
MANY = 2**18  # of more aliases a sample is compared with first
VERY_SIMILAR = 0.7

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
    known = {lookup: table.prior(*lookup, outside=outside) for lookup in set(mentions)}
    unseen = sorted({form for (form, _, _), (entities, _) in known.items() if not entities})
    similar = similar_aliases(unseen, table.shaped(), what) if unseen else {}

    def prior(form: str, language: str, lemma: str) -> tuple[dict[int, float], float]:
        if not similar.get(form):
            found = known.get((form, language, lemma))
            return found or table.prior(form, language, lemma, outside=outside)
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
    lengths). Aliases that are not above `LEAST_SIMILARITY` are left out. The answers are those of comparing with every
    alias.

    Args:
      surface_forms: distinct.
      aliases: columns of them with their shapes; what stands in several counts once.
      what: names what they are the forms of in a line of progress; none where empty.
    """
    columns = [strings for strings, _ in aliases]
    alone, together = _divided(surface_forms, columns)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(alone, pool.map(lambda form: _most_similar(form, aliases), alone), strict=True))
    if together:
        many = f"comparing {len(together)} forms of {what}"
        progress = Progress(many, sum(map(len, columns)), "aliases") if what else None
        comparison = Comparison(together, LEAST_SIMILARITY, SIMILAR_ALIASES)
        for column in columns:
            comparison.compare(column, progress.add if progress else None)
        found |= {form: _best(comparison.best(form)) for form in together}
        if progress:
            progress.close()
    return {form: found[form] for form in surface_forms}


def _divided(surface_forms: Sequence[str], columns: Sequence[Strings]) -> tuple[list[str], list[str]]:
    """The forms that are compared alone, with what shapes leave, and those that are compared together, with all.

    A few are faster alone, and so are those that have ten very similar aliases: shapes leave few others to them.
    """
    if len(surface_forms) <= FEW:
        return list(surface_forms), []
    if sum(map(len, columns)) <= MANY:
        return [], list(surface_forms)
    sampled = Comparison(surface_forms, LEAST_SIMILARITY, SIMILAR_ALIASES)
    for column in columns:
        sampled.compare(column, sampled=True)
    alone = [form for form in surface_forms if sampled.least(form) >= VERY_SIMILAR]
    return alone, [form for form in surface_forms if sampled.least(form) < VERY_SIMILAR]


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
        best = _best(similarity_of)
        if len(best) == SIMILAR_ALIASES and best[-1][1] >= bound:
            break
    return best


def _best(similarity_of: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(similarity_of.items(), key=lambda item: (-item[1], item[0]))[:SIMILAR_ALIASES]


def _similarities(lowered: str, strings: Sequence[str]) -> dict[str, float]:
    """How similar strings are, those that are not similar enough left out."""
    (similarity_s,) = process.cdist(
        [lowered], [string.lower() for string in strings], scorer=Indel.normalized_similarity,
        score_cutoff=LEAST_SIMILARITY, dtype=np.float32,
    )  # fmt: skip
    return {strings[place]: float(similarity_s[place]) for place in np.flatnonzero(similarity_s).tolist()}
