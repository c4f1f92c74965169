"""Probabilities and their error worked by hand, a known temperature found again, folds that stay apart."""

import json

import numpy as np
import pytest

from mel.evaluation.calibration import (
    PRECISIONS,
    Calibration,
    calibrate,
    cross_fitted,
    expected_calibration_error,
    fit_calibration,
    reliability,
    threshold_of,
)
from mel.evaluation.ranking import Ranking
from mel.types import NIL, MelError
from tests.evaluation.hand_made import kb_of

NOTHING = -np.inf


def probability(calibration, *scores):
    return calibration.probability(np.array([scores], np.float32))[0]


def simulated(mentions=20_000, temperature=0.05, seed=0):
    """Rankings of five candidates whose golds are drawn from the softmax at `temperature`."""
    rng = np.random.default_rng(seed)
    scores_QK = -np.sort(-rng.normal(0.5, 0.08, (mentions, 5)).astype(np.float32), axis=1)
    odds_QK = np.exp(scores_QK / temperature)
    chosen_Q = (np.cumsum(odds_QK, axis=1) < rng.random((mentions, 1)) * odds_QK.sum(axis=1, keepdims=True)).sum(axis=1)
    entities_QK = np.tile(np.arange(1, 6), (mentions, 1))
    return Ranking(entities_QK, scores_QK), entities_QK[0, chosen_Q]


def kb_of_entities(entities):
    return kb_of(*((entity, "en", f"entity {entity}") for entity in entities))


def documents_of(gold_Q):
    return [f"page {number // 10}" for number in range(len(gold_Q))]


def test_temperature_alone_by_hand():
    assert probability(Calibration(1.0), 2, 1) == pytest.approx(1 / (1 + np.exp(-1)))
    assert probability(Calibration(0.5), 1, 0, 0) == pytest.approx(np.exp(2) / (np.exp(2) + 2))
    assert probability(Calibration(0.5, depth=2), 1, 0, 0) == pytest.approx(np.exp(2) / (np.exp(2) + 1))


def test_weights_by_hand():
    # Log odds 2 - 1, then 1 times the score, 2 times the margin, and the bias.
    assert probability(Calibration(1.0, 1.0, 2.0, -1.0), 2, 1) == pytest.approx(1 / (1 + np.exp(-(1 + 2 + 2 - 1))))


def test_no_bit_of_a_probability_depends_on_other_mentions():
    scores_QK = -np.sort(-np.random.default_rng(0).normal(0.5, 0.2, (500, 12)).astype(np.float32), axis=1)
    calibration = Calibration(0.07, score_weight=2.1, margin_weight=-3.3, bias=0.7)
    together_Q = calibration.probability(scores_QK)
    for part in (slice(0, 1), slice(1, 8), slice(8, 500)):
        np.testing.assert_array_equal(calibration.probability(scores_QK[part]), together_Q[part])
    np.testing.assert_array_equal([calibration.probability(scores_K[None])[0] for scores_K in scores_QK], together_Q)


def test_a_candidate_without_rivals_is_sure_and_no_candidate_is_not():
    assert probability(Calibration(1.0), 3, NOTHING) > 0.9999
    assert probability(Calibration(1.0), 3) > 0.9999
    assert probability(Calibration(1.0, bias=50.0), NOTHING, NOTHING) == 0


def test_a_known_temperature_is_found_again():
    ranking, gold_Q = simulated(temperature=0.05)
    found = fit_calibration(ranking.scores_QK, gold_Q == 1)
    assert found.temperature == pytest.approx(0.05, rel=0.05)
    truth_Q = Calibration(0.05).probability(ranking.scores_QK)
    np.testing.assert_allclose(found.probability(ranking.scores_QK), truth_Q, atol=0.03)


def test_known_weights_are_found_again():
    ranking, _ = simulated(50_000)
    truth = Calibration(0.05, 6.0, 4.0, -4.0)
    right_Q = np.random.default_rng(1).random(50_000) < truth.probability(ranking.scores_QK)
    found_Q = fit_calibration(ranking.scores_QK, right_Q).probability(ranking.scores_QK)
    assert np.abs(found_Q - truth.probability(ranking.scores_QK)).mean() < 0.01
    assert expected_calibration_error(found_Q, right_Q) < 0.01


def test_weights_never_make_the_fit_worse():
    ranking, gold_Q = simulated(2_000)
    right_Q = (gold_Q == 1) & (ranking.scores_QK[:, 0] > 0.55)
    found = fit_calibration(ranking.scores_QK, right_Q)

    def loss(calibration):
        probability_Q = calibration.probability(ranking.scores_QK)
        return -np.log(np.where(right_Q, probability_Q, 1 - probability_Q)).mean()

    assert loss(found) < loss(Calibration(found.temperature))


@pytest.mark.parametrize("right", [True, False])
def test_answers_that_are_all_alike_have_a_finite_fit(right):
    scores_QK = np.array([[0.9, 0.2], [0.8, 0.5], [0.7, 0.3]], np.float32)
    found = fit_calibration(scores_QK, np.full(3, right))
    assert np.all(np.isfinite([found.temperature, found.score_weight, found.margin_weight, found.bias]))
    assert np.all((found.probability(scores_QK) > 0.5) == right)


