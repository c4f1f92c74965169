"""The softmax loss: by hand, against the formula written out, and by what masking and tiles must do."""

import itertools
import math
import os
import subprocess
import sys

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from mel.training.loss import LossConfig, batch_loss, softmax_loss
from mel.types import Batch, MelError

MENTIONS = jnp.array([[1.0, 0.0], [0.0, 1.0]])
CANDIDATES = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
CONFIGS = [LossConfig(20.0, *flags) for flags in itertools.product((False, True), repeat=3)]


def loss_of(
    mentions=MENTIONS, candidates=CANDIDATES, golds=(0, 1), mention_qids=(7, 8), candidate_qids=(7, 8, 9), log_q=None,
    **config,
):  # fmt: skip
    golds, mention_qids, candidate_qids = map(jnp.array, (golds, mention_qids, candidate_qids))
    log_q = None if log_q is None else jnp.array(log_q)
    config = LossConfig(**{"logit_scale": 1.0} | config)
    return softmax_loss(mentions, candidates, golds, mention_qids, candidate_qids, log_q, config)


def log_sum(*logits):
    return math.log(sum(map(math.exp, logits)))


def test_the_loss_by_hand():
    loss, metrics = loss_of()
    first, second = log_sum(1, 0, 0.6) - 1, log_sum(0, 1, 0.8) - 1
    assert float(loss) == pytest.approx((first + second) / 2, abs=1e-6)
    assert float(metrics["loss"]) == float(loss)
    assert float(metrics["accuracy"]) == 1.0


def test_the_logit_scale_multiplies_the_cosine():
    loss, _ = loss_of(logit_scale=20.0)
    first, second = log_sum(20, 0, 12) - 20, log_sum(0, 20, 16) - 20
    assert float(loss) == pytest.approx((first + second) / 2, abs=1e-5)


def test_accuracy_counts_golds_that_score_highest():
    _, metrics = loss_of(golds=(2, 1), mention_qids=(9, 8))
    assert float(metrics["accuracy"]) == 0.5


@pytest.mark.parametrize("tile_rows", [0, 1])
def test_a_false_negative_is_left_out_of_the_sum_and_gets_exactly_no_gradient(tile_rows):
    def loss(candidates):
        return loss_of(
            MENTIONS[jnp.array([0, 0])], candidates, (0, 0), (7, 7), candidate_qids=(7, 8, 7), loss_tile_rows=tile_rows
        )[0]

    value, gradient = jax.value_and_grad(loss)(CANDIDATES)
    assert float(value) == pytest.approx(log_sum(1, 0) - 1, abs=1e-6)
    assert np.array_equal(gradient[2], np.zeros(2))
    assert np.all(gradient[:2, 0] != 0)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("tile_rows", [0, 1])
def test_padding_columns_change_nothing(config, tile_rows):
    options = vars(config) | {"logit_scale": 1.0, "loss_tile_rows": tile_rows}
    padded = jnp.concatenate([CANDIDATES, jnp.ones((3, 2))])

    def loss(candidates):
        return loss_of(
            candidates=candidates, candidate_qids=(7, 8, 9, 0, 0, 0), log_q=(-1.0, -2, -3, 0, 0, 0), **options
        )

    plain, _ = loss_of(log_q=(-1.0, -2, -3), **options)
    assert float(loss(padded)[0]) == pytest.approx(float(plain), abs=1e-6)
    assert float(loss(padded)[1]["accuracy"]) == 1.0
    assert np.array_equal(jax.grad(lambda c: loss(c)[0])(padded)[3:], np.zeros((3, 2)))


def test_both_directions_by_hand():
    """Two mentions of QID 7 and one of 8: each gold against the mentions of the other QID; column 2 takes no part."""
    mentions = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    arguments = {"mentions": mentions, "golds": (0, 0, 1), "mention_qids": (7, 7, 8)}
    onward = log_sum(1, 0, 0.6) - 1 + log_sum(0.6, 0.8, 1.0) - 0.6 + log_sum(0, 1, 0.8) - 1
    back = log_sum(1, 0) - 1 + log_sum(0.6, 0) - 0.6 + log_sum(1, 0, 0.8) - 1
    assert float(loss_of(**arguments)[0]) == pytest.approx(onward / 3, abs=1e-6)
    assert float(loss_of(**arguments, bidirectional=True)[0]) == pytest.approx((onward + back) / 6, abs=1e-6)


