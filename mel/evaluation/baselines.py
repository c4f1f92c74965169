"""Systems that read no context: the alias table in three forms, and the most similar alias."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel

from mel.corpora.alias_table import AliasTable
from mel.evaluation.questions import Questions
from mel.evaluation.recall import Ranking
from mel.evaluation.systems import CANDIDATES, empty_ranking
from mel.progress import Progress
from mel.types import Candidate, Qid

LEAST_SIMILARITY = 0.6  # below it the most similar alias of an MDN dev mention is right one time in six
SIMILAR_ALIASES = 10
SIMILARITIES_AT_ONCE = 2**23  # 32 MB of float32

# Of surface form, language and lemma: {QID: probability}, and the probability of any other entity.
Prior = Callable[[str, str, str], tuple[dict[Qid, float], float]]


def rank_by_alias_table(table: AliasTable, questions: Questions) -> Ranking:
    """Of a surface form's entities in any language, the most linked first; see `AliasTable.candidates`."""
    return _each(questions, lambda form, language, lemma: table.candidates(form, lemma=lemma))


def rank_by_prior(table: AliasTable, questions: Questions, with_names: bool) -> Ranking:
    """The entities most linked in the mention's own language, then by broader evidence; see `AliasTable.prior`."""

    def candidates(form: str, language: str, lemma: str) -> list[Candidate]:
        return _best_first(table.prior(form, language, lemma, with_names)[0])

    return _each(questions, candidates)


def rank_by_similarity(table: AliasTable, questions: Questions) -> Ranking:
    """The most probable entities by `similarity_prior`."""
    prior = similarity_prior(table, questions)
    return _each(questions, lambda form, language, lemma: _best_first(prior(form, language, lemma)[0]))


def similarity_prior(table: AliasTable, questions: Questions, outside: float = 0.0) -> Prior:
    """`AliasTable.prior` with names, and for a surface form that it knows nothing of, the most similar aliases.

    There the evidence for an entity is c = its greatest similarity(surface form, alias) · prior(entity | alias),
    and its probability, as on every level of the prior, (c + outside) / (sum of all c + 1).

    Args:
      table: the aliases and names.
      questions: all that will be asked.
      outside: the probability of an entity before any evidence.
    """
    asked = set(zip(questions.surface_forms, questions.languages, questions.lemmas))
    unseen = sorted({form for form, language, lemma in asked if not table.prior(form, language, lemma)[0]})
    similar = similar_aliases(unseen, table.surface_forms(with_names=True))

    def prior(form: str, language: str, lemma: str) -> tuple[dict[Qid, float], float]:
        if not similar.get(form):
            return table.prior(form, language, lemma, outside=outside)
        evidence: dict[Qid, float] = {}
        for alias, similarity in similar[form]:
            for qid, probability in table.prior(alias, language)[0].items():
                evidence[qid] = max(evidence.get(qid, 0.0), similarity * probability)
        total = sum(evidence.values()) + 1
        return {qid: (count + outside) / total for qid, count in evidence.items()}, outside / total

    return prior


def similar_aliases(surface_forms: list[str], aliases: list[str]) -> dict[str, list[tuple[str, float]]]:
    """The aliases most similar to each surface form, the first of equals first.

    Similarity is that of insertions and deletions, lower-cased: 2 · (longest common subsequence) / (sum of the
    lengths). Aliases below `LEAST_SIMILARITY` are left out.
    """
    lowered, found = [alias.lower() for alias in aliases], {}
    block = max(1, SIMILARITIES_AT_ONCE // max(len(aliases), 1))
    progress = Progress("comparing surface forms", len(surface_forms), "surface forms")
    for start in range(0, len(surface_forms), block):
        some = surface_forms[start : start + block]
        similarity_sa = process.cdist(
            [form.lower() for form in some], lowered, scorer=Indel.normalized_similarity,
            score_cutoff=LEAST_SIMILARITY, dtype=np.float32, workers=-1,
        )  # fmt: skip
        for form, similarity_a in zip(some, similarity_sa):
            kept = np.flatnonzero(similarity_a)
            best = kept[np.argsort(-similarity_a[kept], kind="stable")[:SIMILAR_ALIASES]]
            found[form] = [(aliases[place], float(similarity_a[place])) for place in best]
        progress.add(len(some))
    progress.close()
    return found


def _each(questions: Questions, candidates: Callable[[str, str, str], Sequence[Candidate]]) -> Ranking:
    """The ranking of what `candidates` answers to surface form, language and lemma."""
    ranking = empty_ranking(len(questions))
    candidates = functools.cache(candidates)  # the same surface form is asked again and again
    asked = zip(questions.surface_forms, questions.languages, questions.lemmas)
    for question, (form, language, lemma) in enumerate(asked):
        for place, candidate in enumerate(candidates(form, language, lemma)[:CANDIDATES]):
            ranking.qids_QK[question, place], ranking.scores_QK[question, place] = candidate
    return ranking


def _best_first(scores: dict[Qid, float]) -> list[Candidate]:
    return [Candidate(qid, score) for qid, score in sorted(scores.items(), key=lambda item: (-item[1], item[0]))]
