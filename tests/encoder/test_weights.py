"""Weights load from all files that hold them, under all names that they have had."""

import json
import shutil

import flax.serialization
import flax.traverse_util
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from mel.encoder import pretrained, weights
from mel.types import MelError
from tests.encoder.folders import KERNELS, assert_same, read, rough_params, write, write_transformer


@pytest.fixture
def folder(tmp_path):
    return write_transformer(tmp_path)


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(pretrained.logging, "warning", lambda message, *values: messages.append(message % values))
    return messages


@pytest.mark.parametrize("prefix", ["bert.", "roberta.", "module.", "0.auto_model.", "module.bert.", "model.encoder."])
def test_names_of_larger_models(folder, warnings, prefix):
    named = {f"{prefix}{name}": weight for name, weight in read(folder).items()}
    named |= {"cls.predictions.bias": np.ones(30), "lm_head.bias": np.ones(30)}
    write(folder, named | {f"{prefix}embeddings.position_ids": np.arange(16)[None]})
    assert_same(pretrained.load(folder)[1], rough_params())
    assert warnings == []


def test_two_encoders_in_one_file_are_refused_by_name(folder):
    write(folder, {f"{tower}.{name}": weight for name, weight in read(folder).items() for tower in ("one", "other")})
    with pytest.raises(MelError, match=r"has 2 encoders \(one., other.\)"):
        pretrained.load(folder)
    write(folder, {"weight": np.ones(3)})
    with pytest.raises(MelError, match="has no embeddings.word_embeddings.weight"):
        pretrained.load(folder)


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


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(folder, dtype):
    write(folder, {name: weight.astype(dtype) for name, weight in read(folder).items()})
    halved = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), rough_params())
    assert_same(pretrained.load(folder)[1], halved)


def test_shards_are_put_together_by_their_index(folder):
    whole, names = read(folder), sorted(read(folder))
    shards = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for shard, inside in shards.items():
        safetensors.numpy.save_file({name: whole[name] for name in inside}, folder / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, inside in shards.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    assert_same(pretrained.load(folder)[1], rough_params())
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MelError, match="There is no .*model-00002-of-00002.safetensors, which the index"):
        pretrained.load(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(MelError, match="is no index of weights"):
        pretrained.load(folder)


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


@pytest.mark.slow
def test_torch_weights(folder):
    torch = pytest.importorskip("torch", reason="needs PyTorch, of the bench extra")
    named = {f"bert.{name}": torch.tensor(weight) for name, weight in read(folder).items()}
    torch.save(named, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert_same(pretrained.load(folder)[1], rough_params())


def test_torch_weights_without_torch_are_refused(folder, monkeypatch):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(folder, value):
    changed = read(folder)
    changed["encoder.layer.1.output.dense.weight"][3, 2] = value
    write(folder, changed)
    with pytest.raises(MelError, match="values in encoder.layer.1.output.dense.weight that are no numbers"):
        pretrained.load(folder)


def test_a_missing_weight_is_named(folder):
    kept = read(folder)
    del kept["encoder.layer.1.attention.self.key.bias"]
    write(folder, kept)
    with pytest.raises(MelError, match="lacks the weight encoder.layer.1.attention.self.key.bias"):
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


def test_the_order_of_formats(folder):
    shutil.copy(folder / "model.safetensors", folder / "pytorch_model.bin")
    assert weights.weight_file(folder).name == "model.safetensors"
