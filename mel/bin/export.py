"""Exports a round's checkpoint as a bundle: everything that mel-link needs, in one folder.

Reads   rounds/K/checkpoint, kb, tokens.
Writes  bundle: the encoder for transformers and sentence-transformers, its tokenizer, an index of all
        entities, their QIDs and titles. It can be moved to another machine; nothing else is needed
        there. rounds/K/embeddings/entities are published where they are missing.

Example:
  mel-export --workdir=run --round=2
  mel-link --bundle=run/bundle --input=texts.jsonl --output=links.jsonl
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from absl import logging

from mel.artifacts import Artifact, Workdir, exists, open_artifact
from mel.bin.evaluate import LAST, open_trained, open_windows
from mel.bin.launch import REQUIRED, flag, launch
from mel.linking.bundle import KIND, publish_bundle
from mel.types import MelError


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag(REQUIRED, "Folder that the rounds are in.")
    round: int = flag(LAST, "Round whose checkpoint is exported; -1 is the untrained encoder, -2 the last round.")
    index: Literal["exact", "scann"] = flag("exact", "How the linker searches neighbours.")


def main(config: Config) -> None:
    """Publishes the bundle, or finds it published."""
    work = Workdir(config.workdir)
    trained = open_trained(work, config.round)
    if exists(work.bundle):
        _require_same(open_artifact(work.bundle, KIND), trained.checkpoint.artifact, config)
        logging.info("Exported already: %s", work.bundle)
        return
    windows = open_windows(work)
    publish_bundle(
        work.bundle, trained.checkpoint, open_artifact(work.kb, "kb"), open_artifact(work.tokenizer, "tokenizer"),
        trained.embeddings, config.index, windows.max_tokens, windows.title_in_window, config,
    )  # fmt: skip
    logging.info("Published %s: round %d, %s index", work.bundle, trained.round, config.index)


def _require_same(bundle: Artifact, checkpoint: Artifact, config: Config) -> None:
    if bundle.inputs["checkpoint"] != checkpoint.digest or bundle.facts["index"] != config.index:
        raise MelError(
            f"{bundle.path} is a bundle of round {bundle.facts['round']} with another checkpoint or index "
            f"({bundle.facts['index']}): move it away or delete it."
        )


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
