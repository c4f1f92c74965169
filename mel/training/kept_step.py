"""A compiled step on disk: the second start of a training neither traces nor compiles it."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import pickle
from typing import Any

import jax
from absl import logging
from jax.experimental.serialize_executable import deserialize_and_load, serialize

import mel
from mel.artifacts import digest_of
from mel.cost import hardware
from mel.training.step import Step
from mel.types import Batch, TrainState

COMPILED_BY = ("jax", "jaxlib", "flax", "optax", "numpy")


def keep_step(step: Step, folder: pathlib.Path, made_with: Any) -> Step:
    """The same step, compiled once for each layout of batches, and kept in `folder`.

    JAX's own compilation cache holds programs by what they say, so a start has to trace all of the
    step before it can look there, which takes most of its time. Here a program is found by what it is
    made from: `made_with`, the shapes, our code, the libraries, their settings and the machine. A file
    that cannot be read or written costs a compilation and no more. The programs are pickles: like any
    of these, only those of a folder that one trusts may be read. Of several hosts, each compiles.

    Args:
      step: as of `make_step`.
      folder: made if missing.
      made_with: whatever decides what the step does, by its repr.
    """
    if jax.process_count() > 1:
        return step
    compiled: dict[Any, Step] = {}

    def kept(state: TrainState, batch: Batch):
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in compiled:
            file = folder / f"{_digest(made_with, state, batch)}.step"
            compiled[shapes] = _read(file) or _compile(step, file, state, batch)
        return compiled[shapes](state, batch)

    return kept


def _digest(made_with: Any, state: TrainState, batch: Batch) -> str:
    leaves, structure = jax.tree.flatten((state, batch))
    code = pathlib.Path(mel.__file__).parent
    settings = {name: value for name, value in jax.config.values.items() if name != "jax_compilation_cache_dir"}
    return digest_of(
        {
            "made_with": repr(made_with),
            "shapes": [f"{leaf.dtype}{leaf.shape} {leaf.sharding}" for leaf in leaves] + [str(structure)],
            "code": {str(file.relative_to(code)): file.read_text("utf-8") for file in sorted(code.rglob("*.py"))},
            "versions": {name: importlib.metadata.version(name) for name in COMPILED_BY},
            "settings": [repr(sorted(settings.items())), os.environ.get("XLA_FLAGS", "")],
            "machine": [hardware(), str(jax.devices())],
        }
    )


def _read(file: pathlib.Path) -> Step | None:
    if not file.exists():
        return None
    try:
        return deserialize_and_load(*pickle.loads(file.read_bytes()))
    except Exception as error:  # torn, of another build, or whatever the backend has against it
        logging.warning("%s is of no use (%s): compiling again.", file, str(error).split("\n")[0])
        return None


def _compile(step: Step, file: pathlib.Path, state: TrainState, batch: Batch) -> Step:
    compiled = step.lower(state, batch).compile()
    draft = file.with_name(f".draft-{os.getpid()}-{file.name}")  # runs may share the folder
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(pickle.dumps(serialize(compiled)))
        os.replace(draft, file)
    except Exception as error:  # a full disk, or a backend that cannot
        logging.warning("The compiled step is not kept: %s", str(error).split("\n")[0])
    return compiled
