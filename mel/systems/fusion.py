"""The weight of the prior in a fusion, fitted so that no mention chooses its own."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mel.evaluation.fusion import Pool, fuse
from mel.evaluation.ranking import Ranking
from mel.types import MelError

WEIGHTS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
FOLDS = 2


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
