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


def updates_of(config, gradients, total_steps=10):
    """What the optimiser adds to one parameter for each of the gradients, one step after the other."""
    optimizer, params = make_optimizer(config, total_steps), {"bias": np.ones(4, np.float32)}
    state, found = optimizer.init(params), []
    for gradient in gradients:
        updates, state = optimizer.update({"bias": np.asarray(gradient, np.float32)}, state, params)
        found.append(np.asarray(updates["bias"]))
    return np.array(found)


def test_parameters_move_by_the_learning_rate_of_their_step():
    """Adam moves a parameter whose gradient stays the same by the learning rate."""
    for options in ({"schedule": "linear"}, {"schedule": "cosine", "warmup_steps": 4}, {"schedule": "constant"}):
        config = OptimizerConfig(learning_rate=0.5, **options)
        expected = [float(learning_rate_schedule(config, 10)(step)) for step in range(10)]
        found = updates_of(config, [[0.1, -0.1, 0.2, -0.2]] * 10)
        np.testing.assert_allclose(found, np.outer(expected, [-1, 1, -1, 1]), rtol=1e-4)


def test_a_gradient_longer_than_the_norm_to_clip_at_counts_as_long_as_that():
    unit, short = np.full(4, 0.5), np.full(4, 0.05)
    config = OptimizerConfig(learning_rate=1.0)
    np.testing.assert_allclose(updates_of(config, [10 * unit, short]), updates_of(config, [unit, short]), rtol=1e-6)
    # By hand, with Adam's decays of .9 and .999: means of (.9 * .5 + .05) / 1.9 and (.999 * .25 + .0025) / 1.999.
    second = -((0.9 * 0.5 + 0.05) / 1.9) / np.sqrt((0.999 * 0.25 + 0.0025) / 1.999)
    np.testing.assert_allclose(updates_of(config, [10 * unit, short]), [[-1.0] * 4, [second] * 4], rtol=1e-4)


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
