"""Exports a round's checkpoint as a bundle: everything that mel-link needs, in one folder.

Reads   rounds/K/checkpoint, kb, tokens; with --calibrate_on the mentions of a split and their tokens.
Writes  bundle: the encoder for transformers and sentence-transformers, its tokenizer, an index of all
        entities, their QIDs and titles. It can be moved to another machine; nothing else is needed
        there. rounds/K/embeddings/entities are published where they are missing.

With --calibrate_on the bundle says how probable its answers are, and mel-link can withhold those that
are not probable enough (--nil_precision). Both hold for mentions like those of the split; it should be
one that was neither trained nor selected on.

Example:
  mel-export --workdir=run --round=2 --calibrate_on=mewsli
  mel-link --bundle=run/bundle --input=texts.jsonl --output=links.jsonl
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import numpy as np
from absl import logging

from mel.artifacts import Artifact, Workdir, exists, open_artifact
from mel.bin.evaluate import LAST, Trained, open_trained, open_windows
from mel.bin.launch import launch
from mel.config import REQUIRED, flag
from mel.corpora.kb import KnowledgeBase
from mel.evaluation import calibration
from mel.evaluation.questions import Questions, read_prepared
from mel.evaluation.systems import rank_by_checkpoint
from mel.linking.bundle import KIND, publish_bundle, read_calibration
from mel.retrieval.index import Index
from mel.shards.datasets import open_rows
from mel.types import MelError


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag(REQUIRED, "Folder that the rounds are in.")
    round: int = flag(LAST, "Round whose checkpoint is exported; -1 is the untrained encoder, -2 the last round.")
    index: Literal["exact", "scann"] = flag("exact", "How the linker searches neighbours.")
    calibrate_on: str = flag("", "Prepared split that the probabilities of answers are fitted on; none if empty.")


def main(config: Config) -> None:
    """Publishes the bundle, or finds it published."""
    work = Workdir(config.workdir)
    trained = open_trained(work, config.round)
    if exists(work.bundle):
        _require_same(open_artifact(work.bundle, KIND), trained.checkpoint.artifact, config)
        logging.info("Exported already: %s", work.bundle)
        return
    windows, kb, calibrate = open_windows(work), open_artifact(work.kb, "kb"), None
    if split := config.calibrate_on:
        qids_E = KnowledgeBase.read(kb.path, kb.facts["languages"]).qids_E
        calibrate = functools.partial(_calibration, trained, _open_questions(work, split), qids_E, split)
    publish_bundle(
        work.bundle, trained.checkpoint, kb, open_artifact(work.tokenizer, "tokenizer"),
        trained.embeddings, config.index, windows.max_tokens, windows.title_in_window, calibrate, config,
    )  # fmt: skip
    logging.info("Published %s: round %d, %s index", work.bundle, trained.round, config.index)


def _open_questions(work: Workdir, split: str) -> Questions:
    if split == "train":
        raise MelError("--calibrate_on=train would call answers more probable than they are: choose another split.")
    mentions, tokenizer = open_artifact(work.mentions(split), "mentions"), open_artifact(work.tokenizer, "tokenizer")
    tokens = open_artifact(work.mention_tokens(split), "tokens", {"tokenizer": tokenizer})
    return read_prepared(mentions, tokens, open_rows(tokens, work.cache(tokens)).rows, languages=(), limit=0)


def _calibration(
    trained: Trained, questions: Questions, qids_E: np.ndarray, split: str, index: Index
) -> dict[str, Any]:
    """The calibration on the questions of a split, what they are, and its quality."""
    ranking = rank_by_checkpoint(trained.checkpoint, questions, index, qids_E)
    measured = calibration.measure(ranking, questions.gold_Q, questions.documents, qids_E)
    logging.info("Calibrated on %d mentions of %s: error %.4f", len(questions.gold_Q), split, measured["ece"])
    return {"split": split, "mentions": len(questions.gold_Q), "inputs": questions.inputs} | measured


def _require_same(bundle: Artifact, checkpoint: Artifact, config: Config) -> None:
    split = (read_calibration(bundle) or {"split": ""})["split"]
    found = bundle.inputs["checkpoint"], bundle.facts["index"], split
    if found != (checkpoint.digest, config.index, config.calibrate_on):
        raise MelError(
            f"{bundle.path} is a bundle of round {bundle.facts['round']} with another checkpoint, index "
            f"({bundle.facts['index']}) or calibration ({split or 'none'}): move it away or delete it."
        )


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
