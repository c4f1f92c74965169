"""Checkpoints: by step while a round trains, and one published when it is done.

Orbax writes them whole or not at all but stores no checksum, so a published checkpoint states the
SHA-256 of its parameters and of its optimiser state, and reading compares.

The parameters are those that are trained. The token table's other rows stand once, in the checkpoint
before training, and opening any checkpoint puts both together again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import logging as python_logging
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from mel.artifacts import START, Artifact, Workdir, digest_of, is_disk_full, open_artifact, publish
from mel.checks import CHECKS
from mel.encoder.config import EncoderConfig
from mel.encoder.vocabulary import Vocabulary
from mel.interruption import deferred
from mel.training.hosts import on_lead
from mel.training.step_digests import drop_damaged, write_digests
from mel.types import MelError, TrainState
from mel.workdir import METRICS

KIND = "checkpoint"
TOKEN_IDS, TOKEN_TABLE = "token_ids", "token_table"
KEPT = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """A published checkpoint.

    Attributes:
      artifact: where it stands.
      encoder_config: the encoder, with its full vocabulary.
      trained: the parameters as they are trained, with the token table's rows in use.
      vocabulary: which rows these are, and the table that training started from.
      start: the checkpoint before training, which holds that table.
    """

    artifact: Artifact
    encoder_config: EncoderConfig
    trained: Any
    vocabulary: Vocabulary
    start: Artifact

    @functools.cached_property
    def params(self) -> Any:
        """The encoder's parameters with the full token table.

        Raises:
          MelError: the table is damaged, or another run's.
        """
        _verify(self.start.path, TOKEN_TABLE, self.vocabulary.table_VD, self.start)
        return self.vocabulary.full(self.trained)

    @property
    def step(self) -> int:
        return self.artifact.facts["step"]

    @property
    def logit_scale(self) -> float:
        """What the cosines were multiplied with in training."""
        return self.artifact.facts["settings"]["logit_scale"]

    def train_state(self, like: TrainState) -> TrainState:
        """The whole state, to go on training from.

        Raises:
          MelError: the state in the checkpoint has other shapes than `like`, or is damaged.
        """
        path = self.artifact.path
        self.artifact.check("opt_state/*")
        opt_state = _restore(path / "opt_state", like.opt_state)
        _verify(path, "opt_state", opt_state, self.artifact)
        params = _restore(path / "params", like.params)
        return TrainState(jnp.asarray(self.step, jnp.int32), params, opt_state)


class StepCheckpoints:
    """Checkpoints by step in a working folder; saving goes on in the background.

    Damaged ones are deleted when the folder is opened, so that the latest is sound.
    """

    def __init__(self, folder: pathlib.Path):
        _quiet_orbax()
        on_lead("sound checkpoints", lambda: drop_damaged(folder))
        self._saving = 0
        digests = ocp.options.AsyncOptions(post_finalization_callback=lambda: write_digests(folder, self._saving))
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, cleanup_tmp_directories=True, async_options=digests)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState) -> None:
        """Starts saving `state`; its buffers may be donated as soon as this returns.

        Raises:
          MelError: the disk has no room for it, or something that was read is damaged.
        """
        _require_room(self._manager.directory, state)
        CHECKS.settle()  # nobody goes on from what was made from a damaged file
        with _disk_full_in_a_sentence(self._manager.directory):
            self._manager.wait_until_finished()
            self._saving = step
            self._manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, step: int, like: TrainState) -> TrainState:
        try:
            with deferred():
                restored: Any = self._manager.restore(step, args=ocp.args.StandardRestore(_abstract(like)))
            return restored
        except (ValueError, KeyError) as error:
            raise MelError(
                f"Checkpoint {step} in {self._manager.directory} is of another shape than this encoder and optimiser: "
                "train in another --workdir or delete it."
            ) from error

    def close(self) -> None:
        with _disk_full_in_a_sentence(self._manager.directory):
            self._manager.wait_until_finished()
            self._manager.close()


def publish_start(
    path: pathlib.Path, state: TrainState, encoder: EncoderConfig, vocabulary: Vocabulary, facts: dict,
    inputs: dict[str, Artifact], config: Any,
) -> None:  # fmt: skip
    """Publishes the state before training, with the full token table and the ids of the rows in `state`."""
    arrays = {TOKEN_IDS: vocabulary.token_ids_v, TOKEN_TABLE: vocabulary.table_VD}
    digests = {f"{name}_digest": _tree_digest(array) for name, array in arrays.items()}
    _publish(path, state, encoder, facts | digests, inputs, config, arrays)


def publish_checkpoint(
    path: pathlib.Path, state: TrainState, encoder: EncoderConfig, facts: dict, inputs: dict[str, Artifact],
    config: Any, metrics: pathlib.Path | None = None,
) -> None:  # fmt: skip
    """Publishes the state, with the encoder's configuration and `facts` in its manifest, and a copy of `metrics`."""
    _publish(path, state, encoder, facts, inputs, config, {}, metrics)


