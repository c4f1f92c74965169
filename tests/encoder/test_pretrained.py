"""Encoders in and out: what is saved is what is loaded, and what cannot be loaded is named."""

import dataclasses
import json

import flax.traverse_util
import huggingface_hub
import numpy as np
import pytest

from mel.encoder import pretrained
from mel.encoder.transformer import TOKEN_TABLE
from mel.types import MelError
from tests.encoder.folders import CONFIG, assert_same, read, rough_params, write, write_transformer

XLM_R = dataclasses.replace(
    CONFIG, model_type="xlm-roberta", pad_id=1, type_vocab_size=1, layer_norm_eps=1e-5, pooling="mean"
)


@pytest.fixture
def folder(tmp_path):
    return write_transformer(tmp_path)


@pytest.mark.parametrize("pooling", ["pooler", "mean", "cls"])
def test_save_and_load_are_bit_equal(pooling, tmp_path):
    config = dataclasses.replace(CONFIG, pooling=pooling, dropout=0.1)
    params = rough_params(config)
    pretrained.save(tmp_path, config, params)
    assert pretrained.load(tmp_path)[0] == config
    assert_same(pretrained.load(tmp_path)[1], params)


def test_a_pooler_that_is_not_used_is_kept(tmp_path):
    config = dataclasses.replace(CONFIG, pooling="mean")
    pretrained.save(tmp_path, config, rough_params(CONFIG))
    assert_same(pretrained.load(tmp_path)[1], rough_params(CONFIG))


def test_matrices_are_saved_as_pytorch_has_them(folder):
    weights, layers = read(folder), rough_params()["layers"]
    assert weights["encoder.layer.1.intermediate.dense.weight"].shape == (12, 8)
    np.testing.assert_array_equal(weights["encoder.layer.1.intermediate.dense.weight"], layers["up"]["kernel"][1].T)
    np.testing.assert_array_equal(weights["encoder.layer.0.output.LayerNorm.weight"], layers["ffn_norm"]["scale"][0])
    assert len(weights) == 5 + 16 * 2 + 2


def test_a_folder_without_a_pooler_must_be_told_how_to_pool(folder):
    write(folder, {name: weight for name, weight in read(folder).items() if not name.startswith("pooler")})
    with pytest.raises(MelError, match="has no pooler .*: say --pooling=mean or --pooling=cls"):
        pretrained.load(folder)
    config, params = pretrained.load(folder, pooling="cls")
    assert config.pooling == "cls" and "pooler" not in params


def test_the_first_layers_can_be_kept(folder, monkeypatch):
    monkeypatch.setattr(pretrained.logging, "warning", lambda *words: pytest.fail(str(words)))
    config, params = pretrained.load(folder, layers=1)
    assert config == dataclasses.replace(CONFIG, num_layers=1)
    for name, module in rough_params()["layers"].items():
        for leaf, stack in module.items():
            np.testing.assert_array_equal(params["layers"][name][leaf], stack[:1])
    assert_same(pretrained.load(folder, layers=2)[1], rough_params())
    for layers in (0, 3):
        with pytest.raises(MelError, match=f"has 2 layers: --encoder_layers={layers} cannot"):
            pretrained.load(folder, layers=layers)


