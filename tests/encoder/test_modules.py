"""Sentence-transformers folders, as others and as we write them."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

from mel.encoder import pretrained
from mel.types import MelError
from tests.encoder.folders import CONFIG, assert_same, read, rough_params, write_transformer

TANH = "torch.nn.modules.activation.Tanh"
CLS = {"pooling_mode_cls_token": True}


@pytest.fixture
def folder(tmp_path):
    return write_transformer(tmp_path)


def write_modules(folder, kinds, pooling, transformer="", style="sentence_transformers.models.{}"):
    """modules.json, and the config of its pooling; `style` is how a version names the classes."""
    paths = {"Transformer": transformer, "Pooling": "1_Pooling", "Dense": "2_Dense"}
    modules = [
        {"idx": i, "name": str(i), "path": paths.get(kind, f"{i}_{kind}"), "type": style.format(kind)}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def write_dense(folder, weight, offset, **config):
    (folder / "2_Dense").mkdir()
    size = {"in_features": 8, "out_features": 8, "bias": True, "activation_function": TANH}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(size | config))
    safetensors.numpy.save_file(
        {"linear.weight": weight, "linear.bias": offset}, folder / "2_Dense" / "model.safetensors"
    )


@pytest.mark.parametrize(
    "pooling, expected",
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False, "include_prompt": True}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"embedding_dimension": 8, "pooling_mode": "mean", "include_prompt": True}, "mean"),
        ({"embedding_dimension": 8, "pooling_mode": ["cls"]}, "cls"),
    ],
)
def test_sentence_transformers_say_how_they_pool(folder, pooling, expected):
    write_modules(folder, ["Transformer", "Pooling", "Normalize"], pooling)
    assert pretrained.load(folder)[0] == dataclasses.replace(CONFIG, pooling=expected)


def test_an_argument_overrides_what_a_folder_says(folder):
    assert pretrained.load(folder, pooling="mean")[0].pooling == "mean"
    write_modules(folder, ["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True})
    for pooling in ("cls", "pooler"):
        config, params = pretrained.load(folder, pooling=pooling)
        assert config.pooling == pooling
        assert_same(params, rough_params())


def test_the_layout_of_old_versions(tmp_path):
    write_transformer(tmp_path).rename(tmp_path / "0_Transformer")
    for file in ("modules.json", "1_Pooling/config.json"):
        (tmp_path / file).unlink()
    (tmp_path / "1_Pooling").rmdir()
    write_modules(tmp_path, ["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True}, "0_Transformer")
    config, params = pretrained.load(tmp_path)
    assert config == dataclasses.replace(CONFIG, pooling="mean")
    assert_same(params, rough_params())


def test_class_names_of_new_versions(folder):
    style = "sentence_transformers.base.modules.some_module.{}"
    write_modules(folder, ["Transformer", "Pooling"], {"pooling_mode": "cls"}, style=style)
    assert pretrained.load(folder)[0].pooling == "cls"


def test_a_dense_layer_with_tanh_after_the_first_token_is_the_pooler(folder):
    write_modules(folder, ["Transformer", "Pooling", "Dense", "Normalize"], CLS)
    weight, bias = np.arange(64, dtype=np.float32).reshape(8, 8), np.arange(8, dtype=np.float32)
    write_dense(folder, weight, bias)
    config, params = pretrained.load(folder)
    assert config == CONFIG and config.pooling == "pooler"
    np.testing.assert_array_equal(params["pooler"]["kernel"], weight.T)
    np.testing.assert_array_equal(params["pooler"]["bias"], bias)


def test_such_a_layer_serves_weights_without_a_pooler(folder):
    kept = {name: weight for name, weight in read(folder).items() if not name.startswith("pooler")}
    safetensors.numpy.save_file(kept, folder / "model.safetensors")
    write_modules(folder, ["Transformer", "Pooling", "Dense"], CLS)
    write_dense(folder, np.ones((8, 8), np.float32), np.ones(8, np.float32))
    assert (pretrained.load(folder)[1]["pooler"]["bias"] == 1).all()


@pytest.mark.parametrize(
    "pooling, config",
    [
        ({"pooling_mode_mean_tokens": True}, {}),
        (CLS, {"out_features": 4}),
        (CLS, {"bias": False}),
        (CLS, {"activation_function": "torch.nn.modules.linear.Identity"}),
    ],
)
def test_other_dense_layers_are_refused(folder, pooling, config):
    write_modules(folder, ["Transformer", "Pooling", "Dense"], pooling)
    write_dense(folder, np.ones((8, 8), np.float32), np.ones(8, np.float32), **config)
    with pytest.raises(MelError, match="with a Dense module.*--pooling"):
        pretrained.load(folder)


@pytest.mark.parametrize(
    "pooling, words",
    [
        ({"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls_token and pooling_mode_mean_tokens"),
        ({}, "None"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
    ],
)
def test_other_poolings_are_refused_by_name(folder, pooling, words):
    write_modules(folder, ["Transformer", "Pooling"], pooling)
    with pytest.raises(MelError, match=words):
        pretrained.load(folder)


@pytest.mark.parametrize("kind", ["LSTM", "CNN", "WeightedLayerPooling"])
def test_other_modules_are_refused_by_name(folder, kind):
    write_modules(folder, ["Transformer", "Pooling", kind], {"pooling_mode_cls_token": True})
    with pytest.raises(MelError, match=f"with a {kind} module"):
        pretrained.load(folder)


@pytest.mark.parametrize("content, words", [("{", "is not JSON"), ('["x"]', "no list of modules")])
def test_a_broken_list_of_modules_is_named(folder, content, words):
    (folder / "modules.json").write_text(content)
    with pytest.raises(MelError, match=f"modules.json {words}|modules.json is {words}"):
        pretrained.load(folder)


def test_what_is_written_for_each_pooling(tmp_path):
    for pooling, kinds in (
        ("pooler", ["Transformer", "Pooling", "Dense", "Normalize"]),
        ("mean", ["Transformer", "Pooling", "Normalize"]),
    ):
        config, folder = dataclasses.replace(CONFIG, pooling=pooling), tmp_path / pooling
        prompts = {"query": "query: ", "document": ""}
        pretrained.save(folder, config, rough_params(config), transformer="inside", max_tokens=12, prompts=prompts)
        modules = json.loads((folder / "modules.json").read_text())
        assert [module["type"].split(".")[-1] for module in modules] == kinds
        assert modules[0]["path"] == "inside"
        assert json.loads((folder / "inside" / "sentence_bert_config.json").read_text())["max_seq_length"] == 12
        written = json.loads((folder / "config_sentence_transformers.json").read_text())
        assert written == {"prompts": prompts, "default_prompt_name": None}
        assert pretrained.load(folder)[0] == config
