"""Recall against rankings small enough to count by hand."""

import numpy as np
import pytest

from mel.corpora.kb import EntityRows
from mel.evaluation import recall
from mel.evaluation.ranking import Ranking


def ranking_of(qids) -> Ranking:
    qids = np.asarray(qids, np.int64)
    return Ranking(qids, np.where(qids > 0, -np.arange(qids.shape[1], dtype=np.float32), -np.inf))


def test_gold_rank_is_the_place_of_the_gold():
    ranking = ranking_of([[7, 8, 9], [8, 7, 9], [9, 8, 0], [5, 0, 0]])
    assert recall.gold_rank(ranking, np.array([7, 7, 7, 5])).tolist() == [0, 1, -1, 0]


def test_nil_is_never_found_in_the_padding():
    assert recall.gold_rank(ranking_of([[5, 0, 0]]), np.array([0])).tolist() == [-1]


def test_scores_worked_by_hand():
    # First, second, 11th, 100th, 101st place, and absent.
    scores = recall.scores(np.array([0, 1, 10, 99, 100, -1]))
    assert scores["mentions"] == 6
    assert scores["r@1"] == pytest.approx(1 / 6)
    assert scores["r@10"] == pytest.approx(2 / 6)
    assert scores["r@100"] == pytest.approx(4 / 6)
    assert scores["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 11 + 1 / 100) / 6)


def test_no_mentions_score_zero():
    assert recall.scores(np.zeros(0, int)) == {"mentions": 0, "r@1": 0, "r@10": 0, "r@100": 0, "mrr": 0}


def test_macro_weighs_languages_alike():
    by_language = recall.scores_by(["es", "ar", "es", "es"], np.array([0, 0, -1, -1]))
    assert list(by_language) == ["ar", "es"]
    assert by_language["es"]["mentions"] == 3
    assert recall.macro(by_language)["r@1"] == pytest.approx((1 + 1 / 3) / 2)
    assert recall.scores(np.array([0, 0, -1, -1]))["r@1"] == pytest.approx(2 / 4)


def test_micro_is_the_mean_over_mentions_of_the_groups():
    rng = np.random.default_rng(3)
    gold_rank_Q, groups = rng.integers(-1, 150, 500), rng.choice(["a", "b", "c"], 500)
    by_group = recall.scores_by(groups, gold_rank_Q)
    for metric in recall.METRICS:
        mean = sum(scores[metric] * scores["mentions"] for scores in by_group.values()) / 500
        assert recall.scores(gold_rank_Q)[metric] == pytest.approx(mean)


def test_recall_never_falls_with_depth_and_never_exceeds_one():
    scores = recall.scores(np.random.default_rng(4).integers(-1, 120, 3000))
    assert 0 < scores["r@1"] <= scores["mrr"] <= scores["r@100"] <= 1
    assert scores["r@1"] <= scores["r@10"] <= scores["r@100"]


def test_coverage_counts_golds_that_the_kb_holds():
    assert recall.coverage(np.array([5, 6, 6, 0]), EntityRows.of(np.array([6, 6, 9, 0]))) == 0.5


def test_a_ranking_refuses_scores_of_another_shape():
    with pytest.raises(ValueError, match="not one"):
        Ranking(np.zeros((2, 3), np.int64), np.zeros((2, 2), np.float32))
