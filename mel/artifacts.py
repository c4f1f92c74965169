"""The one rule for everything a stage writes: it exists if and only if it is complete.

A stage writes into a draft folder beside the target; `publish` adds `manifest.json` and renames
the draft into place. `open_artifact` reads the manifest back, and refuses in one sentence what is
missing, damaged, of another format version, or made from other inputs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mel.types import MelError

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
START = -1  # the round whose checkpoint is the encoder before training
PACKAGES = (
    "absl-py array-record flax jax jaxlib mel-linker numpy optax orbax-checkpoint rapidfuzz safetensors scann scipy "
    "tensorflow-datasets tokenizers transformers"
).split()


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A published folder: its path, its kind, the facts stated in its manifest, its digest."""

    path: pathlib.Path
    kind: str
    facts: Mapping[str, Any]
    digest: str
    inputs: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name


class Draft:
    """A folder being written. `facts` and `inputs` end up in the manifest."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.facts: dict[str, Any] = {}
        self.inputs: dict[str, str] = {}
        self.content_digest: str | None = None

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    def reads(self, name: str, artifact: Artifact) -> None:
        """Records that this output was made from `artifact`."""
        self.inputs[name] = artifact.digest


@contextlib.contextmanager
def publish(path: str | os.PathLike, kind: str, config: Any = None) -> Iterator[Draft]:
    """Yields a draft folder, and makes it the artefact `path` when the block ends without error.

    Args:
      path: where the artefact will stand; its parents are made.
      kind: what it is ("kb", "negatives", ...); `open_artifact` asks for the same word.
      config: the dataclass or mapping that made it, recorded whole.

    Raises:
      MelError: `path` exists already, or the disk is full.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise MelError(f"{path} is already published; delete it to make it again.")
    draft = Draft(path.parent / f".draft-{path.name}")
    try:
        shutil.rmtree(draft.path, ignore_errors=True)
        draft.path.mkdir(parents=True)
        yield draft
        _write_manifest(draft, kind, config)
        os.rename(draft.path, path)
        _sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(draft.path, ignore_errors=True)
        if is_disk_full(error):
            raise MelError(
                f"The disk is full while writing {path}; nothing of it was kept: free some space and run again."
            ) from error
        raise


def open_artifact(path: str | os.PathLike, kind: str, inputs: Mapping[str, Artifact] | None = None) -> Artifact:
    """Opens a published artefact.

    Args:
      path: its folder.
      kind: what the caller expects it to be.
      inputs: artefacts it must have been made from, by the name it recorded them under.

    Raises:
      MelError: it is missing, of another kind or format version, a file is missing or has another
        size than when published, or it was made from other inputs.
    """
    path = pathlib.Path(path)
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        found_kind, version = manifest["kind"], manifest["format_version"]
    except FileNotFoundError:
        raise MelError(f"There is no {kind} at {path}: run the stage that publishes it first.") from None
    except (ValueError, KeyError, TypeError):
        raise MelError(f"{path / MANIFEST} is damaged: delete {path} and make it again.") from None
    if found_kind != kind:
        raise MelError(f"{path} holds {found_kind}, not {kind}.")
    if version != FORMAT_VERSION:
        raise MelError(f"{path} has format version {version}, this program reads {FORMAT_VERSION}: make it again.")
    artifact = Artifact(path, kind, manifest["facts"], manifest["digest"], manifest["inputs"], manifest["files"])
    for name, expected in artifact.files.items():
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        if size != expected["bytes"]:
            state = "is missing" if size is None else f"has {size} bytes instead of {expected['bytes']}"
            raise MelError(f"{file} {state}: delete {path} and make it again.")
    for name, wanted in (inputs or {}).items():
        if artifact.inputs.get(name) != wanted.digest:
            raise MelError(f"{path} was not made from the {name} at {wanted.path}: delete {path} and make it again.")
    return artifact


def exists(path: str | os.PathLike) -> bool:
    """Whether the artefact at `path` is published, and so complete."""
    return (pathlib.Path(path) / MANIFEST).is_file()


