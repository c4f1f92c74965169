"""Files of weights: arrays under the names that `transformers.BertModel` has for them, whoever saved them.

Names come without what a larger model puts before them ("bert.", "roberta.", "0.auto_model."), dense
matrices as PyTorch has them, [out, in].
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.serialization
import flax.traverse_util
import numpy as np
import safetensors.numpy

from mel.types import MelError

FILES = (
    "model.safetensors", "model.safetensors.index.json", "flax_model.msgpack",
    "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
"""In the order of preference; an index names the files among which a large model is divided."""

_TOKEN_TABLE = "embeddings.word_embeddings.weight"


def weight_file(folder: pathlib.Path) -> pathlib.Path:
    """The file that holds the weights of a folder, or their index.

    Raises:
      MelError: there is none that can be read here.
    """
    for name in FILES:
        if (folder / name).is_file():
            break
    else:
        others = sorted(file.name for file in folder.iterdir() if file.suffix not in (".json", ".md", ".txt"))
        raise MelError(f"{folder} has none of {', '.join(FILES)}; it has {', '.join(others) or 'no weights'}.")
    if name.startswith("pytorch_model") and importlib.util.find_spec("torch") is None:
        raise MelError(f"Reading {folder / name} needs torch: install it, or convert the weights to model.safetensors.")
    return folder / name


def read_weights(file: pathlib.Path) -> dict[str, np.ndarray]:
    """All weights of a file, or of the files that an index names.

    Raises:
      MelError: one of them is missing or damaged.
    """
    if file.suffix == ".json":
        parts = {file.with_name(str(name)) for name in _parts(file)}
        return {name: weight for part in sorted(parts) for name, weight in read_weights(part).items()}
    try:
        match file.suffix:
            case ".safetensors":
                return safetensors.numpy.load_file(file)
            case ".msgpack":
                return _from_flax(flax.serialization.msgpack_restore(file.read_bytes()))  # pyright: ignore[reportArgumentType]
            case _:
                import torch  # pyright: ignore[reportMissingImports]

                tensors = torch.load(file, map_location="cpu", weights_only=True)
                return {name: tensor.float().numpy() for name, tensor in tensors.items()}
    except FileNotFoundError:
        raise MelError(f"There is no {file}, which the index of the weights names: fetch it again.") from None
    except Exception as error:  # Each format's reader has errors of its own, and all mean the same here.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise MelError(f"{file} is damaged or no weights file ({reason}): fetch it again.") from error


def write_weights(file: pathlib.Path, weights: Mapping[str, np.ndarray], **metadata: str) -> None:
    """Writes a safetensors file, for whoever may read the folder: the library's own is for its writer alone."""
    safetensors.numpy.save_file(dict(weights), file, metadata=metadata or None)
    file.chmod(file.parent.stat().st_mode & 0o666)


def encoder_weights(weights: Mapping[str, np.ndarray], file: pathlib.Path) -> dict[str, np.ndarray]:
    """The weights of the encoder in a model, under plain names; the others keep theirs.

    Raises:
      MelError: the model has none, or several.
    """
    plain = {}
    for name, weight in weights.items():
        plain[name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")] = weight
    prefixes = [name.removesuffix(_TOKEN_TABLE) for name in plain if name.endswith(_TOKEN_TABLE)]
    if len(prefixes) != 1:
        found = f"{len(prefixes)} encoders ({', '.join(sorted(prefixes))})" if prefixes else f"no {_TOKEN_TABLE}"
        raise MelError(f"{file} has {found}: the weights of one BERT encoder are needed.")
    return {name.removeprefix(prefixes[0]): weight for name, weight in plain.items()}


def _parts(index: pathlib.Path) -> list[str]:
    try:
        return list(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MelError(f"{index} is no index of weights ({error!r}): fetch it again.") from None


def _from_flax(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Names and layouts of the Flax classes that `transformers` once had, turned into PyTorch's."""
    weights = {}
    for path, weight in flax.traverse_util.flatten_dict(tree.get("params", tree)).items():
        leaf = {"kernel": "weight", "embedding": "weight", "scale": "weight"}.get(path[-1], path[-1])
        weights[".".join((*path[:-1], leaf))] = weight.T if path[-1] == "kernel" else weight  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue, reportCallIssue]
    return weights
