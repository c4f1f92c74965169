"""Published encoders in and out: Hugging Face folders of BERT and its likes, sentence-transformers folders, hub ids.

In memory padding has id 0, as rows have it (`mel.text.tokenizer`). Where files have another, the two
rows of the token table change places when they are read, and back when they are written.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping

import flax.traverse_util
import numpy as np
from absl import logging

from mel.encoder.config import EncoderConfig, Pooling
from mel.encoder.modules import MODULES, Modules, read_json, read_modules, write_json, write_modules
from mel.encoder.transformer import PAD_ID, TOKEN_TABLE, Params, parameter_shapes
from mel.encoder.weights import FILES, encoder_weights, read_weights, weight_file, write_weights
from mel.text import foreign
from mel.types import MelError

NEW_ROW_STD = 0.01

_NAMES = {
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
# Of heads, and numbers that are no weights: nothing is lost without them.
_HEADS = re.compile(r"cls\.|lm_head\.|(qa_outputs|classifier)\.|(embeddings\.)?(position|token_type)_ids$")
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


def load(
    path_or_hub_id: str | os.PathLike, pooling: Pooling | None = None, layers: int | None = None,
    pad_id: int | None = None,
) -> tuple[EncoderConfig, Params]:  # fmt: skip
    """Loads an encoder from a local folder or from the Hugging Face hub.

    Args:
      path_or_hub_id: where.
      pooling: how to pool. None is as a sentence-transformers folder says; any other has its pooler.
      layers: how many of the layers to keep, from the first on; None keeps them all.
      pad_id: the padding id of its tokenizer. None is as its config.json says, which BERT never looks
        at, so that it is wrong in some published ones.

    Returns:
      The config, and the parameters as NumPy float32 arrays. The pooler's are among them where the
      weights have one, used or not.

    Raises:
      MelError: it cannot be reached or read, is another architecture, or a weight is missing,
        misshapen or not a number.
    """
    modules = read_modules(fetch(path_or_hub_id))
    values = read_json(modules.transformer / "config.json")
    config = EncoderConfig.from_hf(values, pooling or modules.pooling or "pooler")
    config = _with_padding(_with_layers(config, layers, path_or_hub_id), pad_id, path_or_hub_id)
    file = weight_file(modules.transformer)
    weights = encoder_weights(read_weights(file), file)
    if config.pooling == "pooler":
        weights |= _pooler(modules, weights, file)
    kept = {name: weight for name, weight in weights.items() if _layer(name) < (layers or np.inf)}
    return config, _exchange(config, _assemble(config, kept, file))


def save(
    folder: str | os.PathLike, config: EncoderConfig, params: Params, transformer: str = "",
    max_tokens: int | None = None, prompts: Mapping[str, str] = {},
) -> None:  # fmt: skip
    """Writes a sentence-transformers folder, whose transformer is a folder for `transformers`.

    Weights that have no pooler, because no one trained it, are read there with `add_pooling_layer=False`.

    Args:
      folder: where.
      config, params: the encoder.
      transformer: a folder inside `folder` for the transformer; "" puts all into one folder.
      max_tokens: where sentence-transformers cuts a text; None is the most that the encoder takes.
      prompts: what sentence-transformers puts before a text, by name.
    """
    folder = pathlib.Path(folder)
    write_json(folder / transformer / "config.json", config.to_hf() | {"dtype": "float32"})
    leaves = flax.traverse_util.flatten_dict(_exchange(config, params))
    weights = {}
    for path, layer, name in _names(leaves, config):
        weight = np.asarray(leaves[path], np.float32)
        weight = weight if layer is None else weight[layer]
        weights[name] = np.ascontiguousarray(weight.T if path[-1] == "kernel" else weight)
    write_weights(folder / transformer / "model.safetensors", weights, format="pt")
    write_modules(folder, config, params, transformer, max_tokens or config.max_positions, prompts)


def resize_vocabulary(params: Params, config: EncoderConfig, new_size: int, seed: int) -> tuple[EncoderConfig, Params]:
    """Appends rows to the token table, each near the mean of the rows that are there, or takes the last ones away."""
    leaves = flax.traverse_util.flatten_dict(params)
    table_VD = np.asarray(leaves[TOKEN_TABLE])
    if new_size > len(table_VD):
        shape = new_size - len(table_VD), config.hidden_size
        new_VD = np.random.default_rng(seed).normal(table_VD.mean(axis=0), NEW_ROW_STD, shape).astype(np.float32)
        table_VD = np.concatenate([table_VD, new_VD])
    leaves[TOKEN_TABLE] = table_VD[:new_size]  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(config, vocab_size=new_size), flax.traverse_util.unflatten_dict(leaves)


def fetch(path_or_hub_id: str | os.PathLike) -> pathlib.Path:
    """The local folder of an encoder, fetched from the hub if there is none.

    Raises:
      MelError: the hub did not give it.
    """
    folder, name = pathlib.Path(path_or_hub_id), str(path_or_hub_id)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise MelError(f"There is no folder {name}, and it cannot be a hub id either: pass a folder with an encoder.")
    import huggingface_hub

    others = ["config.json", MODULES, "*/config.json", "*_Dense/*", *foreign.FILES]
    try:
        for weights in FILES:  # One format is enough: asking for all would fetch the model three times.
            parts = [weights.replace(".safetensors.index.json", "-*.safetensors").replace(".bin.index.json", "-*.bin")]
            patterns = [*others, *(f"0_Transformer/{part}" for part in (weights, *parts)), *parts, weights]
            folder = pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
            if any((folder / part / weights).exists() for part in ("", "0_Transformer")):
                break
    except Exception as error:  # The hub's client raises whatever its HTTP library does.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise MelError(
            f"{name!r} is no folder here, and the hub did not give it ({reason}): pass a local folder."
        ) from error
    return folder


def _with_layers(config: EncoderConfig, layers: int | None, source: str | os.PathLike) -> EncoderConfig:
    if layers is None:
        return config
    if not 0 < layers <= config.num_layers:
        raise MelError(f"{source} has {config.num_layers} layers: --encoder_layers={layers} cannot be kept of them.")
    return dataclasses.replace(config, num_layers=layers)


def _with_padding(config: EncoderConfig, pad_id: int | None, source: str | os.PathLike) -> EncoderConfig:
    if pad_id in (None, config.pad_id):
        return config
    if config.position_offset:  # Its positions are numbered from there.
        raise MelError(
            f"{source} has padding id {config.pad_id}, and the tokenizer {pad_id}: "
            "prepare the data with the tokenizer of this encoder."
        )
    return dataclasses.replace(config, pad_id=pad_id)


def _pooler(modules: Modules, weights: Mapping[str, np.ndarray], file: pathlib.Path) -> dict[str, np.ndarray]:
    """The weights of the pooler that the folder's modules have, if any.

    Raises:
      MelError: neither they nor the encoder have one.
    """
    if modules.pooler:
        found = weight_file(modules.pooler)
        dense = read_weights(found)
        try:
            return {f"pooler.dense.{name}": dense[f"linear.{name}"] for name in ("weight", "bias")}
        except KeyError as error:
            raise MelError(f"{found} lacks the weight {error}.") from None
    if "pooler.dense.weight" not in weights:
        raise MelError(f"{file} has no pooler (pooler.dense.weight): say --pooling=mean or --pooling=cls.")
    return {}


def _exchange(config: EncoderConfig, params: Params) -> Params:
    """The parameters with padding's row of the token table and the first one in each other's place."""
    if config.pad_id == PAD_ID:
        return params
    leaves = flax.traverse_util.flatten_dict(params)
    table_VD = np.array(leaves[TOKEN_TABLE])
    if config.pad_id >= len(table_VD):
        raise MelError(f"The encoder has {len(table_VD)} tokens and padding id {config.pad_id}, which is none of them.")
    table_VD[[PAD_ID, config.pad_id]] = table_VD[[config.pad_id, PAD_ID]]
    leaves[TOKEN_TABLE] = table_VD  # pyright: ignore[reportArgumentType]
    return flax.traverse_util.unflatten_dict(leaves)


def _assemble(config: EncoderConfig, weights: dict[str, np.ndarray], file: pathlib.Path) -> Params:
    """Moves every weight to its place in the parameters, stacking the layers."""
    shapes = flax.traverse_util.flatten_dict(parameter_shapes(dataclasses.replace(config, pooling="pooler")))
    if "pooler.dense.weight" not in weights:
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
        if not np.isfinite(place).all():
            raise MelError(f"{file} has values in {name} that are no numbers: it is damaged, or its training diverged.")
    unused = sorted(name for name in weights if not _HEADS.match(name))
    if unused:
        logging.warning("%s has %d weights of no use to the encoder: %s", file, len(unused), ", ".join(unused))
    return flax.traverse_util.unflatten_dict(leaves)


def _names(
    paths: Iterable[tuple[str, ...]], config: EncoderConfig
) -> Iterator[tuple[tuple[str, ...], int | None, str]]:
    """Each parameter path with PyTorch's name of it, once for every layer that is stacked in it."""
    for path in paths:
        name = f"{_NAMES[path[:-1]]}.{'bias' if path[-1] == 'bias' else 'weight'}"
        for layer in range(config.num_layers) if path[0] == "layers" else [None]:
            yield path, layer, name.format(layer)


def _layer(name: str) -> int:
    """The layer that a weight belongs to, -1 if to none."""
    match = _LAYER.match(name)
    return int(match[1]) if match else -1
