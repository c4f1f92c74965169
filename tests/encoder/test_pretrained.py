import dataclasses
import json

import flax.serialization
import flax.traverse_util
import huggingface_hub
import jax
import numpy as np
import pytest
import safetensors.numpy

from mel.encoder import pretrained
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import TOKEN_TABLE, init_params
from mel.types import MelError

CONFIG = EncoderConfig(vocab_size=30, hidden_size=8, num_layers=2, num_heads=2, ffn_size=12, max_positions=16)
KERNELS = ("attention.self.query", "attention.self.key", "attention.self.value", "dense")


def rough_params(config=CONFIG):
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + generator.standard_normal(x.shape, np.float32), init_params(config, 0))


def assert_same(found, expected):
    found, expected = (flax.traverse_util.flatten_dict(params) for params in (found, expected))
    assert list(found) == list(expected)
    for path in expected:
        assert found[path].dtype == np.float32
        np.testing.assert_array_equal(found[path], expected[path], err_msg=str(path))


@pytest.fixture
def folder(tmp_path):
    """A saved encoder with its weights in model.safetensors."""
    pretrained.save(tmp_path / "encoder", CONFIG, rough_params())
    return tmp_path / "encoder"


def read(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def write(folder, weights):
    safetensors.numpy.save_file(weights, folder / "model.safetensors")


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(pretrained.logging, "warning", lambda message, *values: messages.append(message % values))
    return messages


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


def test_names_of_models_with_a_head(folder, warnings):
    weights = {f"bert.{name}": weight for name, weight in read(folder).items()}
    weights |= {"cls.predictions.bias": np.ones(30), "bert.embeddings.position_ids": np.arange(16)[None]}
    write(folder, weights)
    assert_same(pretrained.load(folder)[1], rough_params())
    assert warnings == []


def test_names_of_old_layer_norms(folder):
    renamed = {}
    for name, weight in read(folder).items():
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        renamed[old] = weight
    write(folder, renamed)
    assert_same(pretrained.load(folder)[1], rough_params())


def test_what_is_left_over_is_logged(folder, warnings):
    write(folder, read(folder) | {"adapter.weight": np.ones(3), "encoder.layer.2.output.dense.bias": np.ones(8)})
    assert_same(pretrained.load(folder)[1], rough_params())
    assert len(warnings) == 1
    assert "2 weights" in warnings[0] and "adapter.weight, encoder.layer.2.output.dense.bias" in warnings[0]


def test_half_precision_becomes_float32(folder):
    write(folder, {name: weight.astype(np.float16) for name, weight in read(folder).items()})
    halved = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), rough_params())
    assert_same(pretrained.load(folder)[1], halved)


@pytest.mark.parametrize("prefix", [(), ("bert",), ("params", "bert")])
def test_flax_weights(folder, prefix):
    leaves = {}
    for name, weight in read(folder).items():
        *module, leaf = name.split(".")
        if leaf == "weight" and ".".join(module).endswith(KERNELS):
            leaves[*prefix, *module, "kernel"] = np.ascontiguousarray(weight.T)
        elif leaf == "weight":
            leaves[*prefix, *module, "scale" if module[-1] == "LayerNorm" else "embedding"] = weight
        else:
            leaves[*prefix, *module, leaf] = weight
    tree = flax.traverse_util.unflatten_dict(leaves)
    (folder / "flax_model.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    (folder / "model.safetensors").unlink()
    assert_same(pretrained.load(folder)[1], rough_params())


def test_torch_weights(folder):
    torch = pytest.importorskip("torch", reason="needs PyTorch, of the bench extra")
    weights = {f"bert.{name}": torch.tensor(weight) for name, weight in read(folder).items()}
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert_same(pretrained.load(folder)[1], rough_params())


def test_torch_weights_without_torch_are_refused(folder, monkeypatch):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MelError, match="pytorch_model.bin needs torch"):
        pretrained.load(folder)


def test_other_formats_are_refused_by_name(folder):
    (folder / "model.safetensors").rename(folder / "tf_model.h5")
    with pytest.raises(MelError, match="it has tf_model.h5"):
        pretrained.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "flax_model.msgpack"])
def test_damaged_weights_are_refused(folder, name):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content[:-100])
    with pytest.raises(MelError, match=f"{name} is damaged"):
        pretrained.load(folder)


def test_a_missing_weight_is_named(folder):
    weights = read(folder)
    del weights["encoder.layer.1.attention.self.key.bias"]
    write(folder, weights)
    with pytest.raises(MelError, match="lacks the weight encoder.layer.1.attention.self.key.bias"):
        pretrained.load(folder)


def test_a_missing_pooler_is_named_where_it_is_used(folder):
    write(folder, {name: weight for name, weight in read(folder).items() if not name.startswith("pooler")})
    with pytest.raises(MelError, match="lacks the weight pooler.dense"):
        pretrained.load(folder)


def test_a_wrong_shape_is_named(folder):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"intermediate_size": 16}))
    with pytest.raises(MelError, match=r"encoder.layer.0.*dense.* of shape .*12.* means .*16"):
        pretrained.load(folder)


@pytest.mark.parametrize("content, words", [(None, "There is no .*config.json"), ("{", "config.json is not JSON")])
def test_a_bad_config_file_is_refused(folder, content, words):
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(MelError, match=words):
        pretrained.load(folder)


def write_modules(folder, kinds, pooling):
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.mark.parametrize(
    "pooling, expected",
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False, "include_prompt": True}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"embedding_dimension": 8, "pooling_mode": "mean", "include_prompt": True}, "mean"),
    ],
)
def test_sentence_transformers_say_how_they_pool(folder, pooling, expected):
    write_modules(folder, ["Transformer", "Pooling", "Normalize"], pooling)
    assert pretrained.load(folder)[0] == dataclasses.replace(CONFIG, pooling=expected)


@pytest.mark.parametrize(
    "pooling, words",
    [
        ({"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls_token and pooling_mode_mean_tokens"),
        ({}, "None"),
    ],
)
def test_other_poolings_are_refused_by_name(folder, pooling, words):
    write_modules(folder, ["Transformer", "Pooling"], pooling)
    with pytest.raises(MelError, match=words):
        pretrained.load(folder)


def test_other_modules_are_refused_by_name(folder):
    write_modules(folder, ["Transformer", "Pooling", "Dense"], {"pooling_mode_cls_token": True})
    with pytest.raises(MelError, match="Dense"):
        pretrained.load(folder)


def test_a_hub_id_is_fetched_in_one_format(folder, monkeypatch):
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns[-1]))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    (folder / "model.safetensors").rename(folder / "flax_model.msgpack")
    with pytest.raises(MelError, match="flax_model.msgpack is damaged"):
        pretrained.load("someone/encoder")
    assert asked == [("someone/encoder", "model.safetensors"), ("someone/encoder", "flax_model.msgpack")]


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


def test_a_smaller_vocabulary_is_refused():
    with pytest.raises(MelError, match="30 tokens.*29"):
        pretrained.resize_vocabulary(rough_params(), CONFIG, 29, seed=0)
