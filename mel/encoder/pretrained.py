"""Published weights in and out: Hugging Face BERT folders, sentence-transformers folders, hub ids.

Weights pass through one form, PyTorch's: names as `transformers.BertModel` has them without the prefix
`bert.`, dense matrices as [out, in].
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import flax.serialization
import flax.traverse_util
import numpy as np
import safetensors
import safetensors.numpy
from absl import logging

from mel.encoder.config import EncoderConfig, Pooling
from mel.encoder.transformer import TOKEN_TABLE, Params, parameter_shapes
from mel.types import MelError

WEIGHT_FILES = ("model.safetensors", "flax_model.msgpack", "pytorch_model.bin")
NEW_ROW_STD = 0.01

_MODULES = {
    ("embeddings", "word"): "embeddings.word_embeddings",
    ("embeddings", "position"): "embeddings.position_embeddings",
    ("embeddings", "type"): "embeddings.token_type_embeddings",
    ("embeddings", "norm"): "embeddings.LayerNorm",
    ("layers", "query"): "encoder.layer.{}.attention.self.query",
    ("layers", "key"): "encoder.layer.{}.attention.self.key",
    ("layers", "value"): "encoder.layer.{}.attention.self.value",
    ("layers", "output"): "encoder.layer.{}.attention.output.dense",
    ("layers", "attention_norm"): "encoder.layer.{}.attention.output.LayerNorm",
    ("layers", "up"): "encoder.layer.{}.intermediate.dense",
    ("layers", "down"): "encoder.layer.{}.output.dense",
    ("layers", "ffn_norm"): "encoder.layer.{}.output.LayerNorm",
    ("pooler",): "pooler.dense",
}
_HEADS = re.compile(r"cls\.|(qa_outputs|classifier)\.|embeddings\.(position|token_type)_ids$")
_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "mean": "mean",
    "cls": "cls",
}


def load(path_or_hub_id: str | os.PathLike) -> tuple[EncoderConfig, Params]:
    """Loads a BERT encoder from a local folder or from the Hugging Face hub.

    A sentence-transformers folder says how it pools; any other is pooled by its pooler.

    Returns:
      The config, and the parameters as NumPy float32 arrays. The pooler's are among them where the
      weights have one, used or not.

    Raises:
      MelError: it cannot be reached or read, is no BERT encoder, or a weight is missing or misshapen.
    """
    folder, pooling = _read_modules(_fetch(path_or_hub_id))
    config = EncoderConfig.from_hf(_read_json(folder / "config.json"), pooling)
    file = _weight_file(folder)
    return config, _assemble(config, _plain_names(_read_weights(file)), file)


def save(folder: str | os.PathLike, config: EncoderConfig, params: Params) -> None:
    """Writes `config.json` and `model.safetensors` for `transformers.BertModel.from_pretrained`.

    Pooling other than by the pooler is written as sentence-transformers does. Weights that have no
    pooler, because no one trained it, are read there with `add_pooling_layer=False`.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", config.to_hf() | {"dtype": "float32"})
    leaves = flax.traverse_util.flatten_dict(params)
    weights = {}
    for path, layer, name in _names(leaves, config):
        weight = np.asarray(leaves[path], np.float32)
        weight = weight if layer is None else weight[layer]
        weights[name] = np.ascontiguousarray(weight.T if path[-1] == "kernel" else weight)
    safetensors.numpy.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if config.pooling != "pooler":
        _write_modules(folder, config)


def resize_vocabulary(params: Params, config: EncoderConfig, new_size: int, seed: int) -> tuple[EncoderConfig, Params]:
    """Appends rows to the token table, each near the mean of the rows that are there.

    Raises:
      MelError: `new_size` is below the present size.
    """
    if new_size < config.vocab_size:
        raise MelError(
            f"The encoder knows {config.vocab_size} tokens, which is more than the {new_size} asked for: "
            "use the tokenizer it was trained with."
        )
    leaves = flax.traverse_util.flatten_dict(params)
    table_VD = np.asarray(leaves[TOKEN_TABLE])
    shape = new_size - config.vocab_size, config.hidden_size
    new_VD = np.random.default_rng(seed).normal(table_VD.mean(axis=0), NEW_ROW_STD, shape).astype(np.float32)
    leaves[TOKEN_TABLE] = np.concatenate([table_VD, new_VD])
    return dataclasses.replace(config, vocab_size=new_size), flax.traverse_util.unflatten_dict(leaves)


def _fetch(path_or_hub_id: str | os.PathLike) -> pathlib.Path:
    folder, name = pathlib.Path(path_or_hub_id), str(path_or_hub_id)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise MelError(f"There is no folder {name}, and it cannot be a hub id either: pass a folder with an encoder.")
    import huggingface_hub

    try:
        for weights in WEIGHT_FILES:  # One format is enough: asking for all would fetch the model three times.
            patterns = ["config.json", "modules.json", "*/config.json", weights]
            folder = pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
            if any(folder.rglob(weights)):
                break
    except Exception as error:  # The hub's client raises whatever its HTTP library does.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise MelError(
            f"{name!r} is no folder here, and the hub did not give it ({reason}): pass a local folder."
        ) from error
    return folder


