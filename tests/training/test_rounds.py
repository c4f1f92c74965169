"""A round: every setting reaches the step, a round begun goes on with its own settings only, results are published.

The step is a stand-in that computes nothing, so that what is around it shows, and soon.
"""

import dataclasses
import functools
import inspect
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mel.artifacts import START, Workdir, exists, open_artifact
from mel.checks import CHECKS
from mel.encoder.backend import ComputeConfig
from mel.reports.page import read_curves
from mel.shards.datasets import open_rows
from mel.shards.negatives import Negatives, publish_negatives
from mel.training import rounds
from mel.training.loss import LossConfig
from mel.training.rounds import RoundConfig, WatchConfig, train_round
from mel.training.state import OptimizerConfig
from mel.training.step import make_step
from mel.types import Batch, MelError
from mel.verification import verify
from tests.training import test_loss

LOSSES = [
    LossConfig(logit_scale=7.0, loss_tile_rows=8),
    LossConfig(bidirectional=True),
    LossConfig(multi_positive=True),
    LossConfig(log_q_correction=True),
]


class Stopped(Exception):
    """Stands for whatever ends a process."""


class Steps:
    """Takes the place of `make_step`: notes what it is asked for, and gives a step that notes its batches.

    Attributes:
      asked: the arguments by name.
      made: how many steps were asked for.
      batches: all that were stepped on.
      most: the step after so many is not made.
    """

    def __init__(self):
        self.asked, self.made, self.batches, self.most = {}, 0, [], 1000

    def __call__(self, *arguments, **named):
        self.asked = inspect.signature(make_step).bind(*arguments, **named).arguments
        self.made += 1
        return self._step

    def _step(self, state, batch):
        if len(self.batches) == self.most:
            raise Stopped
        self.batches.append(jax.device_get(batch))
        return state._replace(step=state.step + 1), {"loss": jnp.ones(()), "accuracy": jnp.ones(())}


@pytest.fixture
def steps(monkeypatch):
    steps = Steps()
    monkeypatch.setattr(rounds, "make_step", steps)
    monkeypatch.setattr(rounds, "_step", functools.lru_cache(maxsize=1)(rounds._step.__wrapped__))
    return steps


@pytest.fixture
def run(prepared, tmp_path):
    """Trains a round of four steps in a working directory of the test's own."""
    workdir = shutil.copytree(prepared, tmp_path / "run")

    def run(**otherwise):
        few = {"rounds": 2, "steps_per_round": 4, "batch_size": 16, "encoder": "random:1x16x2", "save_every": 2}
        train_round(RoundConfig(workdir=str(workdir), **few | otherwise))
        return Workdir(workdir)

    return run


@pytest.mark.parametrize("config", LOSSES, ids=str)
def test_every_flag_of_the_loss_reaches_the_step(run, steps, config):
    run(loss=config)
    vectors, rest = test_loss.batch()
    mentions, candidates = map(len, vectors)
    rows = np.arange(mentions), mentions + np.arange(candidates)
    fields = "gold_column_B", "gold_B", "entity_C", "log_q_C"
    batch = Batch((), *rows, **dict(zip(fields, rest, strict=True)), twin_C=np.arange(candidates))
    value, _ = steps.asked["loss"](jnp.concatenate(vectors), batch)
    assert float(value) == pytest.approx(float(test_loss.written_out(vectors, *rest, config)), rel=1e-5)
    program = jax.make_jaxpr(steps.asked["loss"])(jnp.concatenate(vectors), batch)
    assert ("scan" in str(program)) == (config.loss_tile_rows > 0)
    assert all(batch.log_q_C.any() == config.log_q_correction for batch in steps.batches)


def test_every_flag_of_the_optimiser_reaches_the_step(run, steps):
    """Eight steps in all: two to rise, then six to fall to a hundredth. Adam moves by the rate, and by decay."""
    run(optimizer=OptimizerConfig(0.5, warmup_steps=2, schedule="linear", weight_decay=0.1, dropout=0.25))
    assert steps.asked["encoder_config"].dropout == 0.25
    rates = [0.25, 0.375] + [0.5 - 0.495 * step / 6 for step in range(6)]
    assert [float(steps.asked["schedule"](step)) for step in range(8)] == pytest.approx(rates)
    optimizer, params = steps.asked["optimizer"], {"kernel": np.full(2, 3.0, np.float32), "bias": np.ones(2)}
    state, gradient = optimizer.init(params), jax.tree.map(lambda leaf: np.full(2, 0.1, np.float32), params)
    for rate in rates:
        updates, state = optimizer.update(gradient, state, params)
        np.testing.assert_allclose(updates["bias"], -rate, rtol=1e-4)
        np.testing.assert_allclose(updates["kernel"], -rate * (1 + 0.1 * 3), rtol=1e-4)