def test_padding_and_0_change_places_between_files_and_memory(tmp_path):
    params = rough_params(XLM_R)
    pretrained.save(tmp_path, XLM_R, params)
    table_VD = params["embeddings"]["word"]["embedding"]
    saved_VD = read(tmp_path)["embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(saved_VD[[1, 0, 2, 29]], table_VD[[0, 1, 2, 29]])
    assert json.loads((tmp_path / "config.json").read_text())["pad_token_id"] == 1
    config, loaded = pretrained.load(tmp_path)
    assert config == XLM_R
    assert_same(loaded, params)


def test_positions_are_numbered_from_the_padding_id_on(tmp_path):
    pretrained.save(tmp_path, XLM_R, rough_params(XLM_R))
    assert read(tmp_path)["embeddings.position_embeddings.weight"].shape == (16 + 2, 8)
    assert json.loads((tmp_path / "config.json").read_text())["max_position_embeddings"] == 18


def test_bert_may_say_another_padding_id_than_its_tokenizer(folder, tmp_path):
    config, params = pretrained.load(folder, pad_id=4)
    assert config == dataclasses.replace(CONFIG, pad_id=4)
    table_VD = params["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(table_VD[[4, 0, 1]], read(folder)["embeddings.word_embeddings.weight"][[0, 4, 1]])
    pretrained.save(tmp_path / "again", config, params)
    np.testing.assert_array_equal(
        read(tmp_path / "again")["embeddings.word_embeddings.weight"], read(folder)["embeddings.word_embeddings.weight"]
    )


def test_positions_that_depend_on_another_padding_id_are_refused(tmp_path):
    pretrained.save(tmp_path, XLM_R, rough_params(XLM_R))
    with pytest.raises(MelError, match="has padding id 1, and the tokenizer 0"):
        pretrained.load(tmp_path, pad_id=0)


def test_a_hub_id_is_fetched_in_one_format(folder, monkeypatch):
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns[-1]))
        assert "tokenizer*.json" in allow_patterns and "modules.json" in allow_patterns
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    (folder / "model.safetensors").rename(folder / "flax_model.msgpack")
    with pytest.raises(MelError, match="flax_model.msgpack is damaged"):
        pretrained.load("someone/encoder")
    files = ("model.safetensors", "model.safetensors.index.json", "flax_model.msgpack")
    assert asked == [("someone/encoder", file) for file in files]


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def snapshot_download(name, allow_patterns):
        raise ConnectionError("Name or service not known\nA long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(MelError, match=r"^'a/model' .*\(Name or service not known\): pass a local folder\.$"):
        pretrained.load("a/model")


@pytest.mark.parametrize("name", ["/no/such/folder", "models/none/here", "../none"])
def test_a_folder_that_is_not_there_is_never_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **options: pytest.fail("asked the hub"))
    with pytest.raises(MelError, match=f"no folder {name}"):
        pretrained.load(name)


def test_new_tokens_start_near_the_mean():
    params = rough_params()
    config, grown = pretrained.resize_vocabulary(params, CONFIG, 33, seed=5)
    assert config == dataclasses.replace(CONFIG, vocab_size=33)
    table_VD, before_VD = grown["embeddings"]["word"]["embedding"], params["embeddings"]["word"]["embedding"]
    assert table_VD.shape == (33, 8) and table_VD.dtype == np.float32 and before_VD.shape == (30, 8)
    np.testing.assert_array_equal(table_VD[:30], before_VD)
    np.testing.assert_allclose(table_VD[30:], np.broadcast_to(before_VD.mean(0), (3, 8)), atol=0.05)
    assert len(np.unique(table_VD[30:], axis=0)) == 3
    assert_same(grown, pretrained.resize_vocabulary(params, CONFIG, 33, seed=5)[1])
    other = pretrained.resize_vocabulary(params, CONFIG, 33, seed=6)[1]
    assert (other["embeddings"]["word"]["embedding"][30:] != table_VD[30:]).all()
    leaves, grown_leaves = (flax.traverse_util.flatten_dict(tree) for tree in (params, grown))
    assert all(grown_leaves[path] is leaves[path] for path in leaves if path != TOKEN_TABLE)


def test_the_same_size_changes_nothing():
    config, params = pretrained.resize_vocabulary(rough_params(), CONFIG, 30, seed=0)
    assert config == CONFIG
    assert_same(params, rough_params())


def test_a_smaller_vocabulary_has_the_first_rows():
    config, params = pretrained.resize_vocabulary(rough_params(), CONFIG, 12, seed=0)
    assert config.vocab_size == 12
    table_VD = rough_params()["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(params["embeddings"]["word"]["embedding"], table_VD[:12])
