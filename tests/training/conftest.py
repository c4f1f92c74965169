"""A small encoder and small data to train it on; a working directory with the tiny world prepared."""

import numpy as np
import pytest

from mel.bin import prepare_data
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import init_params
from mel.shards.batches import BatchSource
from mel.shards.datasets import RowSet
from mel.shards.negatives import Negatives
from mel.shards.rows import TokenRows
from mel.training.loss import LossConfig, batch_loss
from mel.training.state import OptimizerConfig, create_state, learning_rate_schedule, make_optimizer
from mel.training.step import make_mesh, make_step
from tests.configs import config_of

CHUNK_TOKENS = 64
ENCODER = EncoderConfig(vocab_size=64, hidden_size=16, num_layers=2, num_heads=2, ffn_size=32, max_positions=32)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=2, schedule="linear", weight_decay=0.01)
TOTAL_STEPS = 20


@pytest.fixture
def source():
    generator = np.random.default_rng(0)

    def rows(count):
        return TokenRows.from_rows([generator.integers(1, 64, generator.integers(2, 16)) for _ in range(count)])

    gold_rows = generator.integers(20, size=64)
    qids = np.repeat(np.arange(1, 11), 2)
    entities = RowSet(rows(20), qids, np.zeros(20), np.arange(20))
    mentions = RowSet(rows(64), qids[gold_rows], np.zeros(64), gold_rows)
    return BatchSource(mentions, entities, Negatives(generator.integers(20, size=(64, 2))), 16, 0, CHUNK_TOKENS)


@pytest.fixture
def new_state():
    """Makes the same first state each time; a step consumes the one it is given."""
    return lambda: create_state(init_params(ENCODER, 0), make_optimizer(OPTIMIZER, TOTAL_STEPS))


@pytest.fixture(scope="session")
def step():
    return new_step()


def new_step(encoder=ENCODER, loss=LossConfig(), optimizer=OPTIMIZER, seed=0):
    """A step of the small encoder, with whatever is to be otherwise."""
    moving, schedule = (make(optimizer, TOTAL_STEPS) for make in (make_optimizer, learning_rate_schedule))
    return make_step(encoder, batch_loss(loss), moving, schedule, CHUNK_TOKENS, make_mesh(), seed)


@pytest.fixture(scope="session")
def prepared(tiny_world, tmp_path_factory):
    """A working directory that nothing was trained in yet, to be copied."""
    workdir = tmp_path_factory.mktemp("prepared")
    prepare_data.main(
        config_of(
            prepare_data.Config,
            workdir=str(workdir), damuel=str(tiny_world / "damuel"), mewsli=str(tiny_world / "mewsli"),
            languages=("en", "ar"), tokenizer=str(tiny_world / "tokenizer"), mention_tokens=16, entity_tokens=16,
            workers=1,
        )
    )  # fmt: skip
    return workdir
