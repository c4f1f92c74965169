"""Digests of checkpoints by step: Orbax stores none, and restores whatever a flipped bit made of a file.

They are written while the checkpoint is still a draft, so that it never stands without them.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil

from absl import logging

from mel.artifacts import read_json, seal, write_text
from mel.checks import file_digest
from mel.types import MelError

FILE = "digests.json"
DRAFT = ".orbax-checkpoint-tmp"  # is part of the name of a checkpoint that Orbax has not finished
# Orbax's notes on the saving itself, which it still changes when the digests are written.
UNREAD = "_CHECKPOINT_METADATA", "commit_success.txt"


def write_digests(folder: pathlib.Path, step: int) -> None:
    """Adds the digests of its files to the checkpoint of a step that is about to be finished in `folder`."""
    drafts = [path for path in folder.glob(f"{step}{DRAFT}*") if path.is_dir()] or [folder / str(step)]
    newest = max(drafts, key=lambda path: path.stat().st_mtime_ns)
    write_text(newest / FILE, json.dumps(seal(_digests(newest)), indent=1) + "\n")


def drop_damaged(folder: pathlib.Path) -> None:
    """Deletes damaged checkpoints from the newest down to the first that is sound, and names them."""
    steps = sorted((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), reverse=True)
    for number, step in enumerate(steps):
        damage = damage_of(folder / str(step))
        if not damage:
            return
        instead = f"step {steps[number + 1]}" if number + 1 < len(steps) else "the beginning of the round"
        logging.warning("Checkpoint %s is damaged (%s): going on from %s.", folder / str(step), damage, instead)
        shutil.rmtree(folder / str(step))


def damage_of(checkpoint: pathlib.Path) -> str:
    """What is wrong with the checkpoint of a step; "" if nothing is."""
    try:
        said = read_json(checkpoint / FILE)
        found = _digests(checkpoint)
    except FileNotFoundError:
        return f"{FILE} is missing"
    except (MelError, OSError) as error:
        return str(error)
    if seal(said) != said:
        return f"{FILE} is not as it was saved"
    changed = [name for name in sorted({*said, *found} - {"seal"}) if said.get(name) != found.get(name)]
    return f"{changed[0]} is not as it was saved" if changed else ""


def _digests(checkpoint: pathlib.Path) -> dict[str, str]:
    files = (path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name not in (*UNREAD, FILE))
    return {os.fspath(path.relative_to(checkpoint)): file_digest(path) for path in files}
