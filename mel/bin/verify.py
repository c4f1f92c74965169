"""Verifies everything in a working directory, or a bundle alone: what is damaged, and what was made from what.

Reads   every file of every artefact, whole, whatever was read before; the checkpoints by step of a
        round that is being trained, and its settings and metrics.
Writes  nothing. The table says of each artefact its digest, from what it was made, from the archives
        down to the reports, and what is amiss; the exit status is 1 if anything is.

What it was made from and is no longer here was deleted, which is not amiss: nothing reads it any more. Of the
embeddings of old rounds mining leaves the manifests alone ("removed"), so that the chain is whole.
Another process may write meanwhile; its drafts are not looked at.

Example:
  mel-verify --workdir=run
  mel-verify --bundle=run/bundle
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

from mel.artifacts import MANIFEST, exists, remedy
from mel.bin.launch import launch
from mel.config import flag
from mel.files import DRAFT, read_json, read_json_lines
from mel.training.step_digests import damage_of
from mel.types import MelError
from mel.verification import Finding, verify
from mel.workdir import METRICS, PLACES

SHOWN_DIGITS = 12  # of a digest


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag("", "Working directory to verify; or else --bundle.")
    bundle: str = flag("", "Folder that mel-export published, wherever it is now; or else --workdir.")


def main(config: Config) -> None:
    """Prints the table.

    Raises:
      MelError: something is amiss.
    """
    if bool(config.workdir) == bool(config.bundle):
        raise MelError("Either --workdir or --bundle has to be given, and one of them only.")
    folder = pathlib.Path(config.workdir or config.bundle).absolute()
    if not folder.is_dir():
        raise MelError(f"There is no folder {folder}: check its name.")
    findings = [*verify(folder), *((*_without_manifest(folder), *_unfinished(folder)) if config.workdir else ())]
    print(table(findings))
    if bad := [finding for finding in findings if finding.amiss]:
        raise MelError(
            f"{len(bad)} of {len(findings)} are amiss. "
            + " ".join(f"{finding.path}: {'; '.join(finding.amiss)}: {finding.remedy}." for finding in bad)
        )


def table(findings: Sequence[Finding]) -> str:
    """Findings as Markdown."""
    lines = ["| artefact | kind | digest | MB | made from | state |", "|---|---|---|---:|---|---|"]
    for each in findings:
        made_from, untroubled = ", ".join(each.made_from) or "–", "removed" if each.removed else "sound"
        state = "; ".join(each.amiss) or untroubled
        size = f"{each.size / 1e6:,.1f}"
        lines.append(f"| {each.path} | {each.kind} | {each.digest[:SHOWN_DIGITS]} | {size} | {made_from} | {state} |")
    return "\n".join(lines)


def _without_manifest(workdir: pathlib.Path) -> Iterable[Finding]:
    """What stands where an artefact has to be and is none: all that is published has a manifest."""
    for place, kind in PLACES.items():
        for path in sorted(workdir.glob(place)):
            if path.is_dir() and not path.name.startswith(DRAFT) and not (path / MANIFEST).is_file():
                damage = f"{MANIFEST} is missing, without which nobody reads it"
                yield _finding(workdir, path, kind, damage, remedy(path, kind))


def _unfinished(workdir: pathlib.Path) -> Iterable[Finding]:
    """What stands beside the artefacts of rounds and has to be whole."""
    for this in sorted(workdir.glob("rounds/*/training")):
        for path in sorted(this.glob("checkpoints/*")):
            if path.name.isdecimal() and not exists(this.parent / "checkpoint"):  # else nobody reads it any more
                damage = damage_of(path)
                remedy = "run the same command again, which goes on from the one before"
                yield _finding(workdir, path, "checkpoint by step", damage, remedy)
        for path, read in ((this / "settings.json", read_json), (this / METRICS, read_json_lines)):
            if path.exists():
                remedy, damage = f"delete {this} to begin the round again", ""
                try:
                    read(path, remedy)
                except MelError as error:
                    damage = str(error).removesuffix(f": {remedy}.")
                yield _finding(workdir, path, path.suffix.removeprefix("."), damage, remedy)


def _finding(workdir: pathlib.Path, path: pathlib.Path, kind: str, damage: str, remedy: str) -> Finding:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return Finding(str(path.relative_to(workdir)), kind, "", size, (), (damage,) if damage else (), remedy)


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