def test_a_fit_to_nothing_is_refused():
    with pytest.raises(MelError, match="at least one mention with a candidate"):
        fit_calibration(np.full((2, 3), NOTHING), np.zeros(2, bool))


def test_reliability_and_its_error_by_hand():
    probability_Q, right_Q = np.array([0.95, 0.35, 0.95, 0.35]), np.array([True, False, False, False])
    found = reliability(probability_Q, right_Q, bins=10)
    np.testing.assert_allclose(found["confidence"], [0.35, 0.95])
    assert found["accuracy"] == [0, 0.5] and found["mentions"] == [2, 2]
    assert expected_calibration_error(probability_Q, right_Q, bins=10) == pytest.approx((0.35 + 0.45) / 2)


def test_bins_hold_their_upper_edges():
    assert reliability(np.array([0.0, 0.5, 1.0]), np.ones(3), bins=2)["mentions"] == [2, 1]


def test_no_mentions_have_no_error():
    assert expected_calibration_error(np.zeros(0), np.zeros(0, bool)) == 0


def test_a_fold_does_not_see_itself():
    ranking, gold_Q = simulated(400)
    documents = documents_of(gold_Q)
    before = cross_fitted(ranking, gold_Q, documents)
    changed_Q = np.array([name == "page 3" for name in documents])
    after = cross_fitted(ranking, np.where(changed_Q, 5, gold_Q), documents)
    same_Q = np.isclose(before.probability_Q, after.probability_Q, rtol=0, atol=0)
    assert same_Q[changed_Q].all() and 100 < same_Q.sum() < 300
    assert len({(name, same) for name, same in zip(documents, same_Q)}) == len(set(documents))
    same_PQ = before.threshold_PQ == after.threshold_PQ
    assert same_PQ[:, same_Q].all() and not same_PQ[:, ~same_Q].all()


def test_the_order_of_mentions_changes_no_fold():
    ranking, gold_Q = simulated(400)
    documents = np.array(documents_of(gold_Q))
    order = np.random.default_rng(0).permutation(400)
    before = cross_fitted(ranking, gold_Q, documents)
    after = cross_fitted(Ranking(ranking.entities_QK[order], ranking.scores_QK[order]), gold_Q[order], documents[order])
    np.testing.assert_allclose(after.probability_Q, before.probability_Q[order], atol=1e-5)


def test_one_document_cannot_be_halved():
    ranking, gold_Q = simulated(10)
    with pytest.raises(MelError, match="1 document cannot be halved"):
        cross_fitted(ranking, gold_Q, ["a"] * 10)


def test_what_a_report_says():
    ranking, gold_Q = simulated(5_000)
    found = calibrate(ranking, gold_Q, documents_of(gold_Q), kb_of_entities(range(1, 6)))
    assert json.loads(json.dumps(found)) == found
    assert found["temperature"] == pytest.approx(0.05, rel=0.1) and found["ece"] < 0.03
    assert len(found["risk_coverage"]["risk"]) == 200
    assert [point["precision"] for point in found["thresholds"]] == list(PRECISIONS)
    for point in found["thresholds"]:
        assert point["threshold"] is None or point["reached"] == pytest.approx(point["precision"], abs=0.04)
    assert found["threshold"] <= threshold_of(found, 0.9) < found["threshold"] + 0.01  # the curve is thinned
    again = Calibration.from_json(json.loads(json.dumps(found)))
    assert again == fit_calibration(ranking.scores_QK, gold_Q == 1)


def test_golds_outside_the_kb_are_nil_and_so_never_right():
    ranking, gold_Q = simulated(2_000)
    found = calibrate(ranking, gold_Q, documents_of(gold_Q), kb_of_entities(range(2, 6)))
    assert found["risk_coverage"]["risk"][-1] == 1 and found["threshold"] is None
    assert found["held_out"]["nil_mentions"] >= np.count_nonzero(gold_Q == 1)
    same = calibrate(ranking, np.where(gold_Q == 1, NIL, gold_Q), documents_of(gold_Q), kb_of_entities(range(1, 6)))
    assert same == found


MEASURED = {"precision_curve": {"threshold": [0.8, 0.3], "precision": [0.9587, 0.75], "coverage": [0.123, 1.0]}}


@pytest.mark.parametrize("precision, threshold", [(0.01, 0.3), (0.75, 0.3), (0.7501, 0.8), (0.9587, 0.8)])
def test_every_precision_up_to_the_highest_has_a_threshold(precision, threshold):
    assert threshold_of(MEASURED, precision) == threshold


def test_a_precision_that_is_not_reached_is_answered_with_what_is():
    message = "A precision of 0.96 is not reached .*: the most is 0.958, where 12.3% of them are answered."
    with pytest.raises(MelError, match=message):
        threshold_of(MEASURED, 0.96)
    assert threshold_of(MEASURED, 0.958) == 0.8
