"""The rows in use and the full table are the same encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import BertEncoder, init_params
from mel.encoder.vocabulary import Vocabulary
from mel.types import MelError

CONFIG = EncoderConfig(vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, ffn_size=32, max_positions=16)
TOKENS_NL = np.array([[3, 7, 49, 0], [7, 7, 12, 30]], np.int32)


@pytest.fixture
def params():
    return init_params(CONFIG, 0)


@pytest.fixture
def vocabulary(params):
    return Vocabulary.of([TOKENS_NL[0], TOKENS_NL[1]], params)


def test_ids_in_use_are_numbered_in_order_and_padding_stays_zero(vocabulary):
    assert vocabulary.token_ids_v.tolist() == [0, 3, 7, 12, 30, 49]
    assert vocabulary.compact_id_V[TOKENS_NL].tolist() == [[1, 2, 5, 0], [2, 2, 3, 4]]
    assert vocabulary.compact_id_V[4] == -1


def test_compact_and_full_are_inverse_and_the_other_rows_stay(params, vocabulary):
    compact = vocabulary.compact(params)
    table_vD = compact["embeddings"]["word"]["embedding"]
    assert table_vD.shape == (6, 16)
    jax.tree.map(np.testing.assert_array_equal, vocabulary.full(compact), params)
    compact["embeddings"]["word"]["embedding"] = table_vD + 1
    moved_VD = vocabulary.full(compact)["embeddings"]["word"]["embedding"] - vocabulary.table_VD
    assert np.flatnonzero(np.abs(moved_VD).max(1) > 0.5).tolist() == [0, 3, 7, 12, 30, 49]
    assert (np.delete(moved_VD, vocabulary.token_ids_v, axis=0) == 0).all()


def test_forward_pass_and_gradients_equal_those_of_the_full_table_bit_for_bit(params, vocabulary):
    @jax.jit
    def value_and_gradients(params, tokens_NL):
        def loss(params):
            word_NLD = params["embeddings"]["word"]["embedding"][tokens_NL]
            embedding_ND = BertEncoder(CONFIG).apply({"params": params}, tokens_NL, words=word_NLD)
            return jnp.sin(embedding_ND * jnp.arange(16)[None, :]).sum()

        return jax.value_and_grad(loss)(params)

    full_loss, full_gradients = value_and_gradients(params, TOKENS_NL)
    loss, gradients = value_and_gradients(vocabulary.compact(params), vocabulary.compact_id_V[TOKENS_NL])
    assert float(loss) == float(full_loss)
    jax.tree.map(np.testing.assert_array_equal, gradients, vocabulary.compact(full_gradients))
    outside = np.delete(full_gradients["embeddings"]["word"]["embedding"], vocabulary.token_ids_v, axis=0)
    assert (outside == 0).all()


def test_a_token_beyond_the_table_is_refused(params):
    with pytest.raises(MelError, match="use token 50, and the encoder knows 50 tokens"):
        Vocabulary.of([np.array([50])], params)


def test_a_table_of_another_vocabulary_is_refused(params, vocabulary):
    other = Vocabulary.of([np.array([1, 2])], params)
    with pytest.raises(MelError, match=r"of shape \(6, 16\) does not fit the vocabulary map of 3 of 50 tokens"):
        other.full(vocabulary.compact(params))
