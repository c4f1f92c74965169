"""The modules of a sentence-transformers folder: which part of it is the transformer, and how it is pooled.

In their words BERT's pooler is the first token, a dense layer and tanh.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from mel.encoder.config import EncoderConfig, Pooling
from mel.encoder.weights import write_weights
from mel.types import MelError

MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"
_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "mean": "mean",
    "cls": "cls",
}
_TANH = "torch.nn.modules.activation.Tanh"


class Modules(NamedTuple):
    """Where the transformer of a folder stands, how it is pooled (None: nobody says), and the weights of a pooler."""

    transformer: pathlib.Path
    pooling: Pooling | None
    pooler: pathlib.Path | None


def read_modules(folder: pathlib.Path) -> Modules:
    """Reads a sentence-transformers folder; any other is a transformer.

    Raises:
      MelError: it holds a module that cannot be loaded.
    """
    found = Modules(folder, None, None)
    if not (folder / MODULES).exists():
        return found
    for module in read_json(folder / MODULES):
        try:
            path, kind = folder / module["path"], module["type"].split(".")[-1]
        except (KeyError, TypeError, AttributeError):
            raise MelError(f"{folder / MODULES} is no list of modules: fetch it again.") from None
        match kind:
            case "Transformer":
                found = found._replace(transformer=path)
            case "Pooling":
                found = found._replace(pooling=_read_pooling(path / "config.json"))
            case "Normalize":
                pass
            case "Dense" if found.pooling == "cls" and _is_pooler(path):
                found = found._replace(pooling="pooler", pooler=path)
            case other:
                raise MelError(
                    f"{folder} is a sentence-transformers model with a {other} module, which cannot be loaded: "
                    "pass the folder of its transformer alone, and --pooling."
                )
    return found


def write_modules(
    folder: pathlib.Path, config: EncoderConfig, params: Any, transformer: str, max_tokens: int,
    prompts: Mapping[str, str],
) -> None:  # fmt: skip
    """Makes a folder that holds an encoder a sentence-transformers model.

    Args:
      folder: where.
      config, params: the encoder.
      transformer: the folder in it that holds the encoder, "" if that is the folder itself.
      max_tokens: where a longer text is cut.
      prompts: what stands before a text, by name.
    """
    size, pooler = config.hidden_size, config.pooling == "pooler"
    modules = [(transformer, "Transformer"), ("1_Pooling", "Pooling")]
    modules += [("2_Dense", "Dense"), ("3_Normalize", "Normalize")] if pooler else [("2_Normalize", "Normalize")]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    write_json(folder / MODULES, listed)
    shortened = {"max_seq_length": max_tokens, "do_lower_case": False}
    write_json(folder / transformer / "sentence_bert_config.json", shortened)
    modes = {"pooling_mode_cls_token": config.pooling != "mean", "pooling_mode_mean_tokens": config.pooling == "mean"}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": size, **modes})
    if pooler:
        dense = {"in_features": size, "out_features": size, "bias": True, "activation_function": _TANH}
        write_json(folder / "2_Dense" / "config.json", dense)
        kernel, bias = (np.asarray(params["pooler"][name], np.float32) for name in ("kernel", "bias"))
        weights = {"linear.weight": np.ascontiguousarray(kernel.T), "linear.bias": bias}
        write_weights(folder / "2_Dense" / "model.safetensors", weights, format="pt")
    if any(prompts.values()):
        write_json(folder / PROMPTS, {"prompts": dict(prompts), "default_prompt_name": None})


def _read_pooling(file: pathlib.Path) -> Pooling:
    values = read_json(file)
    switched_on = [key for key, on in values.items() if key.startswith("pooling_mode_") and on is True]
    modes = switched_on or _listed(values.get("pooling_mode"))
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise MelError(f"{file} pools by {' and '.join(modes)}: only mean or cls can be loaded.")
    if values.get("include_prompt") is False:
        logging.warning("%s leaves prefixes out of the mean; here they are in it.", file)
    return _POOLINGS[modes[0]]


def _listed(mode: Any) -> list[str]:
    return [str(one) for one in mode] if isinstance(mode, list) else [str(mode)]


def _is_pooler(folder: pathlib.Path) -> bool:
    values = read_json(folder / "config.json")
    same_size = values.get("in_features") == values.get("out_features")
    return same_size and values.get("bias") is True and str(values.get("activation_function")).endswith(".Tanh")


def read_json(file: pathlib.Path) -> Any:
    """Raises MelError where there is no such file or no JSON in it."""
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise MelError(f"There is no {file}: a folder with config.json and weights is needed.") from None
    except ValueError:
        raise MelError(f"{file} is not JSON: fetch it again.") from None


def write_json(file: pathlib.Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