def test_a_column_that_reads_like_the_gold_takes_no_part():
    """Column 2 has the text of column 0, the gold of mention 0, and another entity."""
    alone, _ = loss_of(MENTIONS[:1], golds=(0,), mention_qids=(7,), candidates=CANDIDATES[:2], candidate_qids=(7, 8))
    for options in ({}, {"multi_positive": True}, {"loss_tile_rows": 1}):
        arguments = MENTIONS[:1], CANDIDATES, jnp.array([0]), jnp.array([7]), jnp.array([7, 8, 9]), None
        loss, _ = softmax_loss(*arguments, LossConfig(1.0, **options), twin_C=jnp.array([0, 1, 0]))
        assert float(loss) == pytest.approx(float(alone), rel=1e-6)
        heard, _ = softmax_loss(*arguments, LossConfig(1.0, **options), twin_C=jnp.array([0, 1, 2]))
        assert float(heard) > float(alone)


def test_all_columns_of_the_gold_qid_are_positives_by_hand():
    first = log_sum(1, 0, 0.6) - log_sum(1, 0.6)
    second = log_sum(0, 1, 0.8) - 1
    loss, metrics = loss_of(golds=(0, 1), candidate_qids=(7, 8, 7), multi_positive=True)
    assert float(loss) == pytest.approx((first + second) / 2, abs=1e-6)
    assert float(metrics["accuracy"]) == 1.0
    _, metrics = loss_of(MENTIONS[:1], golds=(1,), mention_qids=(8,), candidate_qids=(7, 8, 7), multi_positive=True)
    assert float(metrics["accuracy"]) == 0.0
    _, metrics = loss_of(MENTIONS[:1], golds=(1,), mention_qids=(7,), candidate_qids=(7, 7, 9), multi_positive=True)
    assert float(metrics["accuracy"]) == 1.0  # another column of the gold's QID scores highest


def test_log_q_lowers_the_logits_of_likely_columns_but_not_their_accuracy():
    log_q = (math.log(0.5), math.log(0.1), math.log(0.02))
    loss, metrics = loss_of(log_q=log_q, log_q_correction=True)
    first = log_sum(1 - log_q[0], 0 - log_q[1], 0.6 - log_q[2]) - (1 - log_q[0])
    second = log_sum(0 - log_q[0], 1 - log_q[1], 0.8 - log_q[2]) - (1 - log_q[1])
    assert float(loss) == pytest.approx((first + second) / 2, abs=1e-6)
    assert float(metrics["accuracy"]) == 1.0
    assert float(loss_of(log_q=log_q)[0]) == float(loss_of()[0])


def batch(seed=0, mentions=37, golds=40, dims=8):
    """Embeddings and a batch with repeated golds, false negatives and padding columns."""
    generator = np.random.default_rng(seed)

    def unit(count):
        rows = generator.standard_normal((count, dims))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    gold_column_B = generator.integers(golds, size=mentions)
    qid_C = np.concatenate([generator.integers(1, 25, golds + 6), np.zeros(4, np.int64)])
    log_q_C = np.log(generator.uniform(0.01, 1, golds + 10)).astype(np.float32)
    return (unit(mentions), unit(golds + 10)), (gold_column_B, qid_C[gold_column_B], qid_C, log_q_C)


def written_out(vectors, gold_column_B, gold_B, qid_C, log_q_C, config):
    """The loss as the formulas are read: what each sum runs over is listed, one mention at a time."""
    columns, others = range(len(qid_C)), range(len(gold_B))
    onward, back = ([], []), ([], [])
    for b, (gold, qid) in enumerate(zip(gold_column_B, gold_B)):
        onward[0].append([qid_C[c] == qid if config.multi_positive else c == gold for c in columns])
        onward[1].append([onward[0][b][c] or qid_C[c] not in (0, qid) for c in columns])
        back[0].append([gold_B[m] == qid if config.multi_positive else m == b for m in others])
        back[1].append([back[0][b][m] or gold_B[m] != qid for m in others])

    def direction(logits, answers, everything):
        chosen = (jnp.where(jnp.array(choice), logits, -jnp.inf) for choice in (everything, answers))
        return jnp.mean(jnp.subtract(*(jax.nn.logsumexp(each, axis=1) for each in chosen)))

    logits_BC = config.logit_scale * vectors[0] @ vectors[1].T
    loss = direction(logits_BC - log_q_C[None, :] if config.log_q_correction else logits_BC, *onward)
    return (
        (loss + direction(jnp.take(logits_BC, gold_column_B.astype(np.int32), axis=1).T, *back)) / 2
        if config.bidirectional
        else loss
    )


