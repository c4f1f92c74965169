"""The one rule for everything a stage writes: it exists if and only if it is complete.

A stage writes into a draft folder beside the target, which nobody else may write meanwhile; `publish`
adds `manifest.json` and renames the draft into place. `open_artifact` reads the manifest back, and
refuses in one sentence what is missing, damaged, of another format version, or made from other
inputs. The files themselves are compared with their digests beside the work; nothing that was made
from a damaged one is published.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mel.checks import CHECKS, Expected, file_digest
from mel.faults import is_disk_full
from mel.files import DRAFT, read_json, sync_file, sync_folder, write_text
from mel.files import allocate as allocate
from mel.locks import PREFIX, claim, is_claimed_here
from mel.seals import digest_of, package_versions, seal
from mel.types import MelError
from mel.workdir import START as START
from mel.workdir import Round as Round
from mel.workdir import Workdir as Workdir
from mel.workdir import rerun

FORMAT_VERSION = 3
MANIFEST = "manifest.json"
REMOVED = "removed"  # marks the manifest of an artefact whose files are no more
_opened_at: dict[str, pathlib.Path] = {}  # where this process found what has a digest


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A published folder, as its manifest tells.

    Attributes:
      path, kind: where it stands and what it is.
      facts: what its readers have to know.
      digest: of its content.
      inputs: the digests of what it was made from, by name.
      files: the size and digest of each file.
      places: where its inputs stood, by name, relative to the folder that it stands in; for people.
      removed: whether its files were removed, because they can be made again; its manifest is what is left.
    """

    path: pathlib.Path
    kind: str
    facts: Mapping[str, Any]
    digest: str
    inputs: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)
    removed: bool = False

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    def check(self, *patterns: str) -> None:
        """Has files compared with their digests, beside what follows; a small one at once.

        Args:
          patterns: of their names, as of a shell ("params/*").

        Raises:
          MelError: a small one is damaged.
        """
        names = [name for name in self.files if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
        CHECKS.expect(self._expected(names))

    def settle(self) -> None:
        """Waits until the files that are being compared are, before something that trusts them blindly.

        Raises:
          MelError: one is damaged.
        """
        CHECKS.settle(self.path)

    def _expected(self, names: Sequence[str]) -> list[Expected]:
        advice = remedy(self.path, self.kind)
        return [Expected(self.path / name, self.files[name]["sha256"], advice) for name in names]


class Draft:
    """A folder being written. `facts` and `inputs` end up in the manifest.

    Attributes:
      path: where it is written.
      facts: what its readers have to know.
      inputs: the digests of what it was made from, by name.
      content_digest: what its digest covers instead of its files, where these differ from run to run.
      adopted: what is known of files that are those of another artefact.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.facts: dict[str, Any] = {}
        self.inputs: dict[str, str] = {}
        self.content_digest: str | None = None
        self.adopted: dict[str, Mapping[str, Any]] = {}

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    def reads(self, name: str, artifact: Artifact) -> None:
        """Records that this output was made from `artifact`."""
        self.inputs[name] = artifact.digest

    def adopts(self, artifact: Artifact, name: str) -> None:
        """Takes over a file of `artifact`, which is compared with its digest as long as it is open.

        Nothing is written where the file system can give a file two names; elsewhere it is copied.
        """
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(artifact / name, target)
            self.adopted[name] = artifact.files[name]
        except OSError:  # another file system, or one without links
            shutil.copyfile(artifact / name, target)


@contextlib.contextmanager
def publish(path: str | os.PathLike, kind: str, config: Any = None) -> Iterator[Draft]:
    """Yields a draft folder, and makes it the artefact `path` when the block ends without error.

    Args:
      path: where the artefact will stand; its parents are made.
      kind: what it is ("kb", "negatives", ...); `open_artifact` asks for the same word.
      config: the dataclass or mapping that made it, recorded whole.

    Raises:
      MelError: `path` exists already, another process is writing it, a file that this process has
        opened is damaged, or the disk is full.
    """
    path = pathlib.Path(path)
    if path.exists() and not _is_removed(path):
        if (path / MANIFEST).is_file():
            raise MelError(f"{path} is already published; delete it to make it again.")
        raise MelError(f"{path} is there, and nothing that was published: move it away, or name another folder.")
    with claim(path):
        if path.exists() and not _is_removed(path):
            raise MelError(f"{path} has just been published by another process: run the same command again to use it.")
        _sweep(path.parent)
        draft = Draft(path.parent / f"{DRAFT}{path.name}")
        try:
            shutil.rmtree(draft.path, ignore_errors=True)
            draft.path.mkdir()
            yield draft
            CHECKS.settle()
            files = _write_manifest(draft, kind, config)
            shutil.rmtree(path, ignore_errors=True)  # what was left of one whose files were removed
            os.rename(draft.path, path)
            sync_folder(path.parent)
        except BaseException as error:
            shutil.rmtree(draft.path, ignore_errors=True)
            if is_disk_full(error):
                raise MelError(
                    f"The disk is full while writing {path}; nothing of it was kept: free some space and run again."
                ) from error
            raise
        CHECKS.trust(Expected(path / name, entry["sha256"], remedy(path, kind)) for name, entry in files.items())


def open_artifact(
    path: str | os.PathLike, kind: str, inputs: Mapping[str, Artifact] | None = None, reads: Sequence[str] = ("*",)
) -> Artifact:
    """Opens a published artefact, and has the files that will be read compared with their digests.

    Args:
      path: its folder.
      kind: what the caller expects it to be.
      inputs: artefacts it must have been made from, by the name it recorded them under.
      reads: patterns of the files that will be read, as of `Artifact.check`; () if it is only named.

    Raises:
      MelError: it is missing, of another kind or format version, its manifest is damaged, a file is
        missing, has another size than when published or, if it is small, another content, or it was
        made from other inputs.
    """
    path = pathlib.Path(path)
    artifact = read_manifest(path, kind)
    if artifact.removed:
        raise MelError(f"The files of {path} were removed when nothing needed them: {remedy(path, kind)}.")
    for name, expected in artifact.files.items():
        file = path / name
        size = file.stat().st_size if file.is_file() else None
        if size != expected["bytes"]:
            state = "is missing" if size is None else f"has {size} bytes instead of {expected['bytes']}"
            raise MelError(f"{file} {state}: {remedy(path, kind)}.")
    _require_inputs(artifact, inputs or {})
    artifact.check(*reads)
    _opened_at[artifact.digest] = path.absolute()
    return artifact


def recorded(path: pathlib.Path, kind: str, inputs: Mapping[str, Artifact]) -> Artifact | None:
    """What the manifest at `path` says, whether its files are still there or were removed; None if there is none.

    Raises:
      MelError: it was made from other inputs, or see `read_manifest`.
    """
    if not (path / MANIFEST).is_file():
        return None
    artifact = read_manifest(path, kind)
    _require_inputs(artifact, inputs)
    _opened_at[artifact.digest] = path.absolute()
    return artifact


def _require_inputs(artifact: Artifact, inputs: Mapping[str, Artifact]) -> None:
    for name, wanted in inputs.items():
        if artifact.inputs.get(name) != wanted.digest:
            advice = remedy(artifact.path, artifact.kind)
            raise MelError(f"{artifact.path} was not made from the {name} at {wanted.path}: {advice}.")


def read_manifest(path: pathlib.Path, kind: str) -> Artifact:
    """What a manifest says of an artefact, whose files nobody has looked at; any kind if `kind` is "".

    Raises:
      MelError: as `open_artifact`, for what a manifest can tell.
    """
    damaged = MelError(f"{path / MANIFEST} is damaged: {remedy(path, kind)}.")
    try:
        manifest = read_json(path / MANIFEST)
        found_kind, version = manifest["kind"], manifest["format_version"]
    except FileNotFoundError:
        if kind and (path / kind / MANIFEST).is_file():
            raise MelError(f"There is no {kind} at {path}: there is one at {path / kind}, name that.") from None
        if path.is_dir():
            raise MelError(
                f"There is no {kind} at {path}, where {MANIFEST} is missing: if there was one, {remedy(path, kind)}."
            ) from None
        raise MelError(f"There is no {kind} at {path}: run the stage that publishes it first.") from None
    except (MelError, KeyError):
        raise damaged from None
    if version != FORMAT_VERSION:
        raise MelError(
            f"{path} has format version {version}, this program reads {FORMAT_VERSION}: {remedy(path, kind)}."
        )
    if seal(manifest) != manifest:
        raise damaged
    if kind and found_kind != kind:
        raise MelError(f"{path} holds {found_kind}, not {kind}.")
    stated = (manifest[name] for name in ("facts", "digest", "inputs", "files", "places"))
    return Artifact(path, found_kind, *stated, removed=REMOVED in manifest)


def remedy(path: pathlib.Path, kind: str) -> str:
    """What to do where an artefact is damaged, as the end of a sentence; one that stands in another goes with it."""
    if (path.parent / MANIFEST).is_file():
        with contextlib.suppress(MelError, OSError):
            return remedy(path.parent, str(read_json(path.parent / MANIFEST).get("kind")))
    return f"delete {path} and {rerun(kind)}"


@contextlib.contextmanager
def readable(artifact: Artifact) -> Iterator[None]:
    """Whatever a library says of a damaged file of `artifact` in the block becomes the sentence that names it.

    Raises:
      MelError: the block failed, and a file is damaged.
    """
    try:
        yield
    except Exception:
        artifact.settle()
        raise


def discard(path: str | os.PathLike) -> None:
    """Deletes an artefact, or what is left of one; others see all of it or nothing.

    Raises:
      MelError: another process is writing it.
    """
    path = pathlib.Path(path)
    with claim(path):
        rubbish = path.parent / f"{DRAFT}{path.name}"  # of which the next to publish there disposes
        shutil.rmtree(rubbish, ignore_errors=True)
        CHECKS.forget(path)
        if path.exists():
            os.rename(path, rubbish)
            shutil.rmtree(rubbish, ignore_errors=True)


def remove_files(path: str | os.PathLike) -> None:
    """Removes the files of an artefact that can be made again; its manifest stays, marked so.

    So what was made from it still tells from what. To `exists` and `publish` there is nothing any more.

    Raises:
      MelError: another process is writing it, or its manifest is damaged.
    """
    path = pathlib.Path(path)
    if not path.is_dir() or [file.name for file in path.iterdir()] == [MANIFEST]:
        return
    with claim(path):
        read_manifest(path, "")
        CHECKS.forget(path)
        marked = seal(read_json(path / MANIFEST) | {REMOVED: True})
        write_text(path / MANIFEST, json.dumps(marked, indent=1, sort_keys=True) + "\n")
        for file in list(path.iterdir()):
            if file.name != MANIFEST:
                shutil.rmtree(file) if file.is_dir() else file.unlink()


def _is_removed(path: pathlib.Path) -> bool:
    try:
        return REMOVED in read_json(path / MANIFEST)
    except (MelError, OSError):  # whoever opens it says what is wrong
        return False


def _sweep(folder: pathlib.Path) -> None:
    """Removes what processes that are no more have left of their drafts and locks in `folder`."""
    left = [file for file in folder.iterdir() if file.name.startswith((DRAFT, PREFIX))]
    for name in {file.name.removeprefix(DRAFT).removeprefix(PREFIX) for file in left}:
        target = folder / name
        if is_claimed_here(target):
            continue
        with contextlib.suppress(MelError), claim(target, patience=0):  # refused, it is being written
            draft = folder / f"{DRAFT}{name}"
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)


def exists(path: str | os.PathLike) -> bool:
    """Whether the artefact at `path` is published, and so complete; not if its files were removed."""
    path = pathlib.Path(path)
    return (path / MANIFEST).is_file() and not _is_removed(path)


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


def _write_manifest(draft: Draft, kind: str, config: Any) -> dict[str, dict[str, Any]]:
    """Returns what it says of each file."""
    files = {}
    for file in sorted(p for p in draft.path.rglob("*") if p.is_file()):
        name = file.relative_to(draft.path).as_posix()
        if name in draft.adopted:
            files[name] = dict(draft.adopted[name])
            continue
        sync_file(file)
        files[name] = {"bytes": file.stat().st_size, "sha256": file_digest(file)}
    # The digest covers content only, never paths, times or versions: the same work done twice in
    # two places has one digest. A stage whose files differ from run to run states its own.
    content = draft.content_digest or digest_of(files)
    manifest = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "digest": digest_of([FORMAT_VERSION, kind, draft.facts, content]),
        "facts": draft.facts,
        "inputs": draft.inputs,
        "places": {
            name: os.path.relpath(_opened_at[digest], draft.path.parent.absolute())
            for name, digest in draft.inputs.items()
            if digest in _opened_at
        },
        "config": _plain(config),
        "packages": package_versions(),
        "files": files,
    }
    write_text(draft / MANIFEST, json.dumps(seal(manifest), indent=1, sort_keys=True) + "\n")
    return files


def _plain(config: Any) -> Any:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return dataclasses.asdict(config)
    return config
