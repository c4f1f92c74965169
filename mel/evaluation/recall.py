"""How well rankings answer: R@k and the mean reciprocal rank, overall and by group.

Every figure is a fraction of *all* mentions it is about, so a gold that the KB lacks is a miss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mel.corpora.kb import EntityRows
from mel.evaluation.ranking import Ranking
from mel.types import NIL

DEPTHS = (1, 10, 100)
METRICS = (*(f"r@{depth}" for depth in DEPTHS), "mrr")

Scores = dict[str, Any]  # figures, and where they have one their interval


def gold_rank(ranking: Ranking, gold_Q: np.ndarray) -> np.ndarray:
    """The place of each gold among its candidates: 0 is the best, -1 is absent. NIL is never found."""
    is_gold_QK = (ranking.entities_QK == gold_Q[:, None]) & (ranking.entities_QK != NIL)
    return np.where(is_gold_QK.any(axis=1), is_gold_QK.argmax(axis=1), -1)


def scores(gold_rank_Q: np.ndarray) -> Scores:
    """R@1, R@10, R@100 and the MRR over the first 100 candidates, with the number of mentions.

    No mentions score 0.
    """
    mentions = len(gold_rank_Q)
    result: Scores = {"mentions": mentions}
    for depth in DEPTHS:
        hits = np.count_nonzero((gold_rank_Q >= 0) & (gold_rank_Q < depth))
        result[f"r@{depth}"] = hits / max(mentions, 1)
    ranks = gold_rank_Q[(gold_rank_Q >= 0) & (gold_rank_Q < max(DEPTHS))]
    result["mrr"] = float(np.sum(1.0 / (ranks + 1.0))) / max(mentions, 1)
    return result


def scores_by(groups: Sequence[str], gold_rank_Q: np.ndarray) -> dict[str, Scores]:
    """The scores of each group of mentions, in the alphabetical order of the groups' names."""
    groups_Q = np.asarray(groups, dtype=np.str_)
    return {str(group): scores(gold_rank_Q[groups_Q == group]) for group in np.unique(groups_Q)}


def macro(by_group: Mapping[str, Scores]) -> Scores:
    """The plain mean over groups, each weighing the same however many mentions it has."""
    return {metric: sum(group[metric] for group in by_group.values()) / max(len(by_group), 1) for metric in METRICS}


def coverage(gold_Q: np.ndarray, rows: EntityRows) -> float:
    """The share of mentions whose gold is among the entities of the KB's rows."""
    return float(np.count_nonzero(rows.has(gold_Q) & (gold_Q != NIL))) / max(len(gold_Q), 1)
