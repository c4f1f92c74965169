"""The loop, its prefetching and its hooks."""

import json

import jax.numpy as jnp
import pytest

from mel.training.hooks import Metrics, SaveEvery, check_finite
from mel.training.loop import fit
from mel.training.prefetch import prefetch
from mel.types import MelError


def counting_step(state, batch):
    return state + batch, {"loss": jnp.asarray(1.0 / (state + 1)), "accuracy": jnp.asarray(0.5)}


def test_hooks_see_every_state_once_in_order():
    seen = []
    last = fit(counting_step, 0, [(4, 10), (5, 20)], [lambda step, state, metrics: seen.append((step, state))])
    assert last == 30
    assert seen == [(5, 10), (6, 30)]


def test_prefetch_keeps_order_and_bounds():
    assert list(prefetch(lambda n: n * n, 3, 7)) == [(3, 9), (4, 16), (5, 25), (6, 36)]
    assert list(prefetch(lambda n: n, 3, 3)) == []


def test_prefetch_raises_what_making_a_batch_raises():
    def make(n):
        if n == 2:
            raise MelError("no batch 2")
        return n

    with pytest.raises(MelError, match="no batch 2"):
        list(prefetch(make, 0, 5))


def run(folder, start, end):
    metrics = Metrics(folder, start, end, 8, lambda: None)
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


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_good_checkpoint():
    check_finite(7, 0.5, None)
    with pytest.raises(MelError, match="The loss is nan at step 7; the last good checkpoint is of step 5"):
        check_finite(7, float("nan"), 5)
    with pytest.raises(MelError, match="no checkpoint was saved yet"):
        check_finite(7, float("inf"), None)


class Checkpoints:
    """Notes what is saved, and how many lines of metrics were on disk by then."""

    latest_step = 2

    def __init__(self, metrics_file):
        self.saved, self._file = [], metrics_file

    def save(self, step, state):
        self.saved.append((step, len(self._file.read_text().splitlines())))


def test_when_a_checkpoint_is_saved_the_metrics_up_to_it_are_on_disk(tmp_path):
    checkpoints = Checkpoints(tmp_path / "metrics.jsonl")
    metrics = Metrics(tmp_path, 0, 6, 8, lambda: None)
    fit(counting_step, 0, ((n, 1) for n in range(6)), [metrics, SaveEvery(checkpoints, 2, metrics)])
    assert checkpoints.saved == [(2, 2), (4, 4), (6, 6)]
    metrics.close()


def test_nothing_is_saved_after_a_loss_that_is_not_finite(tmp_path):
    checkpoints = Checkpoints(tmp_path / "metrics.jsonl")
    metrics = Metrics(tmp_path, 0, 6, 8, lambda: checkpoints.latest_step)

    def diverging_step(state, batch):
        return state + 1, {"loss": jnp.asarray(1.0 if state < 3 else jnp.nan)}

    with pytest.raises(MelError, match="The loss is nan at step 4; the last good checkpoint is of step 2"):
        fit(diverging_step, 0, ((n, 1) for n in range(6)), [metrics, SaveEvery(checkpoints, 2, metrics)])
    assert checkpoints.saved == [(2, 2)]
    metrics.close()
