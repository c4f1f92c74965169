"""Golden numbers: what two steps come to, so that nothing changes them unseen.

Renew them where the computation is changed on purpose (the encoder, the loss, the optimiser, the order of
batches, what dropout drops), and say in the commit why they moved; a refactoring moves none of them.

  python -m tests.training.test_golden
"""

import dataclasses

import pytest

from mel.training.loss import LossConfig
from mel.training.step import make_mesh, put_batch
from tests.training import conftest

EVERYTHING = {
    "encoder": dataclasses.replace(conftest.ENCODER, dropout=0.1),
    "loss": LossConfig(10.0, bidirectional=True, multi_positive=True, log_q_correction=True, loss_tile_rows=8),
}
GOLDEN = {
    "plain": {"loss": 3.4464407, "gradient_norm": 30.674162, "pooler": -0.021546956, "up": 0.060844176},
    "everything": {"loss": 2.5899327, "gradient_norm": 26.601328, "pooler": -0.021770254, "up": 0.060767382},
}


def measured(step):
    """Loss and gradient norm of the second step, and two parameters after it."""
    source = dataclasses.replace(conftest.source.__wrapped__(), log_q=True)
    layouts, state = source.plan(), conftest.new_state.__wrapped__()()
    for n in range(2):
        state, metrics = step(state, put_batch(source.batch_at(n, layouts), make_mesh()))
    return {
        "loss": float(metrics["loss"]),
        "gradient_norm": float(metrics["gradient_norm"]),
        "pooler": float(state.params["pooler"]["kernel"][8, 7]),
        "up": float(state.params["layers"]["up"]["kernel"][0, 0, 18]),
    }


def test_two_plain_steps(step):
    assert measured(step) == pytest.approx(GOLDEN["plain"], rel=1e-4)


def test_two_steps_with_everything_on():
    assert measured(conftest.new_step(**EVERYTHING)) == pytest.approx(GOLDEN["everything"], rel=1e-4)


if __name__ == "__main__":
    print({"plain": measured(conftest.new_step()), "everything": measured(conftest.new_step(**EVERYTHING))})
