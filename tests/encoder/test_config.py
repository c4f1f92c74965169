import dataclasses
import re

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
        ("model_type", "nomic_bert"),
        ("model_type", "distilbert"),
        ("model_type", "xlm-roberta-xl"),
        ("auto_map", {"AutoModel": "modeling.Model"}),
        ("feed_forward_type", "geglu"),
        ("position_embedding_type", "alibi"),
        ("position_embedding_type", "rotary"),
        ("hidden_act", "gelu_new"),
        ("hidden_act", "relu"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("add_cross_attention", True),
    ],
)
def test_refuses_another_architecture_by_name_and_value(key, value):
    with pytest.raises(MelError, match=re.escape(f"{key} {value!r}, which is another architecture")):
        EncoderConfig.from_hf({**LEALLA_SMALL, key: value})


@pytest.mark.parametrize(
    "model_type, said, pad_id, offset",
    [
        ("bert", {}, 0, 0), ("bert", {"pad_token_id": 1}, 1, 0), ("bert", {"pad_token_id": None}, 0, 0),
        ("xlm-roberta", {}, 1, 2), ("roberta", {"pad_token_id": 1}, 1, 2), ("camembert", {"pad_token_id": 0}, 0, 1),
    ],
)  # fmt: skip
def test_positions_begin_after_the_padding_id_of_all_but_bert(model_type, said, pad_id, offset):
    sizes = {key: value for key, value in LEALLA_SMALL.items() if key != "pad_token_id"}
    values = sizes | {"model_type": model_type, "max_position_embeddings": 514} | said
    config = EncoderConfig.from_hf(values)
    assert (config.pad_id, config.position_offset, config.max_positions) == (pad_id, offset, 514 - offset)
    assert EncoderConfig.from_hf(config.to_hf()) == config
    assert config.to_hf()["max_position_embeddings"] == 514


@pytest.mark.parametrize("key", ["pad_token_id", "max_position_embeddings"])
def test_a_value_of_the_wrong_type_is_named(key):
    with pytest.raises(MelError, match=f"{key} 'many': a whole number"):
        EncoderConfig.from_hf({**LEALLA_SMALL, key: "many"})


def test_refuses_what_is_no_object():
    with pytest.raises(MelError, match="no JSON object"):
        EncoderConfig.from_hf([])


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
        ({"dropout": None}, "dropout None is no number"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps 'small' is no number"),
        ({"pooling": "max"}, "pooling 'max'"),
        ({"model_type": "t5"}, "model_type 't5'"),
        ({"pad_id": -1}, "pad_id -1"),
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