def test_seed_precision_and_no_dropout_reach_the_step(run, steps):
    run(seed=5, compute=ComputeConfig(precision="bfloat16"))
    assert (steps.asked["seed"], steps.asked["compute"].dtype) == (5, "bfloat16")
    assert steps.asked["encoder_config"].dropout == 0


def test_a_round_begun_goes_on_with_its_own_settings_only(run, steps):
    steps.most = 3
    with pytest.raises(Stopped):
        run()
    others = {
        "batch_size": {"batch_size": 8},
        "learning_rate": {"optimizer": OptimizerConfig(learning_rate=0.5)},
        "dropout": {"optimizer": OptimizerConfig(dropout=0.5)},
        "bidirectional": {"loss": LossConfig(bidirectional=True)},
        "precision": {"compute": ComputeConfig(precision="bfloat16")},
        "train_languages": {"train_languages": ("en",)},
    }
    for name, otherwise in others.items():
        begun = f"rounds/0/training was begun with another --{name} than .*: use another"
        if name in rounds.OF_START:  # refused before that
            begun = f"rounds/start/checkpoint was made with --{name}=.*, not .*: use another"
        with pytest.raises(MelError, match=begun):
            run(**otherwise)
    steps.most = 1000
    work = run(save_every=3, watch=WatchConfig(log_every=2))  # of no result
    assert len(steps.batches) == 3 + 2  # from the checkpoint of step 2 on
    assert open_artifact(work.round(0).checkpoint, "checkpoint").facts["settings"]["learning_rate"] == 1e-4


def test_a_round_begun_can_be_deleted_and_begun_otherwise(run, steps, tmp_path):
    steps.most = 3
    with pytest.raises(Stopped):
        run()
    shutil.rmtree(tmp_path / "run/rounds/0/training")
    steps.most = 1000
    work = run(optimizer=OptimizerConfig(learning_rate=0.5))
    assert open_artifact(work.round(0).checkpoint, "checkpoint").facts["settings"]["learning_rate"] == 0.5


def test_a_round_is_trained_once_and_no_other_way(run, steps):
    work = run()
    facts = open_artifact(work.round(0).checkpoint, "checkpoint").facts
    assert (facts["step"], facts["round"], len(steps.batches)) == (4, 0, 4)
    assert not (work.round(0).training / "checkpoints").exists()
    run()
    assert len(steps.batches) == 4
    with pytest.raises(MelError, match="was made with --weight_decay=0.0, not 0.1"):
        run(optimizer=OptimizerConfig(weight_decay=0.1))
    with pytest.raises(MelError, match="was made with --seed=0, not 1"):
        run(seed=1)


def test_what_decides_a_result_is_in_its_settings():
    config = RoundConfig("anywhere")
    assert sorted(config.settings) == [
        "batch_size", "bidirectional", "dropout", "encoder", "encoder_layers", "learning_rate", "log_q_correction",
        "logit_scale", "loss_tile_rows", "multi_positive", "pooling", "precision", "rounds", "schedule", "seed",
        "steps_per_round", "train_languages", "train_mentions", "warmup_steps", "weight_decay",
    ]  # fmt: skip
    assert sorted(dataclasses.replace(config, round=START).settings) == [
        "batch_size", "encoder", "encoder_layers", "logit_scale", "pooling", "seed", "steps_per_round",
        "train_languages", "train_mentions",
    ]  # fmt: skip


