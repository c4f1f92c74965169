"""Which answers to withhold as NIL, and what that is worth.

All of it works on rankings that exist already: nothing is embedded or searched again.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from mel.corpora.strings import Strings
from mel.evaluation.ranking import Ranking
from mel.retrieval.index import keep_first
from mel.types import NIL, OUTSIDE

POINTS = 200


def is_right(ranking: Ranking, gold_Q: np.ndarray) -> np.ndarray:
    """Whether the best candidate of each mention is its gold; bool [Q]."""
    return (ranking.entities_QK[:, 0] == gold_Q) & (gold_Q != NIL)


def risk_coverage(probability_Q: np.ndarray, right_Q: np.ndarray) -> dict[str, Any]:
    """How many answers are wrong if only the surest are given.

    Returns:
      "coverage" (share of mentions answered) and "risk" (share of those answers that are wrong) at
      `POINTS` points at most, and the "area" under the whole curve: the mean risk over all coverages
      (Geifman, Uziel and El-Yaniv 2019). Among equally sure answers, errors are spread evenly.
    """
    mentions = len(probability_Q)
    if not mentions:
        return {"coverage": [], "risk": [], "area": 0.0}
    _, group_Q, count_g = np.unique(-probability_Q, return_inverse=True, return_counts=True)
    wrong_g = np.bincount(group_Q, ~np.asarray(right_Q, bool)) / count_g
    answered = np.arange(1, mentions + 1)
    risk = np.cumsum(np.repeat(wrong_g, count_g)) / answered
    points = np.unique(np.linspace(0, mentions - 1, min(mentions, POINTS)).round().astype(np.int64))
    return {
        "coverage": (answered[points] / mentions).tolist(),
        "risk": risk[points].tolist(),
        "area": float(risk.mean()),
    }


def threshold_for_precision(probability_Q: np.ndarray, right_Q: np.ndarray, precision: float) -> float | None:
    """The lowest probability at or above which the share of right answers is `precision`; None if it never is."""
    surest_g, count_g = np.unique(-probability_Q, return_counts=True)
    group_Q = np.searchsorted(surest_g, -probability_Q)
    right_g = np.bincount(group_Q, right_Q, len(surest_g))
    reached = np.flatnonzero(np.cumsum(right_g) >= precision * np.cumsum(count_g))
    return float(-surest_g[reached[-1]]) if len(reached) else None


def precision_curve(probability_Q: np.ndarray, right_Q: np.ndarray) -> dict[str, list[float]]:
    """What `threshold_for_precision` finds for every precision, thinned out.

    Returns:
      "threshold", the "precision" reached at or above it, and "coverage", the share of mentions answered
      there, at `POINTS` points at most: precision falls and coverage rises from one to the next. The first
      point is the highest precision that is ever reached, the last one answers every mention.
    """
    surest_g, group_Q, count_g = np.unique(-probability_Q, return_inverse=True, return_counts=True)
    answered_g = np.cumsum(count_g)
    precision_g = np.cumsum(np.bincount(group_Q, right_Q, len(surest_g))) / answered_g
    best_after_g = np.maximum.accumulate(precision_g[::-1])[::-1]
    useful = np.flatnonzero(precision_g > np.append(best_after_g[1:], -1.0))
    useful = useful[np.unique(np.linspace(0, len(useful) - 1, min(len(useful), POINTS)).round().astype(np.int64))]
    return {
        "threshold": (-surest_g[useful]).tolist(),
        "precision": precision_g[useful].tolist(),
        "coverage": (answered_g[useful] / max(len(probability_Q), 1)).tolist(),
    }


def entities_to_remove(entities: np.ndarray, ids: Strings, share: float) -> np.ndarray:
    """About `share` of the entities, by a hash of each id and so the same in every collection; sorted.

    Args:
      entities: numbers, in any order.
      ids: the id of each number of the KB.
      share: between 0 and 1.
    """
    distinct = np.setdiff1d(entities, [NIL, OUTSIDE])
    kept = [zlib.crc32(f"NIL {ids[entity]}".encode()) < share * 2**32 for entity in distinct]
    return distinct[np.asarray(kept, bool)]


def without_entities(ranking: Ranking, gold_Q: np.ndarray, removed: np.ndarray) -> tuple[Ranking, np.ndarray]:
    """The ranking and the golds as they would be if the KB lacked the entities `removed`.

    Removing them from the candidates is what removing them from the KB does, except that a row loses
    as many of its last places as it had such candidates: a ranking deeper than needed loses nothing.
    """
    kept_QK, width = ~np.isin(ranking.entities_QK, removed), ranking.entities_QK.shape[1]
    entities_QK = keep_first(kept_QK, ranking.entities_QK, width, NIL)
    scores_QK = keep_first(kept_QK, ranking.scores_QK, width, -np.inf)
    return Ranking(entities_QK, scores_QK), np.where(np.isin(gold_Q, removed), NIL, gold_Q)


def nil_scores(ranking: Ranking, gold_Q: np.ndarray, answered_Q: np.ndarray) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of "nil" (mentions whose gold is NIL) and of "links" (all others).

    Args:
      ranking: the candidates of Q mentions.
      gold_Q: the gold of each, or NIL.
      answered_Q: whether the best candidate is given as the answer; NIL otherwise.
    """
    is_nil_Q = gold_Q == NIL
    right = _count(is_right(ranking, gold_Q) & answered_Q)
    return {
        "nil": _precision_recall(_count(is_nil_Q & ~answered_Q), _count(~answered_Q), _count(is_nil_Q)),
        "links": _precision_recall(right, _count(answered_Q), _count(~is_nil_Q)),
    }


def _count(chosen_Q: np.ndarray) -> int:
    return int(np.count_nonzero(chosen_Q))


def _precision_recall(right: int, given: int, wanted: int) -> dict[str, float]:
    precision, recall = right / max(given, 1), right / max(wanted, 1)
    return {"precision": precision, "recall": recall, "f1": 2 * right / max(given + wanted, 1)}
