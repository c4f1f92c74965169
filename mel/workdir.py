"""The names of everything in a working directory, and which command makes it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

from mel.types import MelError

if TYPE_CHECKING:
    from mel.artifacts import Artifact

PATTERNS = "*?[]\\"
START = -1  # the round whose checkpoint is the encoder before training
METRICS = "metrics.jsonl"
# The command that publishes a kind again where it was deleted. Any command that needs the others makes them.
MADE_BY = {
    **dict.fromkeys(("kb", "alias table", "tokenizer", "mentions", "tokens", "unit"), "mel-prepare-data"),
    "detector": "mel-prepare-data --detector",
    "negatives": "mel-mine-negatives",
    "checkpoint": "mel-train",
    "report": "mel-evaluate",
    "bundle": "mel-export or mel-update-bundle",
}

# Where the artefacts of a working directory stand, and their kinds.
PLACES = {
    "kb": "kb",
    "alias_table": "alias table",
    "detector": "detector",
    "mentions/*": "mentions",
    "tokens/tokenizer": "tokenizer",
    "tokens/entities": "tokens",
    "tokens/mentions/*": "tokens",
    "cache/*": "row cache",
    "units/*/*": "unit",
    "rounds/*/negatives": "negatives",
    "rounds/*/mining/*": "mined chunk",
    "rounds/*/checkpoint": "checkpoint",
    "rounds/*/embeddings/*": "embeddings",
    "rounds/*/*index": "index",
    "rounds/*/*index_shards/*": "index shard",
    "reports/*": "report",
    "bundle": "bundle",
}


def rerun(kind: str) -> str:
    """What to run to make an artefact again, as part of a sentence: "run mel-train again"; `kind` is "" if unknown."""
    return f"run {MADE_BY.get(kind, 'the same command' if kind else 'the command that made it')} again"


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The names of everything in a working directory, stated here and nowhere else.

    Raises:
      MelError: its path has characters that a library which writes there takes for something else.
    """

    path: pathlib.Path

    def __init__(self, path: str | os.PathLike):
        object.__setattr__(self, "path", pathlib.Path(path).absolute())
        _require_plain(self.path)

    @property
    def kb(self) -> pathlib.Path:
        return self.path / "kb"

    @property
    def alias_table(self) -> pathlib.Path:
        return self.path / "alias_table"

    @property
    def detector(self) -> pathlib.Path:
        return self.path / "detector"

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

    @property
    def units(self) -> pathlib.Path:
        """Work in progress: what the parts of archives say, by language and part, until everything is prepared."""
        return self.path / "units"

    def cache(self, tokens: Artifact) -> pathlib.Path:
        """Where the token shards `tokens` stand decoded, for memory mapping."""
        return self.path / "cache" / f"{tokens.path.name}-{tokens.digest[:12]}"

    def twins(self, tokens: Artifact) -> pathlib.Path:
        """Where it stands which rows of `tokens` read alike."""
        return self.path / "cache" / f"twins-{tokens.digest[:12]}"

    def round(self, number: int) -> Round:
        """Round 0, 1, ...; START is the untrained encoder."""
        return Round(self.path / "rounds" / ("start" if number == START else str(number)))

    def rounds(self) -> list[int]:
        """The numbers of all rounds that were begun, in order; START is not among them."""
        folders = (self.path / "rounds").glob("[0-9]*")
        return sorted(int(folder.name) for folder in folders if folder.name.isdecimal())

    def report(self, name: str) -> pathlib.Path:
        return self.path / "reports" / name


def _require_plain(path: pathlib.Path) -> None:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise MelError(f"--workdir={os.fsencode(path)!r} is no UTF-8: choose a folder whose name is.") from None
    for character in PATTERNS:
        if character in str(path):
            # Orbax looks for its own files with the whole path as a pattern, finds none, and saves nothing.
            raise MelError(
                f"--workdir={path} has a {character} in its path, which a library takes for a pattern of names: choose "
                f"a folder without any of {' '.join(PATTERNS)} in its path."
            )


@dataclasses.dataclass(frozen=True)
class Round:
    """The names of what one round reads and publishes."""

    path: pathlib.Path

    @property
    def negatives(self) -> pathlib.Path:
        return self.path / "negatives"

    @property
    def mining(self) -> pathlib.Path:
        """Work in progress: chunks of the negatives, until all are there."""
        return self.path / "mining"

    @property
    def training(self) -> pathlib.Path:
        """Work in progress: checkpoints by step, metrics, TensorBoard."""
        return self.path / "training"

    @property
    def metrics(self) -> pathlib.Path:
        """The metrics of each step, while the round runs; `checkpoint` has them of the whole round."""
        return self.training / METRICS

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
