"""Fusion: what the encoder sees in the context, and what the alias table knew before.

score(entity) = cosine(mention, entity) + weight · log prior(entity | surface form, language), over
the encoder's best candidates and the most probable ones together.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from mel.corpora.kb import KnowledgeBase
from mel.corpora.similarity import Prior
from mel.evaluation.nearest import best_cosines
from mel.evaluation.ranking import DEPTH, Ranking


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """The candidates of Q mentions before they are put in order.

    Attributes:
      entities_QC: int64, distinct in a row, NIL where padded.
      cosines_QC: float32, -inf where padded.
      log_priors_QC: float32.
    """

    entities_QC: np.ndarray
    cosines_QC: np.ndarray
    log_priors_QC: np.ndarray


def pool_candidates(
    lookups: Sequence[tuple[str, str, str]], ranking: Ranking, prior: Prior, queries_QD: np.ndarray,
    embeddings_ED: np.ndarray, kb: KnowledgeBase,
) -> Pool:  # fmt: skip
    """Joins the encoder's candidates and the 100 most probable before the context is read, all with exact cosines.

    Args:
      lookups: surface form, language and lemma of Q mentions.
      ranking: the encoder's answers.
      prior: how probable entities are before the context is read, none of them impossible.
      queries_QD: the embeddings of the mentions.
      embeddings_ED: of the rows of the knowledge base.
      kb: the knowledge base; an entity without a row is no candidate.
    """
    prior, added = functools.cache(prior), []
    entities_QC = np.pad(ranking.entities_QK, ((0, 0), (0, DEPTH)))
    cosines_QC = np.pad(ranking.scores_QK, ((0, 0), (0, DEPTH)), constant_values=-np.inf)
    log_priors_QC = np.zeros(entities_QC.shape, np.float32)
    probable_n = np.array(sorted({entity for lookup in lookups for entity in prior(*lookup)[0]}), np.int64)
    known = set(probable_n[kb.entity_rows.has(probable_n)].tolist())
    for mention, lookup in enumerate(lookups):
        probable, other = prior(*lookup)
        encoded = set(entities_QC[mention, :DEPTH].tolist())
        best = sorted(known & probable.keys() - encoded, key=lambda entity: (-probable[entity], entity))[:DEPTH]
        entities_QC[mention, DEPTH : DEPTH + len(best)] = best
        priors_C = np.full(entities_QC.shape[1], other)
        for entity in probable.keys() & {*encoded, *best}:
            priors_C[entities_QC[mention] == entity] = probable[entity]
        log_priors_QC[mention] = np.log(priors_C)
        added += [(mention, DEPTH + rank) for rank in range(len(best))]
    if added:
        mention_P, column_P = np.array(added).T
        cosines_QC[mention_P, column_P] = best_cosines(
            queries_QD, mention_P, entities_QC[mention_P, column_P], embeddings_ED, kb
        )
    return Pool(entities_QC, cosines_QC, log_priors_QC)


def fuse(pool: Pool, weight_Q: np.ndarray) -> Ranking:
    """The best 100 candidates of each mention, given the weight of the prior for each."""
    return Ranking.best_of(
        pool.entities_QC, pool.cosines_QC + weight_Q[:, None].astype(np.float32) * pool.log_priors_QC
    )