def test_metrics_are_published_with_the_checkpoint_and_read_as_they_were(run, steps):
    work = run()
    this, published = work.round(0), work.round(0).checkpoint / "metrics.jsonl"
    assert [json.loads(line)["step"] for line in published.read_text().splitlines()] == [1, 2, 3, 4]
    assert published.read_bytes() == this.metrics.read_bytes()
    wanted = read_curves(work)
    this.metrics.write_bytes(flipped(this.metrics.read_bytes()))  # nobody reads it any more
    assert read_curves(work) == wanted and [line["step"] for line in wanted[0]] == [1, 2, 3, 4]
    published.write_bytes(flipped(published.read_bytes()))
    CHECKS.forget()
    with pytest.raises(MelError, match="metrics.jsonl is damaged|metrics.jsonl .* content"):
        read_curves(work)
    assert [finding.path for finding in verify(work.path) if finding.amiss] == ["rounds/0/checkpoint"]


def flipped(content):
    """With one bit turned, in the name of a figure."""
    return content.replace(b"loss", b"lOss", 1)


def test_settings_stand_beside_the_checkpoint(run, steps):
    folder = run().round(0).training
    assert json.loads((folder / "settings.json").read_text())["encoder"] == "random:1x16x2"


def test_synthetic_data_are_one_batch_and_publish_nothing(run, steps):
    work = run(watch=WatchConfig(synthetic_data=True))
    assert not exists(work.round(0).checkpoint) and not (work.round(0).training / "settings.json").exists()
    assert len({batch.gold_column_B.tobytes() for batch in steps.batches}) == 1 and len(steps.batches) == 4
    assert "train round 0 on synthetic data" in (work.path / "cost.jsonl").read_text()


def test_the_second_round_needs_negatives(run, steps):
    run()
    with pytest.raises(MelError, match="There are no negatives at .*: run mel-mine-negatives --round=0 first"):
        run(round=1)


def test_a_round_keeps_the_step_and_the_layout_of_the_one_before(run, steps):
    work, generator = run(round=-1), np.random.default_rng(0)
    paths = {"entity_tokens": work.entity_tokens, "mention_tokens": work.mention_tokens("train")}
    tokens = {name: open_artifact(path, "tokens") for name, path in paths.items()}
    entities, mentions = (len(open_rows(artifact, work.cache(artifact))) for artifact in tokens.values())
    rows_NK = generator.integers(entities, size=(mentions, 2)).astype(np.int32)
    for number in (0, 1):
        publish_negatives(work.round(number).negatives, Negatives(rows_NK[:: 1 - 2 * number]), tokens, {})
    run()
    for made in (1, 2):  # in the same process, and in a new one
        run(round=1)
        layouts = [open_artifact(work.round(number).checkpoint, "checkpoint").facts["layout"] for number in (0, 1)]
        assert layouts[0] == layouts[1] and steps.made == made
        assert {tuple(map(len, batch.tokens)) for batch in steps.batches} == {tuple(layouts[0]["texts"])}
        shutil.rmtree(work.round(1).path)
        publish_negatives(work.round(1).negatives, Negatives(rows_NK[::-1]), tokens, {})
        rounds._step.cache_clear()


@pytest.mark.parametrize(
    "config, values, sentence",
    [
        (RoundConfig, {"rounds": 0}, "--rounds=0 must be above 0."),
        (RoundConfig, {"steps_per_round": 0}, "--steps_per_round=0 must be above 0."),
        (RoundConfig, {"batch_size": -1}, "--batch_size=-1 must be above 0."),
        (RoundConfig, {"save_every": 0}, "--save_every=0 must be above 0."),
        (RoundConfig, {"train_mentions": -1}, "--train_mentions=-1 must not be below 0."),
        (RoundConfig, {"round": 3}, "--round=3 is not between -1 and 2, the last of --rounds=3."),
        (RoundConfig, {"round": -2}, "--round=-2 is not between -1 and 2, the last of --rounds=3."),
        (
            RoundConfig,
            {"steps_per_round": 2, "optimizer": OptimizerConfig(warmup_steps=6)},
            "--warmup_steps=6 is not below all 6 steps.",
        ),
        (WatchConfig, {"log_every": -1}, "--log_every=-1 must not be below 0."),
        (WatchConfig, {"profile": -1}, "--profile=-1 must not be below 0."),
        (WatchConfig, {"peak_tflops": -1.0}, "--peak_tflops=-1.0 must not be below 0."),
        (WatchConfig, {"peak_gbytes": -1.0}, "--peak_gbytes=-1.0 must not be below 0."),
    ],
)
def test_refusals(config, values, sentence):
    with pytest.raises(MelError) as refused:
        config(**values)
    assert str(refused.value) == sentence