def _read_modules(folder: pathlib.Path) -> tuple[pathlib.Path, Pooling]:
    """The folder of the transformer, and how its output is pooled."""
    if not (folder / "modules.json").exists():
        return folder, "pooler"
    pooling: Pooling | None = None
    transformer = folder
    for module in _read_json(folder / "modules.json"):
        path = folder / module["path"]
        match module["type"].split(".")[-1]:
            case "Transformer":
                transformer = path
            case "Pooling":
                pooling = _read_pooling(path / "config.json")
            case "Normalize":
                pass
            case other:
                raise MelError(
                    f"{folder} is a sentence-transformers model with a {other} module, which cannot be loaded: "
                    "pass a plain BertModel folder."
                )
    return transformer, pooling or "pooler"


def _read_pooling(file: pathlib.Path) -> Pooling:
    values = _read_json(file)
    switched_on = [key for key, on in values.items() if key.startswith("pooling_mode_") and on is True]
    modes = switched_on or [str(values.get("pooling_mode"))]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise MelError(f"{file} pools by {' and '.join(modes)}: only mean or cls can be loaded.")
    return _POOLINGS[modes[0]]


def _write_modules(folder: pathlib.Path, config: EncoderConfig) -> None:
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    _write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {key: pooling == config.pooling for key, pooling in _POOLINGS.items() if key.startswith("pooling_mode_")}
    _write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": config.hidden_size, **modes})


def _weight_file(folder: pathlib.Path) -> pathlib.Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            break
    else:
        others = sorted(file.name for file in folder.iterdir() if file.suffix not in (".json", ".md", ".txt"))
        raise MelError(f"{folder} has none of {', '.join(WEIGHT_FILES)}; it has {', '.join(others) or 'no weights'}.")
    if name == "pytorch_model.bin" and importlib.util.find_spec("torch") is None:
        raise MelError(f"Reading {folder / name} needs torch: install it, or convert the weights to model.safetensors.")
    return folder / name


def _read_weights(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        match file.suffix:
            case ".safetensors":
                return safetensors.numpy.load_file(file)
            case ".msgpack":
                return _from_flax(flax.serialization.msgpack_restore(file.read_bytes()))
            case _:
                import torch

                tensors = torch.load(file, map_location="cpu", weights_only=True)
                return {name: tensor.float().numpy() for name, tensor in tensors.items()}
    except Exception as error:  # Each format's reader has errors of its own, and all mean the same here.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise MelError(f"{file} is damaged or no weights file ({reason}): fetch it again.") from error


def _from_flax(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Names and layouts of the Flax classes that `transformers` once had, turned into PyTorch's."""
    weights = {}
    for path, weight in flax.traverse_util.flatten_dict(tree.get("params", tree)).items():
        leaf = {"kernel": "weight", "embedding": "weight", "scale": "weight"}.get(path[-1], path[-1])
        weights[".".join((*path[:-1], leaf))] = weight.T if path[-1] == "kernel" else weight
    return weights


def _plain_names(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the prefix of models with a head, and with LayerNorm's names of today."""
    plain = {}
    for name, weight in weights.items():
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        plain[name.removeprefix("bert.")] = weight
    return plain


def _assemble(config: EncoderConfig, weights: dict[str, np.ndarray], file: pathlib.Path) -> Params:
    """Moves every weight to its place in the parameters, stacking the layers."""
    shapes = flax.traverse_util.flatten_dict(parameter_shapes(dataclasses.replace(config, pooling="pooler")))
    if config.pooling != "pooler" and "pooler.dense.weight" not in weights:
        shapes = {path: shape for path, shape in shapes.items() if path[0] != "pooler"}
    leaves = {path: np.empty(shape.shape, np.float32) for path, shape in shapes.items()}
    for path, layer, name in _names(shapes, config):
        place = leaves[path] if layer is None else leaves[path][layer]
        place = place.T if path[-1] == "kernel" else place
        weight = weights.pop(name, None)
        if weight is None:
            raise MelError(f"{file} lacks the weight {name}.")
        if weight.shape != place.shape:
            raise MelError(f"{file} has {name} of shape {weight.shape}, but its config.json means {place.shape}.")
        place[...] = weight
    unused = sorted(name for name in weights if not _HEADS.match(name))
    if unused:
        logging.warning("%s has %d weights of no use to the encoder: %s", file, len(unused), ", ".join(unused))
    return flax.traverse_util.unflatten_dict(leaves)


def _names(
    paths: Iterable[tuple[str, ...]], config: EncoderConfig
) -> Iterator[tuple[tuple[str, ...], int | None, str]]:
    """Each parameter path with PyTorch's name of it, once for every layer that is stacked in it."""
    for path in paths:
        name = f"{_MODULES[path[:-1]]}.{'bias' if path[-1] == 'bias' else 'weight'}"
        for layer in range(config.num_layers) if path[0] == "layers" else [None]:
            yield path, layer, name.format(layer)


def _read_json(file: pathlib.Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise MelError(f"There is no {file}: a folder with config.json and weights is needed.") from None
    except ValueError:
        raise MelError(f"{file} is not JSON: fetch it again.") from None


def _write_json(file: pathlib.Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
