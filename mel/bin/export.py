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
from typing import Any

from absl import logging

from mel.artifacts import Artifact, Workdir, exists, open_artifact
from mel.bin.launch import launch
from mel.config import REQUIRED, flag, group
from mel.corpora.kb import KnowledgeBase
from mel.encoder.backend import ComputeConfig, keep_compiled
from mel.evaluation.calibration import calibrate
from mel.evaluation.evaluation_set import EvaluationSet, read_prepared
from mel.linking.bundle import KIND, publish_bundle, read_calibration
from mel.retrieval.index import Index, IndexKind
from mel.shards.blocks import Windows
from mel.systems.nearest import rank_by_embeddings
from mel.systems.trained import LAST, Trained, open_trained
from mel.types import MelError


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag(REQUIRED, "Folder that the rounds are in.")
    round: int = flag(LAST, "Round whose checkpoint is exported; -1 is the untrained encoder, -2 the last round.")
    index: IndexKind = flag("exact", "How the linker searches neighbours.")
    calibrate_on: str = flag("", "Prepared split that the probabilities of answers are fitted on; none if empty.")
    compute: ComputeConfig = group(ComputeConfig)


def main(config: Config) -> None:
    """Publishes the bundle, or finds it published."""
    work = Workdir(config.workdir)
    keep_compiled(config.compute.compilation_cache)
    trained = open_trained(work, config.round, config.compute.precision)
    if exists(work.bundle):
        _require_same(open_artifact(work.bundle, KIND), trained.artifact, config)
        logging.info("Exported already: %s", work.bundle)
        return
    kb = open_artifact(work.kb, "kb")
    measure = functools.partial(_calibration, config, work, kb, trained) if config.calibrate_on else None
    embeddings, _ = trained.entity_embeddings
    publish_bundle(
        work, trained.artifact, trained.encoder, embeddings, config.index, Windows.of(work), measure, config
    )
    logging.info("Published %s: round %d, %s index", work.bundle, trained.round, config.index)


def _calibration(config: Config, work: Workdir, kb: Artifact, trained: Trained, index: Index) -> dict[str, Any]:
    """The calibration on the mentions of a split, what they are, and its quality."""
    known = KnowledgeBase.read(kb.path, kb.facts["languages"])
    mentions = _mentions(work, config.calibrate_on, known)
    ranking = rank_by_embeddings(trained.encoder.embed(mentions.rows, "mentions"), index, known.entities_E)
    calibration = calibrate(ranking, mentions.gold_Q, mentions.clusters, known)
    logging.info("Calibrated on %d mentions of %s: error %.4f", len(mentions), config.calibrate_on, calibration["ece"])
    return {"split": config.calibrate_on, "mentions": len(mentions), "inputs": mentions.inputs} | calibration


def _mentions(work: Workdir, split: str, kb: KnowledgeBase) -> EvaluationSet:
    if split == "train":
        raise MelError("--calibrate_on=train would call answers more probable than they are: choose another split.")
    return read_prepared(work, split, kb)


def _require_same(bundle: Artifact, checkpoint: Artifact, config: Config) -> None:
    split = (read_calibration(bundle) or {"split": ""})["split"]
    made_with = bundle.inputs["checkpoint"], bundle.facts["index"], split
    if made_with != (checkpoint.digest, config.index, config.calibrate_on):
        raise MelError(
            f"{bundle.path} is a bundle of round {bundle.facts['round']} with another checkpoint, index "
            f"({bundle.facts['index']}) or calibration ({split or 'none'}): move it away or delete it."
        )


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
