"""Fusion: what the encoder sees in the context, and what the alias table knew before.

score(entity) = cosine(mention, entity) + weight · log prior(entity | surface form, language), over
the encoder's best candidates and the most probable ones together.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mel.corpora.kb import EntityRows
from mel.corpora.similarity import Prior
from mel.evaluation.ranking import DEPTH, Ranking
from mel.systems.nearest import best_cosines
from mel.types import MelError

WEIGHTS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
FOLDS = 2


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
    embeddings_ED: np.ndarray, rows: EntityRows,
) -> Pool:  # fmt: skip
    """Joins the encoder's candidates and the 100 most probable before the context is read, all with exact cosines.

    Args:
      lookups: surface form, language and lemma of Q mentions.
      ranking: the encoder's answers.
      prior: how probable entities are before the context is read, none of them impossible.
      queries_QD: the embeddings of the mentions.
      embeddings_ED: the embeddings of the entities' rows.
      rows: those of entities; one without a row is no candidate.
    """
    prior, added = functools.cache(prior), []
    entities_QC = np.pad(ranking.entities_QK, ((0, 0), (0, DEPTH)))
    cosines_QC = np.pad(ranking.scores_QK, ((0, 0), (0, DEPTH)), constant_values=-np.inf)
    log_priors_QC = np.zeros(entities_QC.shape, np.float32)
    probable_n = np.array(sorted({entity for lookup in lookups for entity in prior(*lookup)[0]}), np.int64)
    known = set(probable_n[rows.has(probable_n)].tolist())
    for mention, lookup in enumerate(lookups):
        probable, other = prior(*lookup)
        encoded = set(entities_QC[mention, :DEPTH].tolist())
        best = sorted(known & probable.keys() - encoded, key=lambda entity: (-probable[entity], entity))[:DEPTH]
        entities_QC[mention, DEPTH : DEPTH + len(best)] = best
        log_priors_QC[mention] = np.log([probable.get(entity, other) for entity in entities_QC[mention].tolist()])
        added += [(mention, DEPTH + rank) for rank in range(len(best))]
    if added:
        mention_P, column_P = np.array(added).T
        cosines_QC[mention_P, column_P] = best_cosines(
            queries_QD, mention_P, entities_QC[mention_P, column_P], embeddings_ED, rows
        )
    return Pool(entities_QC, cosines_QC, log_priors_QC)


def fuse(pool: Pool, weight_Q: np.ndarray) -> Ranking:
    """The best 100 candidates of each mention, given the weight of the prior for each."""
    return Ranking.best_of(
        pool.entities_QC, pool.cosines_QC + weight_Q[:, None].astype(np.float32) * pool.log_priors_QC
    )


def fuse_cross_fitted(pool: Pool, gold_Q: np.ndarray, documents: Sequence[str]) -> tuple[Ranking, dict[str, Any]]:
    """Fuses with the weight that the other half of the documents asks for, so that no mention chooses its own.

    Returns:
      the ranking, and what was fitted: the weight of each fold's mentions, and the weight that all
      mentions together ask for, to be used on other data.

    Raises:
      MelError: all documents fall into one half.
    """
    fold_Q = np.array([zlib.crc32(document.encode()) % FOLDS for document in documents])
    if len(np.unique(fold_Q)) < FOLDS:
        raise MelError(
            f"A weight cannot be fitted over {len(set(documents))} documents: state one with --fusion_weight."
        )
    hits_WQ = np.array([_best(pool, weight) == gold_Q for weight in WEIGHTS])
    weights = [_fitted(hits_WQ[:, fold_Q != fold]) for fold in range(FOLDS)]
    tuned = {
        "fusion_weight": _fitted(hits_WQ),
        "fusion_weight_by_fold": weights,
        "how": "two-fold over documents, by R@1",
    }
    return fuse(pool, np.array(weights)[fold_Q]), tuned


def _best(pool: Pool, weight: float) -> np.ndarray:
    best_Q = np.argmax(pool.cosines_QC + np.float32(weight) * pool.log_priors_QC, axis=1)
    return pool.entities_QC[np.arange(len(best_Q)), best_Q]


def _fitted(hits_WQ: np.ndarray) -> float:
    """The weight of the greatest R@1, the smallest of equals."""
    return WEIGHTS[int(hits_WQ.sum(axis=1).argmax())]
