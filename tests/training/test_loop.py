"""The loop and its prefetching."""

import jax
import jax.numpy as jnp
import pytest

from mel.training.hooks import Metrics
from mel.training.loop import fit
from mel.training.meter import Speed
from mel.training.prefetch import prefetch
from mel.training.step import make_mesh, put_batch
from mel.types import MelError
from tests.training.conftest import ENCODER


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


@pytest.fixture
def guard():
    """A hook that from the first step on forbids, on all threads, to move arrays without saying so."""
    yield lambda step, state, metrics: jax.config.update("jax_transfer_guard", "disallow")
    jax.config.update("jax_transfer_guard", None)


def test_nothing_moves_between_host_and_device_unsaid(source, new_state, step, guard, tmp_path):
    layouts = source.plan()
    metrics = Metrics(tmp_path, 0, 6, Speed(ENCODER, layouts[0], 16, "float32"), 1, lambda: None)
    batches = prefetch(lambda n: put_batch(source.batch_at(n, layouts), make_mesh()), 0, 6)
    state = fit(step, new_state(), batches, [guard, metrics])
    metrics.close()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 6
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        step(state, source.batch_at(6, layouts))
