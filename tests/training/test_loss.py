"""The softmax loss, by hand and by what masking must do."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mel.training.loss import softmax_loss

MENTIONS = jnp.array([[1.0, 0.0], [0.0, 1.0]])
CANDIDATES = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])


def loss_of(
    mentions=MENTIONS, candidates=CANDIDATES, golds=(0, 1), mention_qids=(7, 8), candidate_qids=(7, 8, 9), scale=1.0
):
    return softmax_loss(mentions, candidates, *map(jnp.array, (golds, mention_qids, candidate_qids)), scale)


def test_the_loss_by_hand():
    loss, metrics = loss_of()
    first = math.log(math.exp(1) + math.exp(0) + math.exp(0.6)) - 1
    second = math.log(math.exp(0) + math.exp(1) + math.exp(0.8)) - 1
    assert float(loss) == pytest.approx((first + second) / 2, abs=1e-6)
    assert float(metrics["accuracy"]) == 1.0


def test_the_logit_scale_multiplies_the_cosine():
    loss, _ = loss_of(scale=20.0)
    second = math.log(1 + math.exp(20) + math.exp(16)) - 20
    first = math.log(math.exp(20) + 1 + math.exp(12)) - 20
    assert float(loss) == pytest.approx((first + second) / 2, abs=1e-5)


def test_accuracy_counts_golds_that_score_highest():
    _, metrics = loss_of(golds=(2, 1), mention_qids=(9, 8))
    assert float(metrics["accuracy"]) == 0.5


def test_a_false_negative_is_left_out_of_the_sum_and_gets_exactly_no_gradient():
    masked, _ = loss_of(candidate_qids=(7, 8, 7))
    first = math.log(math.exp(1) + math.exp(0)) - 1
    second = math.log(math.exp(0) + math.exp(1) + math.exp(0.8)) - 1
    assert float(masked) == pytest.approx((first + second) / 2, abs=1e-6)
    gradient = jax.grad(
        lambda c: loss_of(mentions=MENTIONS[:1], candidates=c, golds=(0,), mention_qids=(7,), candidate_qids=(7, 8, 7))[
            0
        ]
    )
    assert np.array_equal(gradient(CANDIDATES)[2], np.zeros(2))


def test_padding_columns_change_nothing():
    padded = jnp.concatenate([CANDIDATES, jnp.ones((3, 2))])
    loss, metrics = loss_of(candidates=padded, candidate_qids=(7, 8, 9, 0, 0, 0))
    assert float(loss) == float(loss_of()[0])
    assert float(metrics["accuracy"]) == 1.0
    gradient = jax.grad(lambda c: loss_of(candidates=c, candidate_qids=(7, 8, 9, 0, 0, 0))[0])(padded)
    assert np.array_equal(gradient[3:], np.zeros((3, 2)))
