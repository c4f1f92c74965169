"""Learning rates by hand, and what weight decay leaves alone."""

import jax
import numpy as np
import pytest

from mel.training.state import OptimizerConfig, learning_rate_schedule, make_optimizer
from mel.types import MelError


def rates(schedule, steps, **others):
    config = OptimizerConfig(learning_rate=1.0, schedule=schedule, **others)
    return [float(learning_rate_schedule(config, 10)(step)) for step in steps]


def test_schedules_by_hand():
    assert rates("constant", (0, 5, 99)) == [1, 1, 1]
    assert rates("linear", (0, 5, 10)) == pytest.approx([1, 0.505, 0.01])
    assert rates("cosine", (0, 5, 10)) == pytest.approx([1, 0.505, 0.01])
    assert rates("constant", (0, 1, 3, 4, 9), warmup_steps=4) == pytest.approx([0.25, 0.4375, 0.8125, 1, 1])


def test_weight_decay_moves_kernels_only(new_state):
    params = new_state().params
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1.0, weight_decay=0.1), 10)
    nothing = jax.tree.map(np.zeros_like, params)
    updates, _ = optimizer.update(nothing, optimizer.init(params), params)
    decayed = jax.tree_util.tree_map_with_path(lambda path, leaf: path[-1].key == "kernel", params)
    jax.tree.map(lambda u, p, yes: np.testing.assert_allclose(u, -0.1 * p if yes else 0 * p), updates, params, decayed)
    assert sum(jax.tree.leaves(decayed)) == 7


def test_refusals():
    with pytest.raises(MelError, match="--learning_rate=0 must be above 0"):
        OptimizerConfig(learning_rate=0)
    with pytest.raises(MelError, match="--warmup_steps=-1 must not be below 0"):
        OptimizerConfig(warmup_steps=-1)
    for share in (-0.1, 1.0):
        with pytest.raises(MelError, match=f"--dropout={share} is not a probability below 1"):
            OptimizerConfig(dropout=share)
    for make in (learning_rate_schedule, make_optimizer):
        with pytest.raises(MelError, match="--warmup_steps=10 is not below all 10 steps"):
            make(OptimizerConfig(warmup_steps=10), 10)
