"""Contexts beside descriptions: the training mentions nearest to a mention speak for the entities they link to.

With the logit scale s that the encoder was trained with, d the cosine of a mention and an entity's
description, and c that of the mention and the nearest training mention that links to the entity,

    score = log(exp(s d) + weight · exp(s c)) / s

This is a mixture of two softmaxes, and about the greater of the two cosines. Two mentions resemble each
other more easily than a mention and a description, so c is worth less, by -log(weight) / s: 0.08 for a weight
of 0.2 at s = 20. Only the nearest training mentions are looked at; an entity with none among them has its
description alone. (Linking by the nearest mentions and nothing else: FitzGerald et al. 2021, "MOLEMAN".)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mel.corpora.kb import KnowledgeBase
from mel.evaluation.nearest import MENTIONS_AT_ONCE, best_cosines
from mel.evaluation.ranking import Ranking
from mel.progress import Progress
from mel.retrieval.index import Index, first_of_each
from mel.types import NIL

NEAREST = 100  # training mentions that are looked at for each mention


class Contexts(NamedTuple):
    """Training mentions that are heard.

    Attributes:
      index: over the embeddings of M training mentions by the encoder.
      entities_M: what they link to; NIL where that has no row, so that it is no candidate.
      weight: of training mentions beside descriptions, above 0.
      logit_scale: that of the encoder's training.
    """

    index: Index
    entities_M: np.ndarray
    weight: float
    logit_scale: float


def known_entities(entities_M: np.ndarray, kb: KnowledgeBase) -> np.ndarray:
    """The entities of training mentions as `Contexts` has them, int32."""
    return np.where(kb.entity_rows.has(entities_M), entities_M, NIL).astype(np.int32)


def add_contexts(
    ranking: Ranking, queries_QD: np.ndarray, contexts: Contexts, embeddings_ED: np.ndarray, kb: KnowledgeBase,
    what: str = "",
) -> Ranking:  # fmt: skip
    """The answers once training mentions are heard too.

    Args:
      ranking: what Q mentions are answered by the descriptions alone.
      queries_QD: the embeddings of the mentions.
      contexts: the training mentions.
      embeddings_ED: of the rows of the knowledge base.
      kb: the knowledge base.
      what: names the mentions in a line of progress; none where empty.
    """
    mix = functools.partial(_mix, weight=contexts.weight, logit_scale=contexts.logit_scale)
    progress = Progress(f"searching training mentions for {what}", len(queries_QD), "mentions") if what else None
    parts = [ranking[:0]]
    for start in range(0, len(queries_QD), MENTIONS_AT_ONCE):
        block = slice(start, start + MENTIONS_AT_ONCE)
        rows_qN, cosines_qN = contexts.index.search(queries_QD[block], NEAREST)
        entities_qN = np.where(rows_qN < 0, NIL, contexts.entities_M[rows_qN])
        parts.append(_join(ranking[block], queries_QD[block], entities_qN, cosines_qN, embeddings_ED, kb, mix))
        if progress:
            progress.add(len(rows_qN))
    if progress:
        progress.close()
    columns = ([part.entities_QK for part in parts], [part.scores_QK for part in parts])
    return Ranking(*map(np.concatenate, columns))


def _join(
    described: Ranking, queries_qD: np.ndarray, entities_qN: np.ndarray, cosines_qN: np.ndarray,
    embeddings_ED: np.ndarray, kb: KnowledgeBase, mix: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Ranking:  # fmt: skip
    """The best of both; the training mentions of a line are in order, so the first of an entity is its nearest."""
    first_qN = first_of_each(entities_qN)
    same_qKN = (described.entities_QK[:, :, None] == entities_qN[:, None, :]) & first_qN[:, None, :]
    heard_qK = np.where(same_qKN, cosines_qN[:, None, :], -np.inf).max(axis=2)
    new_qN = first_qN & ~same_qKN.any(axis=1)
    mention_P, place_P = np.nonzero(new_qN)
    scores_qN = np.full(cosines_qN.shape, -np.inf, np.float32)
    described_P = best_cosines(queries_qD, mention_P, entities_qN[new_qN], embeddings_ED, kb)
    scores_qN[mention_P, place_P] = mix(described_P, cosines_qN[new_qN])
    scores_qC = np.concatenate([mix(described.scores_QK, heard_qK), scores_qN], axis=1)
    entities_qC = np.concatenate([described.entities_QK, np.where(new_qN, entities_qN, NIL)], axis=1)
    return Ranking.best_of(entities_qC, scores_qC)


def _mix(described: np.ndarray, heard: np.ndarray, weight: float, logit_scale: float) -> np.ndarray:
    """The score of entities, float32, from the cosines of their description and nearest training mention."""
    scores = np.logaddexp(logit_scale * described.astype(float), logit_scale * heard.astype(float) + math.log(weight))
    return (scores / logit_scale).astype(np.float32)
