"""How sure an answer is: the scores of a mention's candidates to the probability that the best one is right."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mel.corpora.kb import KnowledgeBase
from mel.evaluation.nil import (
    entities_to_remove,
    is_right,
    nil_scores,
    precision_curve,
    risk_coverage,
    threshold_for_precision,
    without_entities,
)
from mel.evaluation.ranking import Ranking
from mel.types import NIL, MelError

PRECISIONS = (0.80, 0.90, 0.95, 0.99)
PRECISION = 0.90  # the one whose threshold stands for all where there is room for one
DEPTH = 10
BINS = 15
REMOVED = 0.1  # share of the entities that the KB is tried without
DIGITS = 6  # beyond them, fitted numbers differ from machine to machine
LOG_TEMPERATURES = np.linspace(np.log(1e-3), np.log(1e2), 26)
MOST_LOG_ODDS = 10.0  # of a candidate without rivals
RIDGE = 1e-6


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Turns the scores of a mention's candidates into the probability that the best one is right.

    With the scores s_1 >= s_2 >= ... of the first `depth` candidates,

        log odds = s_1/T - log(sum_{k>1} exp(s_k/T)) + score_weight s_1 + margin_weight (s_1 - s_2) + bias

    The first two terms are the log odds of the best candidate in a softmax at the temperature T (Guo
    et al. 2017, "On Calibration of Modern Neural Networks"); the others are a logistic regression on
    the best score and its margin, fitted as by Platt 1999 ("Probabilistic Outputs for Support Vector
    Machines"). With weights of 0 it is temperature scaling alone.
    """

    temperature: float
    score_weight: float = 0.0
    margin_weight: float = 0.0
    bias: float = 0.0
    depth: int = DEPTH

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """The calibration in a mapping that may hold more, such as that of `calibrate`."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})

    def probability(self, scores_QK: np.ndarray) -> np.ndarray:
        """The probability that the best candidate is right, float64 [Q]; 0 where there is none.

        Args:
          scores_QK: never rising along a row, -inf where padded.
        """
        answered_Q = np.isfinite(scores_QK[:, 0])
        scores_QK = _padded(scores_QK[answered_Q], self.depth)
        weights = self.score_weight, self.margin_weight, self.bias
        probability_Q = np.zeros(len(answered_Q))
        log_odds_Q = _softmax_log_odds(scores_QK, self.temperature)
        for weight, feature_Q in zip(weights, _features(scores_QK).T, strict=True):  # no bit depends on other mentions
            log_odds_Q = log_odds_Q + weight * feature_Q
        probability_Q[answered_Q] = _expit(log_odds_Q)
        return probability_Q


class CrossFitted(NamedTuple):
    """What calibrations say of the mentions that they were not fitted on.

    Attributes:
      probability_Q: float64, of the best candidate being right.
      threshold_PQ: float64, for each precision asked for, the probability from which a mention is
        answered; inf where the other fold never reaches that precision.
    """

    probability_Q: np.ndarray
    threshold_PQ: np.ndarray


def fit_calibration(scores_QK: np.ndarray, right_Q: np.ndarray, depth: int = DEPTH) -> Calibration:
    """Fits first the temperature, then the weights beside it, each by the likelihood of `right_Q`.

    Platt's smoothed targets keep both finite where all answers, or none, are right.

    Args:
      scores_QK: never rising along a row, -inf where padded.
      right_Q: whether the best candidate is right.
      depth: how many candidates the softmax is over.

    Raises:
      MelError: no mention has a candidate.
    """
    answered_Q = np.isfinite(scores_QK[:, 0])
    scores_QK, right_Q = _padded(scores_QK[answered_Q], depth), np.asarray(right_Q, bool)[answered_Q]
    if not len(right_Q):
        raise MelError("A calibration needs at least one mention with a candidate: choose other mentions.")
    hits = np.count_nonzero(right_Q)
    target_Q = np.where(right_Q, (hits + 1) / (hits + 2), 1 / (len(right_Q) - hits + 2))
    temperature = round(_best_temperature(scores_QK, target_Q), DIGITS)
    offset_Q = _softmax_log_odds(scores_QK, temperature)
    weights = (round(weight, DIGITS) for weight in _logistic(_features(scores_QK), offset_Q, target_Q).tolist())
    score_weight, margin_weight, bias = weights
    return Calibration(temperature, score_weight, margin_weight, bias, depth)


def cross_fitted(
    ranking: Ranking, gold_Q: np.ndarray, documents: Sequence[str], precisions: Sequence[float] = PRECISIONS
) -> CrossFitted:
    """Fits on each half of the documents and applies to the other half.

    The documents are halved by turns, in the order of a hash of their names.

    Args:
      ranking: the candidates of Q mentions.
      gold_Q: the gold of each, NIL where no candidate can be right.
      documents: the document of each.
      precisions: those to find thresholds for.

    Raises:
      MelError: there are fewer than two documents, or half of them have no candidate.
    """
    right_Q = is_right(ranking, gold_Q)
    names, document_Q = np.unique(np.asarray(documents, np.str_), return_inverse=True)
    if len(names) < 2:
        raise MelError(f"{len(names)} document cannot be halved for a calibration: two are the least.")
    fold_of = np.empty(len(names), np.int64)
    fold_of[np.argsort([zlib.crc32(name.encode()) for name in names], kind="stable")] = np.arange(len(names)) % 2
    result = CrossFitted(np.empty(len(right_Q)), np.empty((len(precisions), len(right_Q))))
    for fold in range(2):
        in_fold_Q = fold_of[document_Q] == fold
        calibration = fit_calibration(ranking.scores_QK[~in_fold_Q], right_Q[~in_fold_Q])
        probability_Q = calibration.probability(ranking.scores_QK)
        result.probability_Q[in_fold_Q] = probability_Q[in_fold_Q]
        for level, precision in enumerate(precisions):
            threshold = threshold_for_precision(probability_Q[~in_fold_Q], right_Q[~in_fold_Q], precision)
            result.threshold_PQ[level, in_fold_Q] = np.inf if threshold is None else threshold
    return result


def reliability(probability_Q: np.ndarray, right_Q: np.ndarray, bins: int = BINS) -> dict[str, list]:
    """Mean probability ("confidence"), share of right answers ("accuracy") and "mentions" of each bin of
    equal width that is not empty, as by Guo et al. 2017."""
    bin_Q = np.clip(np.ceil(probability_Q * bins).astype(np.int64) - 1, 0, bins - 1)
    mentions_b = np.bincount(bin_Q, minlength=bins)
    filled = mentions_b > 0
    confidence_b, accuracy_b = (np.bincount(bin_Q, values_Q, bins)[filled] for values_Q in (probability_Q, right_Q))
    mentions_b = mentions_b[filled]
    return {
        "confidence": (confidence_b / mentions_b).tolist(),
        "accuracy": (accuracy_b / mentions_b).tolist(),
        "mentions": mentions_b.tolist(),
    }


def expected_calibration_error(probability_Q: np.ndarray, right_Q: np.ndarray, bins: int = BINS) -> float:
    """The mean distance of confidence and accuracy over bins of equal width, each weighing as many mentions
    as it holds (Guo et al. 2017, equation 3)."""
    of = {name: np.asarray(values) for name, values in reliability(probability_Q, right_Q, bins).items()}
    return float(of["mentions"] @ np.abs(of["confidence"] - of["accuracy"])) / max(len(probability_Q), 1)


def calibrate(ranking: Ranking, gold_Q: np.ndarray, documents: Sequence[str], kb: KnowledgeBase) -> dict[str, Any]:
    """A report's "calibration": the calibration fitted on all mentions, and its quality.

    What it is fitted on says nothing of its quality, so every figure of quality comes from `cross_fitted`.

    Args:
      ranking: the candidates of Q mentions.
      gold_Q: the gold of each.
      documents: the document of each.
      kb: the entities that there are.

    Raises:
      MelError: there are fewer than two documents, or half of them have no candidate.
    """
    gold_Q = np.where(kb.entity_rows.has(gold_Q), gold_Q, NIL)
    right_Q = is_right(ranking, gold_Q)
    calibration = fit_calibration(ranking.scores_QK, right_Q)
    probability_Q = calibration.probability(ranking.scores_QK)
    thresholds = {precision: threshold_for_precision(probability_Q, right_Q, precision) for precision in PRECISIONS}
    crossed = cross_fitted(ranking, gold_Q, documents)
    operating = [
        {"precision": precision, "threshold": threshold, **_reached(right_Q, crossed, level)}
        for level, (precision, threshold) in enumerate(thresholds.items())
    ]
    curve = risk_coverage(crossed.probability_Q, right_Q)
    return dataclasses.asdict(calibration) | {
        "how": "two-fold over documents",
        "ece": expected_calibration_error(crossed.probability_Q, right_Q),
        "area": curve.pop("area"),
        "risk_coverage": curve,
        "reliability": reliability(crossed.probability_Q, right_Q),
        "threshold": thresholds[PRECISION],
        "thresholds": operating,
        "precision_curve": precision_curve(probability_Q, right_Q),
        "held_out": _scores_without_some(ranking, gold_Q, documents, kb),
    }


def threshold_of(measured: Mapping[str, Any], precision: float) -> float:
    """The least threshold above which so many answers are right, by what `calibrate` measured.

    Raises:
      MelError: no threshold reaches it.
    """
    if "precision_curve" not in measured:
        raise MelError("This calibration was made before it held a curve of precisions: make it again.")
    curve = measured["precision_curve"]
    reached = [place for place, value in enumerate(curve["precision"]) if value >= precision]
    if not reached:
        raise MelError(
            f"A precision of {precision} is not reached on the mentions of the calibration: the most is "
            f"{math.floor(curve['precision'][0] * 1000) / 1000}, where {curve['coverage'][0]:.1%} of them are answered."
        )
    return curve["threshold"][reached[-1]]


def _scores_without_some(
    ranking: Ranking, gold_Q: np.ndarray, documents: Sequence[str], kb: KnowledgeBase
) -> dict[str, Any]:
    """NIL by the threshold for `PRECISION`, with `REMOVED` of the entities taken out of the KB."""
    named = np.union1d(ranking.entities_QK, gold_Q)
    ranking, gold_Q = without_entities(ranking, gold_Q, entities_to_remove(named, kb.ids, REMOVED))
    crossed = cross_fitted(ranking, gold_Q, documents, [PRECISION])
    answered_Q = crossed.probability_Q >= crossed.threshold_PQ[0]
    return {
        "share": REMOVED,
        "precision": PRECISION,
        "nil_mentions": int(np.count_nonzero(gold_Q == NIL)),
        "ece": expected_calibration_error(crossed.probability_Q, is_right(ranking, gold_Q)),
        **nil_scores(ranking, gold_Q, answered_Q),
    }


def _reached(right_Q: np.ndarray, crossed: CrossFitted, level: int) -> dict[str, float]:
    answered_Q = crossed.probability_Q >= crossed.threshold_PQ[level]
    answered = np.count_nonzero(answered_Q)
    return {
        "reached": np.count_nonzero(right_Q & answered_Q) / max(answered, 1),
        "coverage": answered / max(len(right_Q), 1),
    }


def _padded(scores_QK: np.ndarray, depth: int) -> np.ndarray:
    """The first `depth` scores of each row and a missing one after them, so that all have a second; float64."""
    return np.pad(scores_QK[:, :depth].astype(np.float64), ((0, 0), (0, 1)), constant_values=-np.inf)


def _softmax_log_odds(scores_QK: np.ndarray, temperature: float) -> np.ndarray:
    """The log odds of the first column in a softmax of scores over the temperature, float64 [Q]."""
    scaled_QK = scores_QK / temperature
    log_odds_Q = scaled_QK[:, 0] - np.logaddexp.reduce(scaled_QK[:, 1:], axis=1)
    return np.clip(log_odds_Q, -MOST_LOG_ODDS, MOST_LOG_ODDS)


def _expit(log_odds: np.ndarray) -> np.ndarray:
    """The probabilities of log odds."""
    return np.exp(-np.logaddexp(0, -log_odds))


def _features(scores_QK: np.ndarray) -> np.ndarray:
    """Best score, margin to the second (0 where there is none) and 1 of each row; float64 [Q, 3]."""
    best_Q, second_Q = scores_QK[:, 0], scores_QK[:, 1]
    margin_Q = np.where(np.isfinite(second_Q), best_Q - second_Q, 0.0)
    return np.stack([best_Q, margin_Q, np.ones_like(best_Q)], axis=1)


def _best_temperature(scores_QK: np.ndarray, target_Q: np.ndarray) -> float:
    """The temperature of least loss: the best of a grid, refined between its neighbours."""
    from scipy import optimize  # here and below, because a linker has no use for it and would start later

    def loss(log_temperature: float) -> float:
        log_odds_Q = _softmax_log_odds(scores_QK, np.exp(log_temperature))
        return float(np.mean(np.logaddexp(0, log_odds_Q) - target_Q * log_odds_Q))

    best = int(np.argmin([loss(log_temperature) for log_temperature in LOG_TEMPERATURES]))
    bounds = LOG_TEMPERATURES[max(best - 1, 0)], LOG_TEMPERATURES[min(best + 1, len(LOG_TEMPERATURES) - 1)]
    found: Any = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    return float(np.exp(found.x))


def _logistic(features_QF: np.ndarray, offset_Q: np.ndarray, target_Q: np.ndarray) -> np.ndarray:
    """The weights of a logistic regression beside a fixed offset; a trace of ridge where features are collinear."""
    from scipy import optimize

    def loss_and_slope(weights_F: np.ndarray) -> tuple[float, np.ndarray]:
        log_odds_Q = offset_Q + features_QF @ weights_F
        loss = np.mean(np.logaddexp(0, log_odds_Q) - target_Q * log_odds_Q) + RIDGE * weights_F @ weights_F
        error_Q = _expit(log_odds_Q) - target_Q
        return float(loss), features_QF.T @ error_Q / len(error_Q) + 2 * RIDGE * weights_F

    def curvature(weights_F: np.ndarray) -> np.ndarray:
        probability_Q = _expit(offset_Q + features_QF @ weights_F)
        weighted_QF = features_QF * (probability_Q * (1 - probability_Q))[:, None]
        return weighted_QF.T @ features_QF / len(offset_Q) + 2 * RIDGE * np.eye(len(weights_F))

    start_F = np.zeros(features_QF.shape[1])
    how = {"method": "trust-exact", "options": {"gtol": 1e-12}}
    return optimize.minimize(loss_and_slope, start_F, jac=True, hess=curvature, **how).x
