"""Surface forms that nobody linked: the most similar aliases, and what these make probable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel

from mel.corpora.alias_table import AliasTable
from mel.progress import Progress

LEAST_SIMILARITY = 0.6  # below it the most similar alias of an MDN dev mention is right one time in six
SIMILAR_ALIASES = 10
SIMILARITIES_AT_ONCE = 2**23  # 32 MB of float32

# Of surface form, language and lemma: {entity: probability}, and the probability of any other entity.
Prior = Callable[[str, str, str], tuple[dict[int, float], float]]


def similarity_prior(table: AliasTable, mentions: Iterable[tuple[str, str, str]], outside: float = 0.0) -> Prior:
    """`AliasTable.prior` with names, and for a surface form that it knows nothing of, the most similar aliases.

    There the evidence for an entity is c = its greatest similarity(surface form, alias) · prior(entity | alias),
    and its probability, as on every level of the prior, (c + outside) / (sum of all c + 1).

    Args:
      table: the aliases and names.
      mentions: surface form, language and lemma of all that the prior will be asked for.
      outside: the probability of an entity before any evidence.
    """
    unseen = sorted({form for form, language, lemma in set(mentions) if not table.prior(form, language, lemma)[0]})
    similar = similar_aliases(unseen, table.surface_forms(with_names=True)) if unseen else {}

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


def similar_aliases(surface_forms: Sequence[str], aliases: Sequence[str]) -> dict[str, list[tuple[str, float]]]:
    """The aliases most similar to each surface form, the first of equals first.

    Similarity is that of insertions and deletions, lower-cased: 2 · (longest common subsequence) / (sum of the
    lengths). Aliases below `LEAST_SIMILARITY` are left out.
    """
    lowered, most_similar = [alias.lower() for alias in aliases], {}
    forms_at_once = max(1, SIMILARITIES_AT_ONCE // max(len(aliases), 1))
    progress = Progress("comparing surface forms", len(surface_forms), "surface forms")
    for start in range(0, len(surface_forms), forms_at_once):
        forms_s = surface_forms[start : start + forms_at_once]
        similarity_sa = process.cdist(
            [form.lower() for form in forms_s], lowered, scorer=Indel.normalized_similarity,
            score_cutoff=LEAST_SIMILARITY, dtype=np.float32, workers=-1,
        )  # fmt: skip
        for form, similarity_a in zip(forms_s, similarity_sa, strict=True):
            kept = np.flatnonzero(similarity_a)
            best = kept[np.argsort(-similarity_a[kept], kind="stable")[:SIMILAR_ALIASES]]
            most_similar[form] = [(aliases[place], float(similarity_a[place])) for place in best]
        progress.add(len(forms_s))
    progress.close()
    return most_similar
