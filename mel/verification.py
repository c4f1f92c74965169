"""Everything that was published in a folder, read whole: whether it is as it was, and made from what is there."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping

from mel.artifacts import MANIFEST, Artifact, read_manifest, remedy
from mel.checks import file_digest
from mel.files import DRAFT
from mel.progress import Progress
from mel.types import MelError


@dataclasses.dataclass(frozen=True)
class Finding:
    """What an artefact is found to be.

    Attributes:
      path: relative to the folder that was looked through.
      kind, digest, size: as its manifest says, the size in bytes; "" and 0 where that is damaged, 0 where its files
        were removed.
      made_from: its inputs, and where they stand.
      amiss: what is wrong with it, as sentences without a full stop; empty if it is sound.
      remedy: what to do if it is not, as a sentence begun.
      removed: whether its files were removed, and only its manifest is left.
    """

    path: str
    kind: str
    digest: str
    size: int
    made_from: tuple[str, ...]
    amiss: tuple[str, ...]
    remedy: str
    removed: bool = False


def verify(folder: pathlib.Path) -> list[Finding]:
    """Reads every file of every artefact in `folder`, itself included, and follows what each was made from.

    Raises:
      MelError: there is no artefact.
    """
    paths = sorted(_artifacts(folder))
    if not paths:
        raise MelError(f"{folder} holds nothing that was published: name a working directory or a bundle.")
    manifests: dict[pathlib.Path, Artifact | str] = {}
    for path in paths:
        try:
            manifests[path] = read_manifest(path, "")
        except (MelError, OSError) as error:
            manifests[path] = str(error).removesuffix(f": {remedy(path, '')}.")
    sound = {path: artifact for path, artifact in manifests.items() if isinstance(artifact, Artifact)}
    digests = _digests(sound.values())
    findings = []
    for path, artifact in manifests.items():
        name = os.path.relpath(path, folder)
        if isinstance(artifact, str):
            findings.append(Finding(name, "", "", 0, (), (artifact,), remedy(path, "")))
            continue
        made_from, wrong = _chain(artifact, folder, sound)
        size = 0 if artifact.removed else sum(entry["bytes"] for entry in artifact.files.values())
        amiss = (*_damage(artifact, digests), *wrong)
        advice = remedy(path, artifact.kind)
        findings.append(Finding(name, artifact.kind, artifact.digest, size, made_from, amiss, advice, artifact.removed))
    return findings


def _artifacts(folder: pathlib.Path) -> Iterable[pathlib.Path]:
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(DRAFT)]
        if MANIFEST in files:
            yield pathlib.Path(path)


def _digests(artifacts: Iterable[Artifact]) -> dict[pathlib.Path, str]:
    """The digest of every file that is listed and there; one that is in two artefacts is read once."""
    there = [artifact for artifact in artifacts if not artifact.removed]
    files = {artifact / name: entry["bytes"] for artifact in there for name, entry in artifact.files.items()}
    progress = Progress("reading", sum(files.values()) >> 20, "MB")

    def digest(file: pathlib.Path) -> str:
        try:
            return file_digest(file)
        except OSError as error:
            return error.strerror or "it cannot be read"

    found = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, found[file] in zip(files, pool.map(digest, files), strict=True):
            progress.add(files[file] >> 20)
    progress.close()
    return found


def _damage(artifact: Artifact, digests: Mapping[pathlib.Path, str]) -> Iterable[str]:
    listed = {} if artifact.removed else artifact.files
    for name, entry in listed.items():
        if not (artifact / name).is_file():
            yield f"{name} is missing"
        elif digests[artifact / name] != entry["sha256"]:
            yield f"{name} is not as it was published"
    for file in sorted(artifact.path.rglob("*")):
        name = file.relative_to(artifact.path).as_posix()
        if file.is_file() and name != MANIFEST and name not in listed:
            yield f"{name} was {'to be removed' if name in artifact.files else 'not published with it'}"


def _chain(
    artifact: Artifact, folder: pathlib.Path, others: Mapping[pathlib.Path, Artifact]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where the inputs stand, and what is wrong with them."""
    made_from, wrong = [], []
    by_digest = {other.digest: path for path, other in others.items()}
    for name, digest in sorted(artifact.inputs.items()):
        place = artifact.path.parent / artifact.places[name] if name in artifact.places else None
        place = place and pathlib.Path(os.path.normpath(place))
        if place and place in others and others[place].digest != digest:
            wrong.append(f"it was made from another {name} than that in {os.path.relpath(place, folder)}")
        elif place in others or digest in by_digest:
            found = place if place and place in others else by_digest[digest]
            made_from.append(f"{name}: {os.path.relpath(found, folder)}")
        else:
            made_from.append(f"{name}: {digest[:12]}, which is not here")
    return tuple(made_from), tuple(wrong)
