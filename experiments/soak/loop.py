"""A whole loop over the tiny world in as few seconds as possible: its commands, and what they have to end with."""

from __future__ import annotations

import json
import pathlib
import time
from typing import NamedTuple

from experiments.soak.processes import Command, start
from tests import tiny_world

LANGUAGES = ("en", "ru")
PREPARATION = (
    f"--languages={','.join(LANGUAGES)}", "--mention_tokens=16", "--entity_tokens=16", "--workers=2", "--limit=1",
    "--held_out=0.1",
)  # fmt: skip
TRAINING = (
    "--rounds=2", "--steps_per_round=6", "--batch_size=16", "--encoder=random:1x16x2", "--learning_rate=1e-2",
    "--save_every=2",
)  # fmt: skip
MINING = ("--negatives_per_mention=2", "--pool=4", "--index=exact")
# What two runs have equal, byte for byte, beside the digest of every artefact.
SAME = (
    "rounds/*/checkpoint/metrics.jsonl", "rounds/*/negatives/negatives.npy", "rounds/*/embeddings/*/*.npy",
    "reports/*/report.*", "bundle/index/*", "links.jsonl",
)  # fmt: skip
RUBBISH = (".draft-*", ".lock-*")
KINDS = {
    "kb/": "kb", "alias_table/": "alias table", "mentions/": "mentions", "tokens/tokenizer/": "tokenizer",
    "tokens/": "tokens", "cache/": "row cache", "reports/": "report", "bundle/": "bundle",
}  # fmt: skip
# Logs that nothing reads: what a stage took, and curves to look at.
UNREAD = ("tensorboard", "cost.jsonl")


class World(NamedTuple):
    """A tiny world on disk, and texts to link."""

    path: pathlib.Path

    @classmethod
    def make(cls, path: pathlib.Path) -> World:
        if not (path / "texts.jsonl").exists():
            tiny_world.generate(path)
            texts = []
            for language in LANGUAGES:
                page = sorted((path / "mewsli" / language / "text").iterdir())[0]
                text = page.read_text("utf-8")
                texts.append({"id": page.name, "language": language, "text": text, "spans": [[0, 5], [6, 11]]})
            lines = "".join(json.dumps(each) + "\n" for each in texts)
            (path / "texts.jsonl").write_text(lines, "utf-8")
        return cls(path)

    def commands(self, run: pathlib.Path, whole: bool) -> list[Command]:
        """From archives to links in the working directory `run`; with `whole`, all rounds are one command."""
        workdir = f"--workdir={run}"
        sources = (f"--damuel={self.path}/damuel", f"--mewsli={self.path}/mewsli", f"--tokenizer={self.path}/tokenizer")
        rounds = Command("rounds", "run_rounds", (workdir, *TRAINING, *MINING, "--first_negatives=hard"))
        bundle, files = f"--bundle={run}/bundle", (f"--input={self.path}/texts.jsonl", f"--output={run}/links.jsonl")
        apart = [
            step
            for number in (-1, 0, 1)
            for step in (
                Command("train" if number >= 0 else "start", "train", (workdir, *TRAINING, f"--round={number}")),
                Command("mine", "mine_negatives", (workdir, *MINING, f"--round={number}")),
            )
        ][:-1]  # nobody trains with what the last round could mine
        return [
            Command("prepare", "prepare_data", (workdir, *sources, *PREPARATION)),
            *([rounds] if whole else [*apart, Command("evaluate", rounds.binary, rounds.flags)]),
            Command("export", "export", (workdir, "--calibrate_on=held_out", "--fusion_weight=0.02")),
            Command("link", "link", (bundle, *files)),
        ]


def verification(run: pathlib.Path) -> Command:
    return Command("verify", "verify", (f"--workdir={run}",))


def undisturbed(world: World, run: pathlib.Path, whole: bool, log: pathlib.Path) -> dict[str, float]:
    """Runs a loop to its end; returns the seconds of each stage.

    Raises:
      RuntimeError: a command failed.
    """
    run.mkdir(parents=True)
    seconds = {}
    for command in world.commands(run, whole):
        started, process = time.monotonic(), start(command, log)
        if process.wait():
            raise RuntimeError(f"{command.name} failed with nothing in its way:\n{process.log}")
        seconds[command.stage] = time.monotonic() - started
    return seconds


def ending(run: pathlib.Path) -> dict[str, str | bytes]:
    """Everything that has to be equal: files byte for byte, and the digest of every artefact."""
    found: dict[str, str | bytes] = {
        str(file.relative_to(run)): file.read_bytes() for pattern in SAME for file in run.glob(pattern)
    }
    for manifest in run.rglob("manifest.json"):
        found[str(manifest.relative_to(run))] = json.loads(manifest.read_bytes())["digest"]
    return found


def rubbish(run: pathlib.Path) -> list[str]:
    """Drafts and locks that nobody has swept."""
    return sorted(str(path.relative_to(run)) for pattern in RUBBISH for path in run.rglob(pattern))


def kind_of(name: str) -> str | None:
    """What kind of thing a file of a working directory belongs to; None for what nothing reads."""
    parts = pathlib.PurePath(name).parts
    if any(part.startswith((".draft-", ".lock-")) for part in parts) or any(part in UNREAD for part in parts):
        return None
    if parts[-1] == "manifest.json":
        return "manifest"
    if "checkpoints" in parts:
        return None if any("orbax-checkpoint-tmp" in part for part in parts) else "step checkpoint"
    if parts[0] == "rounds":
        return parts[-1] if parts[2] == "training" else parts[2]
    return next((kind for start, kind in KINDS.items() if name.startswith(start)), parts[-1])


def files_by_kind(run: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The files of a working directory that hold anything, by kind."""
    found: dict[str, list[pathlib.Path]] = {}
    for file in sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size):
        if kind := kind_of(file.relative_to(run).as_posix()):
            found.setdefault(kind, []).append(file)
    return found