def value_and_gradients(vectors, rest, config):
    def loss(vectors):
        return softmax_loss(*vectors, *rest, config)

    (value, metrics), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(vectors)
    return float(value), float(metrics["accuracy"]), jax.tree.leaves(gradients)


def distance(ours, theirs):
    """The largest relative distance between arrays; NaN if one of them holds a NaN."""
    norm = np.linalg.norm
    return np.max([norm(one - other) / norm(other) for one, other in zip(ours, theirs, strict=True)])


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_loss_and_gradients_whole_and_by_tiles_are_those_of_the_formula_in_double_precision(config):
    vectors, rest = batch()
    with jax.enable_x64(True):
        wide = tuple(jnp.asarray(x, jnp.float64) for x in vectors)
        reference = jax.value_and_grad(lambda vectors: written_out(vectors, *rest, config))
        expected, slopes = jax.device_get(jax.jit(reference)(wide))
    whole = value_and_gradients(vectors, rest, config)
    assert whole[0] == pytest.approx(float(expected), rel=1e-6)
    assert distance(whole[2], slopes) < 1e-6
    tiled = value_and_gradients(
        vectors, rest, LossConfig(**vars(config) | {"loss_tile_rows": 16})
    )  # 37 mentions: 3 × 13 - 2
    assert tiled[0] == pytest.approx(float(expected), rel=1e-6)
    assert tiled[1] == whole[1]
    assert distance(tiled[2], slopes) < 1e-6


def largest_array(config, mentions=64, candidates=48):
    """The number of elements of the largest array in the loss and its gradients."""
    vectors, rest = batch(mentions=mentions, golds=candidates - 10)

    def loss(vectors):
        return softmax_loss(*vectors, *rest, config)[0]

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (variable.aval.size for variable in equation.outvars)
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from sizes(inner)

    return max(sizes(jax.make_jaxpr(jax.value_and_grad(loss))(vectors).jaxpr))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_by_tiles_no_array_holds_the_logits_of_all_mentions(config):
    assert largest_array(config) >= 64 * 48
    assert (
        largest_array(LossConfig(**vars(config) | {"loss_tile_rows": 8})) <= 8 * 64
    )  # a tile, or embeddings of 8 dims


DEVICES_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tests.training.test_loss import CONFIGS, LossConfig, batch, distance, value_and_gradients
assert jax.device_count() == 8
split = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
for config in (CONFIGS[0], CONFIGS[-1]):
    for tile_rows in (0, 16, 24):
        config = LossConfig(**vars(config) | {"loss_tile_rows": tile_rows})
        one = batch(mentions=64, golds=70)
        (loss, accuracy, gradients), (*ours, slopes) = (
            value_and_gradients(*arrays, config) for arrays in (one, jax.device_put(one, split))
        )
        np.testing.assert_allclose(ours, (loss, accuracy), rtol=1e-6)
        assert distance(slopes, gradients) < 1e-6, config
"""


def test_eight_devices_give_the_loss_and_gradients_of_one():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", DEVICES_PROGRAM, root], env=os.environ | flags, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_refusals():
    with pytest.raises(MelError, match="--loss_tile_rows=-1 must not be below 0"):
        LossConfig(loss_tile_rows=-1)
    for scale in (0.0, -20.0, math.nan):
        with pytest.raises(MelError, match=f"--logit_scale={scale} must be above 0"):
            LossConfig(logit_scale=scale)


@pytest.mark.parametrize("twin", [3, 4])
def test_the_loss_of_a_batch_knows_which_columns_read_alike(twin):
    vectors_ND = np.float32([[1, 0], [1, 0], [0.6, 0.8]])
    columns = {"candidate_row_C": [1, 2], "entity_C": [7, 8], "twin_C": [3, twin], "log_q_C": [0, 0]}
    asked = {"mention_row_B": [0], "gold_column_B": [0], "gold_B": [7]}
    batch = Batch((), **{name: np.array(values) for name, values in (asked | columns).items()})
    value, _ = batch_loss(LossConfig(logit_scale=1.0))(vectors_ND, batch)
    assert float(value) == pytest.approx(0.0 if twin == 3 else log_sum(1.0, 0.6) - 1.0, abs=1e-6)
