"""Withheld answers: curves and thresholds worked by hand, and entities taken out of the KB."""

import numpy as np
import pytest

from mel.corpora.strings import Strings
from mel.evaluation.nil import (
    POINTS,
    entities_to_remove,
    is_right,
    nil_scores,
    precision_curve,
    risk_coverage,
    threshold_for_precision,
    without_entities,
)
from mel.evaluation.ranking import Ranking
from mel.types import NIL, OUTSIDE

PROBABILITY_Q = np.array([0.7, 0.9, 0.6, 0.8])


def ranking_of(entities_QK):
    entities_QK = np.asarray(entities_QK, np.int64)
    scores_QK = np.broadcast_to(-np.arange(entities_QK.shape[1], dtype=np.float32), entities_QK.shape)
    return Ranking(entities_QK, np.where(entities_QK == NIL, -np.inf, scores_QK))


def test_an_answer_is_right_if_it_is_the_gold_and_not_nil():
    assert is_right(ranking_of([[1, 2], [2, 1], [0, 0]]), np.array([1, 1, 0])).tolist() == [True, False, False]


def test_risk_and_coverage_by_hand():
    # By falling probability: right, wrong, right, wrong.
    curve = risk_coverage(PROBABILITY_Q, np.array([True, True, False, False]))
    assert curve["coverage"] == [0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(curve["risk"], [0, 1 / 2, 1 / 3, 1 / 2])
    assert curve["area"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


@pytest.mark.parametrize("right", [[True, False], [False, True]])
def test_the_order_of_equally_sure_answers_changes_nothing(right):
    assert risk_coverage(np.array([0.9, 0.9]), np.array(right))["risk"] == [0.5, 0.5]


def test_a_long_curve_has_200_points_and_ends_with_all_mentions():
    rng = np.random.default_rng(0)
    right_Q = rng.random(1000) < 0.7
    curve = risk_coverage(rng.random(1000), right_Q)
    assert len(curve["risk"]) == len(curve["coverage"]) == 200
    assert curve["coverage"][-1] == 1 and curve["risk"][-1] == pytest.approx(1 - right_Q.mean())


def test_no_mentions_have_an_empty_curve():
    assert risk_coverage(np.zeros(0), np.zeros(0, bool)) == {"coverage": [], "risk": [], "area": 0.0}


@pytest.mark.parametrize("precision, expected", [(1.0, 0.8), (0.75, 0.6), (0.5, 0.6)])
def test_the_threshold_is_the_lowest_that_reaches_the_precision(precision, expected):
    # By falling probability: right, right, wrong, right.
    right_Q = np.array([False, True, True, True])
    assert threshold_for_precision(PROBABILITY_Q, right_Q, precision) == expected


def test_there_may_be_no_such_threshold():
    assert threshold_for_precision(np.array([0.9, 0.8]), np.array([False, True]), 0.6) is None
    assert threshold_for_precision(np.array([0.9, 0.9]), np.array([True, False]), 0.6) is None
    assert threshold_for_precision(np.zeros(0), np.zeros(0, bool), 0.6) is None


def test_entities_to_remove_are_a_share_and_always_the_same():
    ids = Strings.of(["NIL", *(f"Q{number}" for number in range(1, 5001))])
    removed = entities_to_remove(np.arange(1, 5001), ids, 0.1)
    assert 400 < len(removed) < 600
    few = np.array([7, 5, 5, NIL, OUTSIDE, 4999, 312])
    assert entities_to_remove(few, ids, 0.1).tolist() == sorted(set(few.tolist()) & set(removed.tolist()))
    assert entities_to_remove(few, ids, 1.0).tolist() == [5, 7, 312, 4999]
    assert entities_to_remove(few, ids, 0.0).tolist() == []


def test_an_entity_is_removed_by_its_id_whatever_its_number():
    number_of = {name: place for place, name in enumerate(["NIL", "MESH:D1", "Q3", "Q17", "Q99"])}
    more = Strings.of(["NIL", "Q3", "Q5", "Q17", "Q99", "MESH:D1"])
    for name in ("Q3", "Q17", "Q99", "MESH:D1"):
        removed = entities_to_remove(np.array([number_of[name]]), Strings.of(number_of), 0.5)
        again = entities_to_remove(np.array([list(more).index(name)]), more, 0.5)
        assert len(removed) == len(again)


def test_without_entities_by_hand():
    ranking, gold_Q = without_entities(
        ranking_of([[1, 2, 3], [2, 0, 0], [3, 1, 2]]), np.array([1, 2, 3]), np.array([2])
    )
    assert ranking.entities_QK.tolist() == [[1, 3, 0], [0, 0, 0], [3, 1, 0]]
    assert ranking.scores_QK.tolist() == [[0, -2, -np.inf], [-np.inf] * 3, [0, -1, -np.inf]]
    assert gold_Q.tolist() == [1, NIL, 3]


def test_taking_entities_out_is_ranking_without_them():
    scores_QE = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    entities_E = np.arange(1, 31)

    def ranked(columns, depth):
        order_QK = np.argsort(-scores_QE[:, columns], axis=1)[:, :depth]
        scores_QK = np.take_along_axis(scores_QE[:, columns], order_QK, axis=1)
        return Ranking(entities_E[columns][order_QK], scores_QK)

    removed = np.arange(0, 30, 4)
    found, _ = without_entities(ranked(np.arange(30), 18), np.ones(20, np.int64), entities_E[removed])
    expected = ranked(np.delete(np.arange(30), removed), 10)
    np.testing.assert_array_equal(found.entities_QK[:, :10], expected.entities_QK)
    np.testing.assert_array_equal(found.scores_QK[:, :10], expected.scores_QK)


def test_nil_scores_by_hand():
    ranking = ranking_of([[1, 2], [9, 2], [5, 1], [6, 1], [3, 1]])
    answered_Q = np.array([True, True, False, True, False])
    found = nil_scores(ranking, np.array([1, 2, NIL, NIL, 3]), answered_Q)
    # Two NILs given, one of them and two wanted; three links given, one of them right and three wanted.
    assert found["nil"] == {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2}
    assert found["links"] == {"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3}


def test_nothing_withheld_scores_zero_for_nil():
    found = nil_scores(ranking_of([[1], [2]]), np.array([1, 1]), np.array([True, True]))
    assert found["nil"] == {"precision": 0, "recall": 0, "f1": 0}
    assert found["links"]["recall"] == 1 / 2


def test_the_curve_of_precisions_is_that_of_the_thresholds_by_hand():
    probability_Q = np.array([0.9, 0.8, 0.8, 0.7, 0.6, 0.5])
    right_Q = np.array([1, 1, 0, 1, 1, 0])
    curve = precision_curve(probability_Q, right_Q)
    # At 0.8 two of three are right, and at 0.7 three of four: 0.8 is never worth stopping at.
    assert curve["threshold"] == [0.9, 0.6, 0.5]
    assert curve["precision"] == pytest.approx([1, 4 / 5, 4 / 6])
    assert curve["coverage"] == pytest.approx([1 / 6, 5 / 6, 1])


def test_a_thinned_curve_never_promises_too_much():
    rng = np.random.default_rng(0)
    probability_Q = rng.random(5_000).round(3)
    right_Q = rng.random(5_000) < probability_Q
    curve = precision_curve(probability_Q, right_Q)
    assert len(curve["threshold"]) <= POINTS and curve["coverage"][-1] == 1
    for threshold, precision in zip(curve["threshold"], curve["precision"], strict=True):
        assert threshold_for_precision(probability_Q, right_Q, precision - 1e-12) == threshold
        assert right_Q[probability_Q >= threshold].mean() == pytest.approx(precision)