def require_settings(artifact: Artifact, settings: Mapping[str, Any]) -> None:
    """Refuses an artefact that another command line made.

    Raises:
      MelError: one of `settings` differs from what `artifact` states under "settings" in its facts.
    """
    made_with = artifact.facts["settings"]
    for name, wanted in json.loads(json.dumps(settings)).items():
        if made_with.get(name) != wanted:
            raise MelError(
                f"{artifact.path} was made with --{name}={made_with.get(name)}, not {wanted}: "
                "use another --workdir, or delete it to make it again."
            )


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no space left; libraries in C++ say so in words only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(words in str(error) for words in ("No space left on device", "Disk quota exceeded"))


def allocate(path: pathlib.Path, shape: tuple[int, ...], dtype: Any) -> np.memmap:
    """A new .npy file mapped into memory for writing, with all its space taken at once.

    Writing to a mapped file that the disk has no room for would kill the process.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def digest_of(value: Any) -> str:
    """The SHA-256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a small file whole or not at all, replacing what was there."""
    draft = path.with_name(f".draft-{path.name}")
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _write_manifest(draft: Draft, kind: str, config: Any) -> None:
    files = {}
    for file in sorted(p for p in draft.path.rglob("*") if p.is_file()):
        files[file.relative_to(draft.path).as_posix()] = {"bytes": file.stat().st_size, "sha256": _file_digest(file)}
    # The digest covers content only, never paths, times or versions: the same work done twice in
    # two places has one digest. A stage whose files differ from run to run states its own.
    content = draft.content_digest or digest_of(files)
    manifest = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "digest": digest_of([FORMAT_VERSION, kind, draft.facts, content]),
        "facts": draft.facts,
        "inputs": draft.inputs,
        "config": dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config,
        "packages": package_versions(),
        "files": files,
    }
    write_text(draft / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True, default=str) + "\n")


def package_versions() -> dict[str, str]:
    """The versions of `PACKAGES`, of those that are installed."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _file_digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The names of everything in a working directory, stated here and nowhere else."""

    path: pathlib.Path

    def __init__(self, path: str | os.PathLike):
        object.__setattr__(self, "path", pathlib.Path(path).absolute())

    @property
    def kb(self) -> pathlib.Path:
        return self.path / "kb"

    @property
    def alias_table(self) -> pathlib.Path:
        return self.path / "alias_table"

    @property
    def bundle(self) -> pathlib.Path:
        return self.path / "bundle"

    @property
    def tokenizer(self) -> pathlib.Path:
        return self.path / "tokens" / "tokenizer"

    @property
    def entity_tokens(self) -> pathlib.Path:
        return self.path / "tokens" / "entities"

    def mentions(self, split: str) -> pathlib.Path:
        return self.path / "mentions" / split

    def mention_tokens(self, split: str) -> pathlib.Path:
        return self.path / "tokens" / "mentions" / split

    def cache(self, tokens: Artifact) -> pathlib.Path:
        """Where the token shards `tokens` stand decoded, for memory mapping."""
        return self.path / "cache" / f"{tokens.path.name}-{tokens.digest[:12]}"

    def round(self, number: int) -> Round:
        """Round 0, 1, ...; START is the untrained encoder."""
        return Round(self.path / "rounds" / ("start" if number == START else str(number)))

    def rounds(self) -> list[int]:
        """The numbers of all rounds that were begun, in order; START is not among them."""
        folders = (self.path / "rounds").glob("[0-9]*")
        return sorted(int(folder.name) for folder in folders if folder.name.isdecimal())

    def report(self, name: str) -> pathlib.Path:
        return self.path / "reports" / name


@dataclasses.dataclass(frozen=True)
class Round:
    """The names of what one round reads and publishes."""

    path: pathlib.Path

    @property
    def negatives(self) -> pathlib.Path:
        return self.path / "negatives"

    @property
    def training(self) -> pathlib.Path:
        """Work in progress: checkpoints by step, metrics, TensorBoard."""
        return self.path / "training"

    @property
    def checkpoint(self) -> pathlib.Path:
        return self.path / "checkpoint"

    @property
    def entity_embeddings(self) -> pathlib.Path:
        return self.path / "embeddings" / "entities"

    @property
    def mention_embeddings(self) -> pathlib.Path:
        return self.path / "embeddings" / "mentions"

    @property
    def index(self) -> pathlib.Path:
        """Over the embeddings of entities."""
        return self.path / "index"

    @property
    def mention_index(self) -> pathlib.Path:
        """Over the embeddings of training mentions."""
        return self.path / "mention_index"
