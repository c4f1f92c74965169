"""One step against a plain one: grouping, chunks and devices change nothing."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mel.encoder.backend import Compute
from mel.encoder.transformer import BertEncoder, init_params
from mel.encoder.vocabulary import Vocabulary
from mel.shards.datasets import RowSet
from mel.shards.rows import TokenRows
from mel.training.encoding import what_is_kept
from mel.training.loss import LossConfig, batch_loss, softmax_loss
from mel.training.state import create_state, learning_rate_schedule, make_optimizer
from mel.training.step import make_encode, make_mesh, put_batch
from tests.training.conftest import CHUNK_TOKENS, ENCODER, OPTIMIZER, TOTAL_STEPS, new_step


def plain_gradients(params, source, n):
    """Loss and gradients with every text in one padded array, each encoded as it stands."""
    mention_rows = source.mention_rows(n)
    entity_rows = source.entity_rows(mention_rows)
    golds = source.mentions.entity_rows_N[mention_rows]

    def loss(params):
        def encode(rows, ids):
            return BertEncoder(ENCODER).apply({"params": params}, rows.gather(ids, 32))

        mention_BD, candidate_CD = encode(source.mentions.rows, mention_rows), encode(source.entities.rows, entity_rows)
        qids = source.entities.entities_N
        return softmax_loss(
            mention_BD, candidate_CD, jnp.searchsorted(entity_rows, golds), qids[golds], qids[entity_rows], None
        )[0]

    return jax.jit(jax.value_and_grad(loss))(params)


def our_gradients(params, batch, config=LossConfig()):
    """The same by the code of a step, on all devices."""
    encode = make_encode(ENCODER, CHUNK_TOKENS, make_mesh())

    def loss(params):
        return batch_loss(config)(encode(params, batch.tokens, jax.random.key(0)), batch)[0]

    return jax.jit(jax.value_and_grad(loss))(params)


def test_loss_and_gradients_equal_the_plain_ones(source, new_state):
    params = new_state().params
    loss, gradients = plain_gradients(params, source, 3)
    our_loss, ours = our_gradients(params, source.batch_at(3, source.plan()))
    assert float(our_loss) == pytest.approx(float(loss), rel=1e-6)
    distance = optax.tree.norm(jax.tree.map(jnp.subtract, ours, gradients))
    assert float(distance / optax.tree.norm(gradients)) < 1e-5


def test_steps_lower_the_loss_and_report_it(source, new_state, step):
    layouts, state, losses = source.plan(), new_state(), []
    for n in range(16):
        state, metrics = step(state, put_batch(source.batch_at(n % 4, layouts), make_mesh()))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.7 * losses[0]
    assert int(state.step) == 16
    assert float(metrics["learning_rate"]) == pytest.approx(float(learning_rate_schedule(OPTIMIZER, TOTAL_STEPS)(15)))


def test_a_batch_in_the_layout_that_holds_any_gives_the_same_step(source, new_state, step):
    usual, widest = source.plan()
    assert 0 in widest.texts
    _, metrics = step(new_state(), put_batch(source.batch_at(0, (usual, widest)), make_mesh()))
    _, again = step(new_state(), put_batch(source.batch_at(0, (widest,)), make_mesh()))
    assert float(again["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)
    assert float(again["gradient_norm"]) == pytest.approx(float(metrics["gradient_norm"]), rel=1e-5)


def test_training_the_rows_in_use_is_training_the_full_table(source, step):
    used = [source.mentions.rows.tokens_T[:40]]
    few = TokenRows.from_rows([row[:2] for row in np.split(used[0], 20)])
    mentions = RowSet(few, source.mentions.entities_N[:20], np.zeros(20), source.mentions.entity_rows_N[:20])
    entities = RowSet(few, source.entities.entities_N, np.zeros(20), np.arange(20))
    params = init_params(ENCODER, 0)
    vocabulary = Vocabulary.of(used, params)
    assert 1 < len(vocabulary.token_ids_v) < ENCODER.vocab_size
    small = dataclasses.replace(source, mentions=mentions, entities=entities, negatives=None)
    layouts, mesh = small.plan(), make_mesh()

    def train(source, params):
        state = create_state(params, make_optimizer(OPTIMIZER, TOTAL_STEPS))
        for n in range(3):
            state, _ = step(state, put_batch(source.batch_at(n, layouts), mesh))
        return jax.device_get(state.params)

    full = train(small, params)
    compact = train(dataclasses.replace(small, compact_id_V=vocabulary.compact_id_V), vocabulary.compact(params))
    # The gradient's norm sums zeros in another order, so the clipped steps agree up to rounding. Softmax does
    # not see the bias of the keys: its gradient is nothing but rounding, which Adam makes into whole steps.
    restored = vocabulary.full(compact)
    for params in (restored, full):
        del params["layers"]["key"]["bias"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), restored, full)
    unused = np.delete(full["embeddings"]["word"]["embedding"], vocabulary.token_ids_v, axis=0)
    np.testing.assert_array_equal(unused, np.delete(vocabulary.table_VD, vocabulary.token_ids_v, axis=0))


@pytest.mark.parametrize("layers, pooling", [(2, "mean"), (5, "mean"), (5, "cls")])
def test_however_texts_are_cut_the_gradients_are_the_same(layers, pooling):
    encoder = dataclasses.replace(ENCODER, num_layers=layers, pooling=pooling)
    generator = np.random.default_rng(0)
    groups = tuple(generator.integers(1, 64, shape, np.int32) for shape in ((8, 8), (0, 12), (12, 16)))
    weight_ND = generator.standard_normal((20, ENCODER.hidden_size), np.float32)

    def gradients(chunk_tokens, kept_bytes, product_bytes=0):
        compute = Compute(kept_bytes=kept_bytes, product_bytes=product_bytes)
        encode = make_encode(encoder, chunk_tokens, make_mesh(), compute)
        return jax.jit(jax.grad(lambda params: (encode(params, groups, jax.random.key(0)) * weight_ND).sum()))(
            init_params(encoder, 0)
        )

    at_once = gradients(1 << 20, 1 << 30)
    # Of a deep encoder with what its dense layers gave; and in chunks with states kept, or encoded again.
    for otherwise in (
        (1 << 20, 1 << 30, 1 << 30),
        (CHUNK_TOKENS, 1 << 30),
        (CHUNK_TOKENS, 0),
        (CHUNK_TOKENS, 0, 1 << 30),
    ):
        found = gradients(*otherwise)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), found, at_once)


def test_products_are_kept_where_there_is_room_for_those_of_all_positions():
    deep = dataclasses.replace(ENCODER, num_layers=24, hidden_size=128, ffn_size=512)
    needed = 1000 * 24 * (5 * 128 + 512) * 2
    kept = [what_is_kept(deep, 1000, Compute("bfloat16", product_bytes=room)) for room in (needed, needed - 1, 0)]
    assert kept == ["products", "states", "states"]
    assert what_is_kept(dataclasses.replace(deep, num_layers=4), 1000, Compute()) == "all"


def test_dropout_follows_seed_and_step(source):
    encoder, batch = dataclasses.replace(ENCODER, num_layers=1, dropout=0.3), source.batch_at(0, source.plan())

    def losses(seed, *steps):
        optimizer = make_optimizer(OPTIMIZER, TOTAL_STEPS)
        states = (create_state(init_params(encoder, 0), optimizer)._replace(step=jnp.int32(number)) for number in steps)
        step = new_step(encoder, seed=seed)
        return [float(step(state, put_batch(batch, make_mesh()))[1]["loss"]) for state in states]

    once, again, later = losses(0, 0, 0, 5)
    (other,) = losses(1, 0)
    assert once == again
    assert len({once, later, other}) == 3


DROPPING = dataclasses.replace(ENCODER, dropout=0.5)
SAME_ROWS = np.random.default_rng(0).integers(1, 64, (4, 8))
DROPOUT_KEY = 3
DEVICES_PROGRAM = """
import dataclasses, sys
sys.path.insert(0, sys.argv[1])
import jax, numpy as np
from tests.training import conftest, test_step
from mel.training.loss import LossConfig
from mel.training.step import make_mesh, put_batch, replicated
source = dataclasses.replace(conftest.source.__wrapped__(), devices=jax.device_count(), log_q=True)
params = jax.device_put(conftest.new_state.__wrapped__()().params, replicated(make_mesh()))
loss, gradients = test_step.our_gradients(params, put_batch(source.batch_at(3, source.plan()), make_mesh()),
    LossConfig(bidirectional=True, multi_positive=True, log_q_correction=True, loss_tile_rows=8))
