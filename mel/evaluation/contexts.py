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

import numpy as np

from mel.evaluation.recall import Ranking
from mel.evaluation.systems import CANDIDATES, QUESTIONS_AT_ONCE, best_cosines
from mel.progress import Progress
from mel.retrieval.index import Index, first_of_each
from mel.types import NIL

NEAREST = 100  # training mentions that are looked at for each mention


def add_contexts(
    ranking: Ranking, queries_QD: np.ndarray, contexts: Index, context_qids_M: np.ndarray,
    embeddings_ED: np.ndarray, qids_E: np.ndarray, weight: float, logit_scale: float,
) -> Ranking:  # fmt: skip
    """The answers once training mentions are heard too.

    Args:
      ranking: what Q mentions are answered by the descriptions alone.
      queries_QD: the embeddings of the mentions.
      contexts: an index over the embeddings of M training mentions by the same encoder.
      context_qids_M: what they link to.
      embeddings_ED: the embeddings of the entities' rows.
      qids_E: the QID of each row; an entity without a row is no candidate.
      weight: of training mentions, above 0.
      logit_scale: that of the encoder's training.
    """
    context_qids_M = np.where(np.isin(context_qids_M, qids_E), context_qids_M, NIL)
    mix = functools.partial(_mix, weight=weight, logit_scale=logit_scale)
    parts, progress = [], Progress("searching training mentions", len(queries_QD), "mentions")
    for start in range(0, len(queries_QD), QUESTIONS_AT_ONCE):
        some = slice(start, start + QUESTIONS_AT_ONCE)
        rows_qN, cosines_qN = contexts.search(queries_QD[some], NEAREST)
        qids_qN = np.where(rows_qN < 0, NIL, context_qids_M[rows_qN])
        described = Ranking(ranking.qids_QK[some], ranking.scores_QK[some])
        parts.append(_join(described, queries_QD[some], qids_qN, cosines_qN, embeddings_ED, qids_E, mix))
        progress.add(len(rows_qN))
    progress.close()
    return Ranking(np.concatenate([part.qids_QK for part in parts]), np.concatenate([part.scores_QK for part in parts]))


def _join(
    described: Ranking, queries_qD: np.ndarray, qids_qN: np.ndarray, cosines_qN: np.ndarray,
    embeddings_ED: np.ndarray, qids_E: np.ndarray, mix: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Ranking:  # fmt: skip
    """The best of both; the training mentions of a line are in order, so the first of a QID is its nearest."""
    first_qN = first_of_each(qids_qN)
    same_qKN = (described.qids_QK[:, :, None] == qids_qN[:, None, :]) & first_qN[:, None, :]
    heard_qK = np.where(same_qKN, cosines_qN[:, None, :], -np.inf).max(axis=2)
    new_qN = first_qN & ~same_qKN.any(axis=1)
    question_P, place_P = np.nonzero(new_qN)
    scores_qN = np.full(cosines_qN.shape, -np.inf, np.float32)
    described_P = best_cosines(queries_qD, question_P, qids_qN[new_qN], embeddings_ED, qids_E)
    scores_qN[question_P, place_P] = mix(described_P, cosines_qN[new_qN])
    scores_qC = np.concatenate([mix(described.scores_QK, heard_qK), scores_qN], axis=1)
    qids_qC = np.concatenate([described.qids_QK, np.where(new_qN, qids_qN, NIL)], axis=1)
    order_qK = np.argsort(-scores_qC, axis=1, kind="stable")[:, :CANDIDATES]
    return Ranking(np.take_along_axis(qids_qC, order_qK, axis=1), np.take_along_axis(scores_qC, order_qK, axis=1))


def _mix(described: np.ndarray, heard: np.ndarray, weight: float, logit_scale: float) -> np.ndarray:
    """The score of entities, float32, from the cosines of their description and nearest training mention."""
    scores = np.logaddexp(logit_scale * described.astype(float), logit_scale * heard.astype(float) + math.log(weight))
    return (scores / logit_scale).astype(np.float32)
