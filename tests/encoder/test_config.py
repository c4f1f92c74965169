import dataclasses

import pytest

from mel.encoder.config import EncoderConfig
from mel.types import MelError

LEALLA_SMALL = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 128,
    "intermediate_size": 512,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 8,
    "num_hidden_layers": 24,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 501153,
}
SIZES = dict(vocab_size=100, hidden_size=12, num_layers=2, num_heads=3, ffn_size=20)


def test_reads_a_published_config():
    assert EncoderConfig.from_hf(LEALLA_SMALL) == EncoderConfig(
        vocab_size=501153, hidden_size=128, num_layers=24, num_heads=8, ffn_size=512, max_positions=512,
        type_vocab_size=2, layer_norm_eps=1e-12, dropout=0.1, pooling="pooler",
    )  # fmt: skip


def test_keys_left_out_mean_what_bert_means():
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    assert EncoderConfig.from_hf({key: LEALLA_SMALL[key] for key in sizes}) == EncoderConfig.from_hf(LEALLA_SMALL)


@pytest.mark.parametrize("pooling", ["pooler", "mean", "cls"])
def test_round_trips(pooling):
    config = EncoderConfig(
        **SIZES, max_positions=64, type_vocab_size=1, layer_norm_eps=1e-5, dropout=0.2, pooling=pooling
    )
    assert EncoderConfig.from_hf(config.to_hf(), pooling) == config
    assert EncoderConfig.from_json(config.to_json()) == config
    assert config.to_json() == dataclasses.asdict(config)


@pytest.mark.parametrize(
    "key, value",
    [
        ("model_type", "roberta"),
        ("hidden_act", "gelu_new"),
        ("hidden_act", "relu"),
        ("position_embedding_type", "relative_key"),
        ("pad_token_id", 1),
        ("is_decoder", True),
        ("add_cross_attention", True),
    ],
)
def test_refuses_another_architecture_by_name_and_value(key, value):
    with pytest.raises(MelError, match=f"{key} {value!r}"):
        EncoderConfig.from_hf({**LEALLA_SMALL, key: value})


def test_refuses_a_config_without_a_size():
    with pytest.raises(MelError, match="num_attention_heads"):
        EncoderConfig.from_hf({key: value for key, value in LEALLA_SMALL.items() if key != "num_attention_heads"})


@pytest.mark.parametrize(
    "change, words",
    [
        ({"num_heads": 5}, "hidden_size 12 is not divisible by num_heads 5"),
        ({"num_layers": 0}, "num_layers 0"),
        ({"vocab_size": "100"}, "vocab_size '100'"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps 0.0"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"pooling": "max"}, "pooling 'max'"),
    ],
)
def test_refuses_impossible_values(change, words):
    with pytest.raises(MelError, match=words):
        EncoderConfig(**SIZES | change)


@pytest.mark.parametrize("name", ["vocab_size", "pooling"])
def test_from_json_refuses_a_missing_field(name):
    values = EncoderConfig(**SIZES).to_json()
    del values[name]
    with pytest.raises(MelError, match=f"{name!r} is missing"):
        EncoderConfig.from_json(values)


def test_from_json_refuses_an_unknown_field():
    with pytest.raises(MelError, match="'depth'"):
        EncoderConfig.from_json({**EncoderConfig(**SIZES).to_json(), "depth": 3})
