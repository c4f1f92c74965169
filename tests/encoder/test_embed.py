import jax
import numpy as np
import pytest

from mel.encoder.config import EncoderConfig
from mel.encoder.embed import Encoder
from mel.encoder.transformer import BertEncoder, init_params
from mel.types import MelError

CONFIG = EncoderConfig(vocab_size=50, hidden_size=8, num_layers=2, num_heads=2, ffn_size=16, max_positions=16)
PARAMS = init_params(CONFIG, 0)
TOKENS_NL = np.random.default_rng(0).integers(1, 50, (5, 6), dtype=np.int32)


class Blocks:
    """Rows in blocks that are given."""

    def __init__(self, *blocks):
        self.blocks = blocks

    def __len__(self):
        return sum(int((row_ids >= 0).sum()) for row_ids, _ in self.blocks)

    def by_width(self, token_budget):
        return iter(self.blocks)


BLOCKS = Blocks(
    (np.array([3, 0, -1]), np.concatenate([TOKENS_NL[[3, 0]], np.zeros((1, 6), np.int32)])),
    (np.array([4, 1]), TOKENS_NL[[4, 1]]),
    (np.array([2, -1, -1]), np.pad(TOKENS_NL[[2]], ((0, 2), (0, 0)))),
)


def test_every_row_lands_in_its_place(tmp_path):
    out_ND = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, (6, 8))
    out_ND[5] = 7
    Encoder(CONFIG, PARAMS).embed(BLOCKS, out_ND=out_ND)
    expected_ND = jax.jit(BertEncoder(CONFIG).apply)({"params": PARAMS}, TOKENS_NL)
    np.testing.assert_allclose(out_ND[:5], expected_ND, atol=1e-6)
    assert (out_ND[5] == 7).all()
    np.testing.assert_array_equal(Encoder(CONFIG, PARAMS).embed(BLOCKS, "rows"), out_ND[:5])


def test_no_chunks_write_nothing():
    assert Encoder(CONFIG, PARAMS).embed(Blocks()).shape == (0, 8)


def test_an_embedding_that_is_not_finite_is_refused_by_row():
    params = init_params(CONFIG, 0)
    params["embeddings"]["word"]["embedding"][49] = np.nan
    tokens_NL = np.where(TOKENS_NL == 49, 1, TOKENS_NL)
    tokens_NL[1, 2] = 49
    out_ND = np.zeros((5, 8), np.float32)
    with pytest.raises(MelError, match="row 1 is not finite"):
        Encoder(CONFIG, params).embed(Blocks((np.array([0, 1]), tokens_NL[:2])), out_ND=out_ND)
    assert (out_ND == 0).all()


def test_padding_that_is_not_finite_is_no_ones_concern():
    params = init_params(CONFIG, 0)
    params["embeddings"]["word"]["embedding"][49] = np.nan
    tokens_NL = np.where(TOKENS_NL == 49, 1, TOKENS_NL)[:2]
    tokens_NL[1] = 49
    out_ND = np.zeros((5, 8), np.float32)
    Encoder(CONFIG, params).embed(Blocks((np.array([0, -1]), tokens_NL)), out_ND=out_ND)
    assert out_ND[0].any() and not out_ND[1:].any()
