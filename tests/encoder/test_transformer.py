import dataclasses
import functools
import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mel.encoder.backend import Compute
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import TOKEN_TABLE, BertEncoder, _gelu, init_params
from mel.types import MelError

CONFIG = EncoderConfig(vocab_size=50, hidden_size=12, num_layers=3, num_heads=3, ffn_size=20, max_positions=16)
POOLINGS = ["pooler", "mean", "cls"]


def rough_params(config, seed=0):
    """Weights far enough from their start that attention is uneven and no bias is zero."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.3 * generator.standard_normal(x.shape, np.float32), init_params(config, seed))


def rows_of(lengths, width, seed=0):
    tokens_NL = np.random.default_rng(seed).integers(1, CONFIG.vocab_size, (len(lengths), width), dtype=np.int32)
    tokens_NL[np.arange(width) >= np.array(lengths)[:, None]] = 0
    return tokens_NL


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "deterministic"))
def run(encoder, params, tokens_NL, **options):
    return encoder.apply({"params": params}, tokens_NL, **options)


def embed(config, params, tokens_NL):
    return np.asarray(run(BertEncoder(config), params, tokens_NL))


def states_and_pooled(config, params, tokens_NL):
    return run(BertEncoder(config), params, tokens_NL, method="hidden_states")


def by_hand(value_scale, pooling="cls"):
    """Two dimensions, so that LayerNorm knows only (1, -1) and (-1, 1); attention is even, and the
    feed-forward network does nothing."""
    config = EncoderConfig(
        vocab_size=3, hidden_size=2, num_layers=1, num_heads=1, ffn_size=2, max_positions=4, pooling=pooling
    )
    params = jax.tree.map(np.zeros_like, init_params(config, 0))
    for norm in (params["embeddings"]["norm"], params["layers"]["attention_norm"], params["layers"]["ffn_norm"]):
        norm["scale"] += 1
    params["embeddings"]["word"]["embedding"][:] = [[5, 3], [7, 1], [0, 2]]  # Normalised: +, +, -.
    params["layers"]["value"]["kernel"][0] = value_scale * np.eye(2)
    params["layers"]["output"]["kernel"][0] = np.eye(2)
    return config, params


def test_attention_by_hand():
    # Row + - - has the mean state -1/3 of (1, -1). Counted with padding, as + - - +, it would be 0.
    tokens_NL = np.array([[1, 2, 2, 0]], np.int32)
    root = 2**-0.5
    np.testing.assert_allclose(embed(*by_hand(2.9), tokens_NL), [[root, -root]], atol=1e-6)  # 1 - 2.9 / 3 > 0
    np.testing.assert_allclose(embed(*by_hand(3.1), tokens_NL), [[-root, root]], atol=1e-6)  # 1 - 3.1 / 3 < 0


def test_pooling_by_hand():
    config, params = by_hand(0.0)
    tokens_NL = np.array([[1, 2, 2, 0]], np.int32)
    states_SNLD, cls_ND = states_and_pooled(config, params, tokens_NL)
    np.testing.assert_allclose(states_SNLD[-1, 0], [[1, -1], [-1, 1], [-1, 1], [1, -1]], atol=1e-6)
    np.testing.assert_allclose(cls_ND, [[1, -1]], atol=1e-6)

    config, params = by_hand(0.0, "mean")
    _, mean_ND = states_and_pooled(config, params, tokens_NL)
    np.testing.assert_allclose(mean_ND, [[-1 / 3, 1 / 3]], atol=1e-6)

    config, params = by_hand(0.0, "pooler")
    params["pooler"] = {"kernel": np.array([[1, 0], [0, 2]], np.float32), "bias": np.array([0, 1], np.float32)}
    _, pooled_ND = states_and_pooled(config, params, tokens_NL)
    np.testing.assert_allclose(pooled_ND, [np.tanh([1, -1])], atol=1e-6)


@pytest.mark.parametrize("pooling, num_layers", [("pooler", 3), ("mean", 3), ("cls", 1)])
def test_embedding_is_the_normalised_pool_of_the_last_state(pooling, num_layers):
    config = dataclasses.replace(CONFIG, pooling=pooling, num_layers=num_layers)
    params, tokens_NL = rough_params(config), rows_of([7, 3, 1], 7)
    _, pooled_ND = states_and_pooled(config, params, tokens_NL)
    expected_ND = pooled_ND / np.linalg.norm(pooled_ND, axis=1, keepdims=True)
    embedding_ND = embed(config, params, tokens_NL)
    np.testing.assert_allclose(embedding_ND, expected_ND, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embedding_ND, axis=1), 1, atol=1e-6)
    assert embedding_ND.dtype == np.float32


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_and_row_order_change_nothing(pooling):
    config = dataclasses.replace(CONFIG, pooling=pooling)
    params, tokens_NL = rough_params(config), rows_of([5, 3, 1, 4], 5)
    embedding_ND = embed(config, params, tokens_NL)
    np.testing.assert_allclose(embed(config, params, np.pad(tokens_NL, ((0, 3), (0, 6))))[:4], embedding_ND, atol=1e-6)
    np.testing.assert_allclose(embed(config, params, tokens_NL[::-1]), embedding_ND[::-1], atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_row_of_padding_is_finite_and_so_is_its_gradient(pooling):
    config = dataclasses.replace(CONFIG, pooling=pooling)
    params, tokens_NL = rough_params(config), rows_of([4, 0], 4)

    def loss(params):
        embedding_ND = BertEncoder(config).apply({"params": params}, tokens_NL)
        return jnp.sum(embedding_ND**3), embedding_ND

    gradients, embedding_ND = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert np.isfinite(embedding_ND).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_padding_gets_no_gradient():
    tokens_NL = rows_of([4, 2], 4)
    gradient = jax.jit(jax.grad(lambda params: BertEncoder(CONFIG).apply({"params": params}, tokens_NL)[:, 0].sum()))
    table_VD = np.asarray(flax.traverse_util.flatten_dict(gradient(rough_params(CONFIG)))[TOKEN_TABLE])
    assert table_VD.shape == (CONFIG.vocab_size, CONFIG.hidden_size)
    assert not table_VD[0].any()
    assert all(table_VD[token].any() for token in np.unique(tokens_NL) if token)


def test_rematerialisation_and_checkpointed_chunks_give_the_same_gradients():
    params, tokens_NL = rough_params(CONFIG), rows_of([6, 3, 2, 5], 6)
    weight_ND = np.random.default_rng(1).standard_normal((4, CONFIG.hidden_size), np.float32)

    def plain(params, kept):
        return (BertEncoder(CONFIG, kept=kept).apply({"params": params}, tokens_NL) * weight_ND).sum()

    def chunked(params, kept):
        chunk = jax.checkpoint(lambda tokens_nL: BertEncoder(CONFIG, kept=kept).apply({"params": params}, tokens_nL))
        return (jax.lax.map(chunk, tokens_NL.reshape(2, 2, 6)).reshape(4, -1) * weight_ND).sum()

    expected = jax.jit(jax.grad(plain), static_argnums=1)(params, "all")
    for other, kept in [(plain, "states"), (plain, "products"), (chunked, "all")]:
        found = jax.jit(jax.grad(other), static_argnums=1)(params, kept)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected)


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_attention_by_lengths_is_plain_attention(pooling):
    config = dataclasses.replace(CONFIG, pooling=pooling)
    params, tokens_NL = init_params(config, 0), rows_of([7, 3, 1, 8], 8)

    def values(attention):
        def total(params):
            return jnp.sin(BertEncoder(config, Compute(attention=attention)).apply({"params": params}, tokens_NL)).sum()

        return jax.jit(jax.value_and_grad(total))(params)

    (plain, plain_gradients), (fused, fused_gradients) = values("plain"), values("xla")
    assert float(fused) == pytest.approx(float(plain), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), fused_gradients, plain_gradients)


@pytest.mark.parametrize("attention", ["plain", "xla"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_groups_of_several_widths_are_what_each_is_alone(pooling, attention):
    config = dataclasses.replace(CONFIG, pooling=pooling)
    params, groups = rough_params(config), [rows_of([7, 3, 8], 8), rows_of([1], 1), rows_of([16, 2], 16)]
    together_ND = run(BertEncoder(config, Compute(attention=attention)), params, groups)
    alone_ND = np.concatenate([embed(config, params, tokens_NL) for tokens_NL in groups])
    np.testing.assert_allclose(together_ND, alone_ND, atol=1e-5)


def test_rows_too_short_for_the_kernel_are_attended_to_without_it(monkeypatch):
    widths, attend = [], jax.nn.dot_product_attention

    def kernel(query_NQHd, *others, **options):
        widths.append(query_NQHd.shape[1])
        return attend(query_NQHd, *others, **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    config = dataclasses.replace(CONFIG, pooling="mean")
    params, groups = init_params(config, 0), [rows_of([8, 3], 8), rows_of([9], 12)]
    found_ND = run(BertEncoder(config, Compute(attention="xla", plain_up_to=8)), params, groups)
    assert set(widths) == {12}
    np.testing.assert_allclose(found_ND, run(BertEncoder(config), params, groups), atol=1e-6)


def test_bfloat16_stays_close_and_answers_in_float32():
    params, tokens_NL = init_params(CONFIG, 0), rows_of([7, 3], 7)
    exact_ND, rough_ND = (
        run(BertEncoder(CONFIG, Compute(dtype)), params, tokens_NL) for dtype in ("float32", "bfloat16")
    )
    assert rough_ND.dtype == np.float32
    assert (rough_ND != exact_ND).any()
    assert ((exact_ND * rough_ND).sum(1) > 0.999).all()
    np.testing.assert_allclose(np.linalg.norm(rough_ND, axis=1), 1, atol=1e-6)


def test_dropout_only_when_asked_for():
    config = dataclasses.replace(CONFIG, dropout=0.5)
    params, tokens_NL = rough_params(config), rows_of([6, 4], 6)

    def dropped(config, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return np.asarray(run(BertEncoder(config), params, tokens_NL, deterministic=False, rngs=rngs))

    np.testing.assert_allclose(embed(config, params, tokens_NL), dropped(CONFIG, 0), atol=1e-6)
    np.testing.assert_array_equal(dropped(config, 0), dropped(config, 0))
    assert (dropped(config, 0) != dropped(config, 1)).any()
    assert np.isfinite(dropped(config, 0)).all()


def test_token_rows_that_were_looked_up_before_are_used():
    params, tokens_NL = rough_params(CONFIG), rows_of([6, 4], 6)
    word_NLD = flax.traverse_util.flatten_dict(params)[TOKEN_TABLE][tokens_NL]
    found_ND = run(BertEncoder(CONFIG), params, tokens_NL, words=word_NLD)
    np.testing.assert_allclose(found_ND, embed(CONFIG, params, tokens_NL), atol=1e-6)
    other_ND = run(BertEncoder(CONFIG), params, tokens_NL, words=np.flip(word_NLD, 1))
    assert np.abs(other_ND - found_ND).max() > 0.1


def test_rows_longer_than_the_positions_are_refused():
    with pytest.raises(MelError, match="17 tokens.*16 positions"):
        embed(CONFIG, init_params(CONFIG, 0), rows_of([17], 17))


def test_initial_weights():
    config = dataclasses.replace(CONFIG, hidden_size=96, ffn_size=200)
    params = flax.traverse_util.flatten_dict(init_params(config, 0))
    assert params["layers", "up", "kernel"].shape == (3, 96, 200)
    for path, value in params.items():
        assert value.dtype == np.float32
        match path[-1]:
            case "bias":
                assert (value == 0).all()
            case "scale":
                assert (value == 1).all()
            case "kernel":
                assert value.std() == pytest.approx(value.shape[-2] ** -0.5, rel=0.05), path
            case _:
                assert abs(value.mean()) < 0.005 and 0.015 < value.std() < 0.025, path
    again, other = (flax.traverse_util.flatten_dict(init_params(config, seed)) for seed in (0, 1))
    assert all((again[path] == params[path]).all() for path in params)
    assert (other[TOKEN_TABLE] != params[TOKEN_TABLE]).mean() > 0.99


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_only_pooler_pooling_has_a_pooler(pooling):
    assert "pooler" in init_params(CONFIG, 0)
    assert "pooler" not in init_params(dataclasses.replace(CONFIG, pooling=pooling), 0)


def test_every_layer_drops_out_places_of_its_own():
    config = EncoderConfig(8, 64, num_layers=2, num_heads=2, ffn_size=8, dropout=0.5, pooling="cls")
    params = jax.tree.map(np.array, init_params(config, 0))
    # Nothing comes through but the feed-forward bias, where it is kept: two values if both layers keep the same places.
    for part in (params["embeddings"]["norm"], params["layers"]["output"], params["layers"]["down"]):
        for leaf in part.values():
            leaf[...] = 0
    params["layers"]["down"]["bias"][...] = 1
    rngs = {"dropout": jax.random.key(0)}
    (row_D,) = BertEncoder(config).apply({"params": params}, np.ones((1, 1), np.int32), False, rngs=rngs)
    assert len(np.unique(np.round(row_D, 4))) > 2


def test_gelu_and_its_slope_are_exact_to_a_millionth():
    x = np.linspace(-12, 12, 4001, dtype=np.float32)
    share = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x.tolist()])
    density = np.exp(-(x.astype(np.float64) ** 2) / 2) / math.sqrt(2 * math.pi)
    y, slope = jax.vmap(jax.value_and_grad(_gelu))(x)
    np.testing.assert_allclose(y, x * share, rtol=2e-7, atol=1e-6)
    np.testing.assert_allclose(slope, share + x * density, rtol=2e-7, atol=1e-6)
    half = jnp.asarray(x, jnp.bfloat16)
    np.testing.assert_array_equal(_gelu(half), _gelu(half.astype(jnp.float32)).astype(jnp.bfloat16))
