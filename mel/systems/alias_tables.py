"""Systems that read no context: the alias table in three forms, and the most similar alias."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from mel.corpora.alias_table import AliasTable
from mel.corpora.similarity import similarity_prior
from mel.evaluation.evaluation_set import EvaluationSet
from mel.evaluation.ranking import DEPTH, Ranking
from mel.types import Candidate


def rank_by_alias_table(table: AliasTable, mentions: EvaluationSet) -> Ranking:
    """Of a surface form's entities in any language, the most linked first; see `AliasTable.candidates`."""
    return _rank_each(mentions, lambda form, language, lemma: table.candidates(form, lemma=lemma))


def rank_by_prior(table: AliasTable, mentions: EvaluationSet, with_names: bool) -> Ranking:
    """The entities most linked in the mention's own language, then by broader evidence; see `AliasTable.prior`."""
    return _rank_each(mentions, lambda *lookup: _best_first(table.prior(*lookup, with_names=with_names)[0]))


def rank_by_similarity(table: AliasTable, mentions: EvaluationSet) -> Ranking:
    """The most probable entities by `similarity_prior`."""
    prior = similarity_prior(table, mentions.lookups, what="mentions")
    return _rank_each(mentions, lambda *lookup: _best_first(prior(*lookup)[0]))


def _rank_each(mentions: EvaluationSet, candidates_of: Callable[[str, str, str], Sequence[Candidate]]) -> Ranking:
    """The ranking of what `candidates_of` answers to surface form, language and lemma."""
    ranking = Ranking.empty(len(mentions))
    candidates_of = functools.cache(candidates_of)  # the same surface form is asked again and again
    for mention, lookup in enumerate(mentions.lookups):
        for rank, candidate in enumerate(candidates_of(*lookup)[:DEPTH]):
            ranking.entities_QK[mention, rank], ranking.scores_QK[mention, rank] = candidate
    return ranking


def _best_first(scores: dict[int, float]) -> list[Candidate]:
    return [Candidate(entity, score) for entity, score in sorted(scores.items(), key=lambda item: (-item[1], item[0]))]
