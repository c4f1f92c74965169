"""Metrics, speed and checkpoints as training goes on, and a trace of exactly the steps asked for."""

import json
import types

import jax
import jax.numpy as jnp
import pytest

from mel.encoder.config import EncoderConfig
from mel.shards.batches import Layout
from mel.training import hooks
from mel.training.hooks import Metrics, Profile, SaveEvery, check_finite
from mel.training.loop import fit
from mel.training.meter import Peak, Speed
from mel.types import MelError

ENCODER = EncoderConfig(vocab_size=64, hidden_size=16, num_layers=2, num_heads=2, ffn_size=32)
SPEED = Speed(ENCODER, Layout((8, 16), (3, 1), 6), 8, "float32")  # 40 tokens with padding


def counting_step(state, batch):
    return state + batch, {"loss": jnp.asarray(1.0 / (state + 1)), "accuracy": jnp.asarray(0.5)}


def run(folder, start, end):
    metrics = Metrics(folder, start, end, SPEED, 0, lambda: None)
    fit(counting_step, start, ((n, 1) for n in range(start, end)), [metrics])
    metrics.close()
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_after_a_resume_are_those_of_one_run(tmp_path):
    whole = run(tmp_path / "whole", 0, 6)
    assert [line["step"] for line in whole] == [1, 2, 3, 4, 5, 6]
    run(tmp_path / "killed", 0, 5)
    with open(tmp_path / "killed" / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # the last line of a killed process
    assert run(tmp_path / "killed", 3, 6) == whole


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_good_checkpoint(tmp_path):
    check_finite(7, 0.5, None, tmp_path)
    with pytest.raises(MelError, match="The loss is nan at step 7; the last good checkpoint is of step 5"):
        check_finite(7, float("nan"), 5, tmp_path)
    with pytest.raises(MelError, match="no checkpoint was saved yet"):
        check_finite(7, float("inf"), None, tmp_path)


class Checkpoints:
    """Notes what is saved, and how many lines of metrics were on disk by then."""

    latest_step = 2

    def __init__(self, metrics_file):
        self.saved, self._file = [], metrics_file

    def save(self, step, state):
        self.saved.append((step, len(self._file.read_text().splitlines())))


def test_when_a_checkpoint_is_saved_the_metrics_up_to_it_are_on_disk(tmp_path):
    checkpoints = Checkpoints(tmp_path / "metrics.jsonl")
    metrics = Metrics(tmp_path, 0, 6, SPEED, 0, lambda: None)
    fit(counting_step, 0, ((n, 1) for n in range(6)), [metrics, SaveEvery(checkpoints, 2, metrics)])
    assert checkpoints.saved == [(2, 2), (4, 4), (6, 6)]
    metrics.close()


def test_nothing_is_saved_after_a_loss_that_is_not_finite(tmp_path):
    checkpoints = Checkpoints(tmp_path / "metrics.jsonl")
    metrics = Metrics(tmp_path, 0, 6, SPEED, 0, lambda: checkpoints.latest_step)

    def diverging_step(state, batch):
        return state + 1, {"loss": jnp.asarray(1.0 if state < 3 else jnp.nan)}

    with pytest.raises(MelError, match="The loss is nan at step 4; the last good checkpoint is of step 2"):
        fit(diverging_step, 0, ((n, 1) for n in range(6)), [metrics, SaveEvery(checkpoints, 2, metrics)])
    assert checkpoints.saved == [(2, 2)]
    metrics.close()


class Clock:
    """Time that moves when it is told to, and the lines that are logged."""

    def __init__(self):
        self.now, self.lines = 0.0, []

    def monotonic(self):
        return self.now

    def info(self, line, *values):
        self.lines.append(line % values)

    warning = info


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(hooks, "time", clock)
    monkeypatch.setattr(hooks, "logging", clock)
    return clock


def lines_of(folder, clock, every, seconds, speed=SPEED, steps=6):
    """The lines that are said where the first step takes 100 seconds and all others `seconds`."""
    metrics = Metrics(folder, 0, steps, speed, every, lambda: None)

    def timed_step(state, batch):
        _, values = counting_step(state, batch)
        return state + 1, values | {"real_tokens": jnp.asarray(30)}

    def tick(step, state, values):
        clock.now += seconds if step > 1 else 100

    fit(timed_step, 0, ((n, 1) for n in range(steps)), [tick, metrics])
    metrics.close()
    return clock.lines, metrics.totals


def test_a_line_every_so_many_steps_tells_speed_without_compilation(tmp_path, clock):
    lines, totals = lines_of(tmp_path, clock, every=4, seconds=2, steps=8)
    assert totals == {"mentions": 64, "tokens": 240}
    # Metrics are read a step late: from reading the first to reading the fourth, three steps went by in 6 seconds.
    assert lines[0] == "Compiled, and the first step taken, in 1:42."
    assert [line.removesuffix(" left of this round") for line in lines[1:]] == [
        "step 4/8 · loss 0.2500 · in-batch accuracy 0.500 · 4 mentions/s · 15 tokens/s · 25% padding · 0:08",
        "step 8/8 · loss 0.1250 · in-batch accuracy 0.500 · 5 mentions/s · 20 tokens/s · 25% padding · 0:00",
    ]


def test_without_a_number_of_steps_a_line_is_said_every_ten_seconds(tmp_path, clock):
    lines, _ = lines_of(tmp_path, clock, every=0, seconds=4)
    assert [line.split(" · ")[0] for line in lines] == [
        "Compiled, and the first step taken, in 1:44.",
        "step 4/6",
        "step 6/6",
    ]


def test_where_the_peak_is_known_shares_of_it_are_told_in_the_log_and_in_tensorboard(tmp_path, clock):
    peak = Peak(SPEED.flops / 1e12, 2 * SPEED.bytes / 1e9)  # one step a second, and two
    lines, _ = lines_of(tmp_path, clock, 4, 2, Speed(ENCODER, SPEED.layout, 8, "float32", peak))
    assert "25% padding · 50.0% MFU · 25.0% of the byte roofline · 0:04 left of this round" in lines[1]
    written = b"".join(file.read_bytes() for file in (tmp_path / "tensorboard").iterdir())
    for name in ("mentions_per_second", "tokens_per_second", "padding_share", "mfu", "byte_roofline_share"):
        assert f"speed/{name}".encode() in written


def test_a_round_of_one_step_says_its_figures_all_the_same(tmp_path, clock):
    lines, _ = lines_of(tmp_path, clock, 1, 2, steps=1)
    assert [line.split(" · ")[0] for line in lines] == ["Compiled, and the first step taken, in 1:40.", "step 1/1"]


@pytest.mark.parametrize("cosine, warnings", [(0.95, 1), (0.5, 0)])
def test_embeddings_that_fall_together_are_warned_of_once_and_not_while_they_settle(tmp_path, caplog, cosine, warnings):
    metrics = Metrics(tmp_path, 0, 140, SPEED, 20, lambda: None)

    def step(state, batch):
        return state + 1, counting_step(state, batch)[1] | {"candidate_cosine": jnp.asarray(cosine)}

    fit(step, 0, ((n, 1) for n in range(100)), [metrics])
    metrics.catch_up()
    assert not [record for record in caplog.records if "fall together" in record.message]
    fit(step, 100, ((n, 1) for n in range(100, 140)), [metrics])
    metrics.close()
    said = [record.message for record in caplog.records if "fall together" in record.message]
    assert len(said) == warnings and all("a mean cosine of 0.950" in message for message in said)


def test_settings_are_in_tensorboard(tmp_path):
    metrics = Metrics(tmp_path, 0, 1, SPEED, 0, lambda: None)
    metrics.note("settings", {"seed": 3, "encoder": "random:1x32x2"})
    metrics.close()
    written = b"".join(file.read_bytes() for file in (tmp_path / "tensorboard").iterdir())
    assert b"    encoder = 'random:1x32x2'\n    seed = 3" in written


def test_metrics_on_disk_hold_what_a_run_of_another_speed_would_give(tmp_path, clock):
    for name, seconds in (("slow", 4), ("fast", 0.1)):
        lines_of(tmp_path / name, clock, 2, seconds)
    assert (tmp_path / "slow" / "metrics.jsonl").read_bytes() == (tmp_path / "fast" / "metrics.jsonl").read_bytes()
    first, *_ = (tmp_path / "slow" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(first) == {"step": 1, "loss": 1.0, "accuracy": 0.5, "real_tokens": 30.0}


@pytest.fixture
def profiler(monkeypatch):
    """What is asked of JAX, and after how many steps."""
    calls, done = [], types.SimpleNamespace(steps=0)
    monkeypatch.setattr(jax, "block_until_ready", lambda values: calls.append(("wait", done.steps)))
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **_: calls.append(("start", done.steps)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append(("stop", done.steps)))

    def step(state, batch):
        done.steps += 1
        return state, {}

    def run(steps, profile):
        fit(step, 0, ((n, None) for n in range(steps)), [profile])
        profile.close()
        return calls

    return run


def test_exactly_the_steps_asked_for_are_profiled(tmp_path, profiler, clock):
    assert profiler(9, Profile(tmp_path, 2, 3)) == [("wait", 2), ("start", 2), ("wait", 5), ("stop", 5)]
    assert "The trace from step 3 on" in clock.lines[0]


def test_a_trace_ends_with_training(tmp_path, profiler):
    assert profiler(4, Profile(tmp_path, 2, 3)) == [("wait", 2), ("start", 2), ("stop", 4)]


def test_without_steps_to_profile_nothing_is_started_or_said(tmp_path, profiler, clock):
    assert profiler(4, Profile(tmp_path, 2, 0)) == []
    assert clock.lines == []


def test_training_that_ends_before_the_trace_begins_says_so(tmp_path, profiler, clock):
    assert profiler(4, Profile(tmp_path, 10, 2)) == []
    assert clock.lines == ["There is no trace: training ended before step 10."]


def test_a_trace_is_where_the_log_says(tmp_path):
    profile = Profile(tmp_path / "profile", 1, 1)
    fit(counting_step, 0, ((n, 1) for n in range(3)), [profile])
    profile.close()
    assert list((tmp_path / "profile").rglob("*.xplane.pb")) and list(tmp_path.rglob("perfetto_trace.json.gz"))


def test_a_damaged_line_of_metrics_is_named_with_the_way_out(tmp_path):
    run(tmp_path, 0, 3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join([lines[0], "{" + lines[1], lines[2]]))
    with pytest.raises(MelError, match=rf"metrics.jsonl:2 is damaged .*: delete {tmp_path} to begin the round"):
        run(tmp_path, 2, 3)
