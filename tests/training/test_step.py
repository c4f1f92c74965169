"""One step against a plain one: grouping, chunks and devices change nothing."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mel.encoder.transformer import BertEncoder
from mel.training.loss import softmax_loss
from mel.training.state import LOG_LOGIT_SCALE, learning_rate_schedule, make_optimizer
from mel.training.step import make_encode, make_mesh, make_step, put_batch
from tests.training.conftest import ENCODER, OPTIMIZER


def plain_gradients(params, source, n):
    """Loss and gradients with every text in one padded array, each encoded as it stands."""
    mention_rows = source.mention_rows(n)
    entity_rows = source.entity_rows(mention_rows)
    golds = source.mentions.entity_rows_N[mention_rows]

    def loss(params):
        encode = lambda rows, ids: BertEncoder(ENCODER).apply({"params": params["encoder"]}, rows.gather(ids, 32))
        mention_BD, candidate_CD = encode(source.mentions.rows, mention_rows), encode(source.entities.rows, entity_rows)
        qids = source.entities.qids_N
        return softmax_loss(
            mention_BD, candidate_CD, jnp.searchsorted(entity_rows, golds), qids[golds], qids[entity_rows], 20.0
        )[0]

    return jax.value_and_grad(loss)(params)


def test_loss_and_gradients_equal_the_plain_ones(source, new_state):
    state = new_state()
    loss, gradients = plain_gradients(state.params, source, 3)
    batch = source.batch_at(3, source.plan())
    encode = make_encode(ENCODER, lambda width: 64 // width, make_mesh())

    def ours(params):
        embeddings_ND = encode(params["encoder"], batch.tokens, jax.random.key(0))
        return softmax_loss(embeddings_ND[batch.mention_row_B], embeddings_ND[batch.candidate_row_C], *batch[3:], 20.0)[
            0
        ]

    our_loss, our_gradients = jax.jit(jax.value_and_grad(ours))(state.params)
    assert float(our_loss) == pytest.approx(float(loss), rel=1e-6)
    distance = optax.tree.norm(jax.tree.map(jnp.subtract, our_gradients, gradients))
    assert float(distance / optax.tree.norm(gradients)) < 1e-5


def test_steps_lower_the_loss_and_report_it(source, new_state, step):
    layouts, state, losses = source.plan(), new_state(), []
    for n in range(16):
        state, metrics = step(state, put_batch(source.batch_at(n % 4, layouts), make_mesh()))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] / 2
    assert int(state.step) == 16
    assert float(metrics["learning_rate"]) == pytest.approx(float(learning_rate_schedule(OPTIMIZER)(15)))


def test_a_batch_in_the_layout_that_holds_any_gives_the_same_step(source, new_state, step):
    usual, widest = source.plan()
    assert 0 in widest.texts
    _, metrics = step(new_state(), put_batch(source.batch_at(0, (usual, widest)), make_mesh()))
    _, again = step(new_state(), put_batch(source.batch_at(0, (widest,)), make_mesh()))
    assert float(again["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)
    assert float(again["gradient_norm"]) == pytest.approx(float(metrics["gradient_norm"]), rel=1e-5)


def test_a_learned_logit_scale_moves(source, new_state, step):
    state, metrics = step(new_state(learned=True), put_batch(source.batch_at(0, source.plan()), make_mesh()))
    assert float(metrics["logit_scale"]) == pytest.approx(20)
    assert float(jnp.exp(state.params[LOG_LOGIT_SCALE])) != pytest.approx(20)


def test_the_same_seed_gives_the_same_dropout_and_another_seed_another(source, new_state):
    def loss_with(seed):
        encoder = dataclasses.replace(ENCODER, dropout=0.3)
        step = make_step(
            encoder,
            make_optimizer(OPTIMIZER),
            learning_rate_schedule(OPTIMIZER),
            20.0,
            lambda w: 64 // w,
            make_mesh(),
            seed,
        )
        return float(step(new_state(), put_batch(source.batch_at(0, source.plan()), make_mesh()))[1]["loss"])

    assert loss_with(0) == loss_with(0) != loss_with(1)


DEVICES_PROGRAM = """
import dataclasses, json, sys
sys.path.insert(0, sys.argv[1])
import jax, numpy as np
from tests.training import conftest as c
from mel.training.step import make_mesh, make_step, put_batch, replicated
source = dataclasses.replace(c.source.__wrapped__(), devices=jax.device_count())
state = jax.device_put(c.new_state.__wrapped__()(), replicated(make_mesh()))
step, losses = c.step.__wrapped__(), []
for n in range(3):
    state, metrics = step(state, put_batch(source.batch_at(n, source.plan()), make_mesh()))
    losses.append(float(metrics["loss"]))
leaves = [np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(state.params)]
print(json.dumps([jax.device_count(), losses, np.concatenate(leaves)[::7].tolist(), float(metrics["gradient_norm"])]))
"""


def test_eight_devices_give_the_losses_and_parameters_of_one():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    def run(devices):
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, "-c", DEVICES_PROGRAM, root], env=environment, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout.splitlines()[-1])

    (one, losses, params, norm), (eight, losses8, params8, norm8) = run(1), run(8)
    assert (one, eight) == (1, 8)
    assert losses8 == pytest.approx(losses, rel=1e-5)
    assert norm8 == pytest.approx(norm, rel=1e-4)
    assert np.allclose(params8, params, atol=2e-5)
