"""The loop and its prefetching."""

import jax.numpy as jnp
import pytest

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