def _publish(
    path, state, encoder, facts, inputs, config, arrays: dict[str, np.ndarray], metrics: pathlib.Path | None = None
) -> None:
    _quiet_orbax()
    _require_room(path.parent, (state, arrays))
    with deferred(), publish(path, KIND, config) as draft, _checkpointer() as checkpointer:
        for name, array in arrays.items():
            np.save(draft / f"{name}.npy", array)
        if metrics is not None:
            shutil.copyfile(metrics, draft / METRICS)
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


def find_checkpoint(
    work: Workdir, number: int, inputs: dict[str, Artifact] | None = None, reads: Sequence[str] = ()
) -> tuple[Artifact, Artifact]:
    """The published checkpoint of a round and the one before training, whose parameters are not read.

    Args:
      work: the working directory.
      number: the round; START is the encoder before training.
      inputs: artefacts that it must have been trained on, by name.
      reads: patterns of the files of the first that will be read.

    Raises:
      MelError: one of them is missing or damaged, or the first was trained on other inputs or from another start.
    """
    start = open_artifact(work.round(START).checkpoint, KIND, reads=(f"{TOKEN_IDS}.npy",) if reads else ())
    by_name = dict(inputs or {}) if number == START else {"start": start, **(inputs or {})}
    return open_artifact(work.round(number).checkpoint, KIND, by_name, reads), start


def open_checkpoint(work: Workdir, number: int, inputs: dict[str, Artifact] | None = None) -> Checkpoint:
    """Opens the published checkpoint of a round and reads its parameters; see `find_checkpoint`.

    Raises:
      MelError: it is missing, damaged, or was trained on other inputs or from another start.
    """
    artifact, start = find_checkpoint(work, number, inputs, reads=("params/*",))
    token_ids_v, table_VD = (np.load(start / f"{name}.npy", mmap_mode="r") for name in (TOKEN_IDS, TOKEN_TABLE))
    _verify(start.path, TOKEN_IDS, token_ids_v, start)
    params = _restore(artifact / "params", None)
    _verify(artifact.path, "params", params, artifact)
    encoder = EncoderConfig(**artifact.facts["encoder"])
    return Checkpoint(artifact, encoder, params, Vocabulary(token_ids_v, table_VD), start)


def _checkpointer() -> ocp.StandardCheckpointer:
    """One that asks no other process: each reads for itself, and the lead alone publishes."""
    if jax.process_count() == 1:
        return ocp.StandardCheckpointer()
    own = jax.process_index()
    options = ocp.options.MultiprocessingOptions(own, {own}, f"process-{own}")
    return ocp.StandardCheckpointer(multiprocessing_options=options)


def _restore(path: pathlib.Path, like: Any) -> Any:
    _quiet_orbax()
    try:
        with deferred(), _checkpointer() as checkpointer:  # Orbax's threads cry out where a signal ends them
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


def _require_room(folder: os.PathLike, state: Any) -> None:
    """Orbax answers a disk that fills up with tracebacks from its threads, so it is asked beforehand."""
    needed, free = sum(leaf.nbytes for leaf in jax.tree.leaves(state)), shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise MelError(
            f"The disk is full: a checkpoint in {folder} takes {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are "
            "free; free some space and run the same command again."
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
