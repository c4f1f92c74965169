"""Checkpoints: by step while a round trains, and one published when it is done.

Orbax writes them whole or not at all but stores no checksum, so a published checkpoint states the
SHA-256 of its parameters and of its optimiser state, and reading compares.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging as python_logging
import os
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from mel.artifacts import Artifact, digest_of, is_disk_full, open_artifact, publish
from mel.encoder.config import EncoderConfig
from mel.types import MelError, TrainState

KIND = "checkpoint"
KEPT = 2


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: the encoder, its parameters, and the step they were reached at."""

    artifact: Artifact
    encoder_config: EncoderConfig
    params: Any

    @property
    def step(self) -> int:
        return self.artifact.facts["step"]

    def train_state(self, like: TrainState) -> TrainState:
        """The whole state, to go on training from.

        Raises:
          MelError: the state in the checkpoint has other shapes than `like`, or is damaged.
        """
        path = self.artifact.path
        opt_state = _restore(path / "opt_state", like.opt_state)
        _verify(path, "opt_state", opt_state, self.artifact)
        params = _restore(path / "params", like.params)
        return TrainState(jnp.asarray(self.step, jnp.int32), params, opt_state)


class StepCheckpoints:
    """Checkpoints by step in a working folder; saving goes on in the background."""

    def __init__(self, folder: pathlib.Path):
        _quiet_orbax()
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState) -> None:
        """Starts saving `state`; its buffers may be donated as soon as this returns.

        Raises:
          MelError: the disk has no room for it.
        """
        _require_room(self._manager.directory, state)
        with _disk_full_in_a_sentence(self._manager.directory):
            self._manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, step: int, like: TrainState) -> TrainState:
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(_abstract(like)))
        except (ValueError, KeyError) as error:
            raise MelError(
                f"Checkpoint {step} in {self._manager.directory} is of another shape than this encoder and optimiser: "
                "train in another --workdir or delete it."
            ) from error

    def close(self) -> None:
        with _disk_full_in_a_sentence(self._manager.directory):
            self._manager.wait_until_finished()
            self._manager.close()


def publish_checkpoint(
    path: pathlib.Path, state: TrainState, encoder: EncoderConfig, facts: dict, inputs: dict[str, Artifact], config: Any
) -> None:
    """Publishes the state, with the encoder's configuration and `facts` in its manifest."""
    _quiet_orbax()
    _require_room(path.parent, state)
    with publish(path, KIND, config) as draft, ocp.StandardCheckpointer() as checkpointer:
        state = jax.device_get(state)
        draft.facts |= {"step": int(state.step), "encoder": dataclasses.asdict(encoder), **facts}
        for name in ("params", "opt_state"):
            tree = getattr(state, name)
            draft.facts[f"{name}_digest"] = _tree_digest(tree)
            checkpointer.save((draft / name).absolute(), tree)
        checkpointer.wait_until_finished()
        for name, artifact in inputs.items():
            draft.reads(name, artifact)
        # Orbax gives its files random names, so the content is what the digests in the facts say.
        draft.content_digest = digest_of({})


def open_checkpoint(path: pathlib.Path, inputs: dict[str, Artifact] | None = None) -> Checkpoint:
    """Opens a published checkpoint and reads its parameters.

    Raises:
      MelError: it is missing, damaged, or was trained on other inputs.
    """
    artifact = open_artifact(path, KIND, inputs)
    params = _restore(path / "params", None)
    _verify(path, "params", params, artifact)
    return Checkpoint(artifact, EncoderConfig(**artifact.facts["encoder"]), params["encoder"])


def _restore(path: pathlib.Path, like: Any) -> Any:
    _quiet_orbax()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path.absolute(), None if like is None else _abstract(like))
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise MelError(
            f"{path} does not hold what this encoder and optimiser need: it is damaged or of another shape; "
            "use another --workdir or delete it."
        ) from error


def _verify(path: pathlib.Path, name: str, tree: Any, artifact: Artifact) -> None:
    if _tree_digest(tree) != artifact.facts[f"{name}_digest"]:
        raise MelError(
            f"{path / name} is damaged: its values are not those that were published; delete {path} and train again."
        )


def _tree_digest(tree: Any) -> str:
    """The SHA-256 over the leaves of a pytree in order, shapes and types included."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        leaf = np.ascontiguousarray(leaf)
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(leaf.data)
    return digest.hexdigest()


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)


def _require_room(folder: os.PathLike, state: TrainState) -> None:
    """Orbax answers a disk that fills up with tracebacks from its threads, so it is asked beforehand."""
    needed, free = sum(leaf.nbytes for leaf in jax.tree.leaves(state)), shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise MelError(
            f"The disk is full: a checkpoint in {folder} takes {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free; "
            "free some space and run the same command again."
        )


def _existing(folder: os.PathLike) -> pathlib.Path:
    """The folder, or the nearest one above it that is there."""
    folder = pathlib.Path(folder).absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


@contextlib.contextmanager
def _disk_full_in_a_sentence(path: os.PathLike):
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise MelError(
                f"The disk is full while saving a checkpoint to {path}: free some space and run the same command again."
            ) from error
        raise


def _not_chatter(record: python_logging.LogRecord) -> bool:
    """Orbax logs dozens of lines a save at level INFO."""
    return record.levelno > python_logging.INFO or "orbax" not in record.pathname


def _quiet_orbax() -> None:
    python_logging.getLogger("absl").addFilter(_not_chatter)