flat = np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(gradients)])
np.savez(sys.argv[2], devices=jax.device_count(), loss=loss, gradients=flat, dropped=test_step.dropped(params))
"""


def dropped(params):
    """The embeddings of SAME_ROWS by each device, with dropout [devices, rows, D]."""
    devices = jax.device_count()
    encode = make_encode(DROPPING, CHUNK_TOKENS, make_mesh())
    tokens_NL = np.tile(SAME_ROWS, (devices, 1))
    embeddings_ND = jax.jit(encode)(params, (tokens_NL,), jax.random.key(DROPOUT_KEY))
    return np.asarray(embeddings_ND).reshape(devices, *SAME_ROWS.shape[:1], -1)


def found_by(devices, folder):
    """What DEVICES_PROGRAM finds on so many devices."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-c", DEVICES_PROGRAM, root, str(folder / f"{devices}.npz")]
    subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}, check=True)
    return dict(np.load(folder / f"{devices}.npz"))


def test_eight_devices_give_the_loss_and_gradients_of_one_and_each_drops_its_own_units(tmp_path, new_state):
    one, eight = (found_by(devices, tmp_path) for devices in (1, 8))
    assert (one["devices"], eight["devices"]) == (1, 8)
    assert float(eight["loss"]) == pytest.approx(float(one["loss"]), rel=1e-6)
    difference = np.linalg.norm(eight["gradients"] - one["gradients"])
    assert difference < 1e-5 * np.linalg.norm(one["gradients"])
    one, eight = one["dropped"], eight["dropped"]  # device d drops by the key folded with d, and it encodes all at once
    assert len({device.tobytes() for device in eight}) == 8
    np.testing.assert_allclose(one[0], eight[0], atol=1e-6)
    model, params = BertEncoder(DROPPING), new_state().params
    drop = jax.jit(lambda key: model.apply({"params": params}, SAME_ROWS, False, rngs={"dropout": key}))
    for device, embeddings_ND in enumerate(eight):
        key = jax.random.fold_in(jax.random.key(DROPOUT_KEY), device)
        np.testing.assert_allclose(embeddings_ND, drop(key), atol=1e-5)


def test_no_group_or_chunk_drops_out_like_another(new_state):
    encode = jax.jit(make_encode(dataclasses.replace(ENCODER, dropout=0.5), 16, make_mesh()))  # chunks of two texts
    texts = np.ones((4, 8), np.int32)
    rows_ND = np.asarray(encode(new_state().params, (texts, texts), jax.random.key(0)))
    assert len(np.unique(np.round(rows_ND, 5), axis=0)) == 8  # of one text
