"""Exports a round's checkpoint as a bundle: everything that `mel.Linker` and mel-link need, in one folder.

Reads   rounds/K/checkpoint, kb, alias_table, tokens; with --calibrate_on the mentions of a split and their
        tokens, with --contexts the training mentions' tokens.
Writes  bundle: the encoder for transformers and sentence-transformers, its tokenizer, an index of all
        entities, their ids, titles, languages and descriptions, and the alias table. It can be moved to
        another machine; nothing else is needed there. rounds/K/embeddings are published where they are missing.

The bundle answers as `mel-evaluate --model=fusion` does: score = cosine + weight · log prior, with the prior
of the alias table and one weight. --calibrate_on=SPLIT fits the weight; --fusion_weight states it, and 0
leaves the alias table out. --contexts lets the training mentions nearest to a mention speak for their
entities, too, at the cost of their embeddings in the bundle.

With --calibrate_on the bundle also says how probable its answers are, and can withhold those that are not
probable enough (--nil_precision of mel-link). Weight and probabilities hold for mentions like those of the
split; it should be one that was neither trained nor selected on. Lemmas, where the split has them, are not
looked at, because texts that are linked have none.

Example:
  mel-export --workdir=run --round=2 --calibrate_on=mewsli
  mel-link --bundle=run/bundle --input=texts.jsonl --output=links.jsonl
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from absl import logging

from mel.artifacts import Artifact, Workdir, exists, open_artifact
from mel.bin.launch import launch
from mel.config import REQUIRED, flag, group
from mel.corpora.kb import KnowledgeBase
from mel.encoder.backend import ComputeConfig, keep_compiled
from mel.evaluation.calibration import calibrate
from mel.evaluation.contexts import known_entities
from mel.evaluation.evaluation_set import EvaluationSet, read_prepared
from mel.evaluation.evidence import Evidence
from mel.evaluation.fusion import fuse
from mel.evaluation.ranking import Ranking
from mel.linking.bundle import KIND, Ingredients, Measured, publish_bundle
from mel.retrieval.index import IndexKind
from mel.systems.fusion import fuse_cross_fitted
from mel.systems.system import FITTED
from mel.systems.trained import LAST, Trained, open_trained
from mel.types import MelError

USUAL_WEIGHT = 0.01  # among what collections asked for so far, .005 to .02


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag(REQUIRED, "Folder that the rounds are in.")
    round: int = flag(LAST, "Round whose checkpoint is exported; -1 is the untrained encoder, -2 the last round.")
    index: IndexKind = flag("exact", "How the linker searches neighbours.")
    calibrate_on: str = flag("", "Prepared split that the probabilities of answers are fitted on; none if empty.")
    fusion_weight: float = flag(
        FITTED,
        f"Weight of the alias table's prior in a score; -1 fits it on --calibrate_on, and is {USUAL_WEIGHT} without; "
        "0 leaves the table out.",
    )
    contexts: bool = flag(False, "Whether the training mentions nearest to a mention speak for their entities, too.")
    context_weight: float = flag(0.2, "Their weight beside descriptions.")
    compute: ComputeConfig = group(ComputeConfig)

    def __post_init__(self):
        if not (self.fusion_weight == FITTED or 0 <= self.fusion_weight < math.inf):
            raise MelError(f"--fusion_weight={self.fusion_weight} is no weight: state 0 or more, or {FITTED:g}.")
        if not 0 < self.context_weight < math.inf:
            raise MelError(f"--context_weight={self.context_weight} is no weight: state one above 0.")
        if self.calibrate_on == "train":
            raise MelError("--calibrate_on=train would call answers more probable than they are: choose another split.")

    def settings(self) -> dict[str, Any]:
        """What decides what a bundle of the same checkpoint holds."""
        names = ("index", "calibrate_on", "fusion_weight", "contexts", *(["context_weight"] if self.contexts else []))
        return {name: getattr(self, name) for name in names}


def main(config: Config) -> None:
    """Publishes the bundle, or finds it published."""
    work = Workdir(config.workdir)
    keep_compiled(config.compute.compilation_cache)
    trained = open_trained(work, config.round, config.compute.precision)
    if exists(work.bundle):
        _require_same(open_artifact(work.bundle, KIND), trained.checkpoint.artifact, config)
        logging.info("Exported already: %s", work.bundle)
        return
    ingredients = _ingredients(config, work, trained)
    measure = functools.partial(_measure, config, work, trained)
    bundle = publish_bundle(work.bundle, work, ingredients, measure, config.settings(), config)
    logging.info(
        "Published %s: round %d, %s index, weight of the prior %g",
        bundle.path, trained.round, config.index, bundle.facts["fusion_weight"],
    )  # fmt: skip


def _ingredients(config: Config, work: Workdir, trained: Trained) -> Ingredients:
    ingredients = Ingredients(
        trained.checkpoint.artifact, trained.encoder, trained.entity_embeddings[0], config.index,
        with_prior=config.fusion_weight != 0,
    )  # fmt: skip
    if not config.contexts:
        return ingredients
    kb = open_artifact(work.kb, "kb")
    entities_M = known_entities(trained.mentions.entities_N, KnowledgeBase.read(kb.path, kb.facts["languages"]))
    return ingredients._replace(
        context_weight=config.context_weight, context_entities_M=entities_M,
        context_embeddings=trained.mention_embeddings[0],
    )  # fmt: skip


def _measure(config: Config, work: Workdir, trained: Trained, evidence: Evidence) -> Measured:
    """The weight of the prior that the bundle gets; with a split, fitted on its mentions, and a calibration."""
    stated = USUAL_WEIGHT if config.fusion_weight == FITTED else config.fusion_weight
    if not config.calibrate_on:
        return Measured(stated)
    mentions = read_prepared(work, config.calibrate_on, evidence.kb)
    ranking, weight = _answers(config, trained, evidence, mentions)
    calibration = calibrate(ranking, mentions.gold_Q, mentions.clusters, evidence.kb)
    logging.info("Calibrated on %d mentions of %s: error %.4f", len(mentions), config.calibrate_on, calibration["ece"])
    about = {"split": config.calibrate_on, "mentions": len(mentions), "inputs": mentions.inputs}
    return Measured(weight, about | {"fusion_weight": weight} | calibration)


def _answers(config: Config, trained: Trained, evidence: Evidence, mentions: EvaluationSet) -> tuple[Ranking, float]:
    """What mentions are answered, none with a weight that saw it, and the weight that all of them ask for."""
    queries_QD = trained.encoder.embed(mentions.rows, "mentions")
    ranking = evidence.ranking(queries_QD, "mentions")
    if evidence.table is None:
        return ranking, 0.0
    pool = evidence.pool(queries_QD, ranking, [(form, language, "") for form, language, _ in mentions.lookups])
    if config.fusion_weight == FITTED:
        ranking, tuned = fuse_cross_fitted(pool, mentions.gold_Q, mentions.clusters)
        return ranking, tuned["fusion_weight"]
    return fuse(pool, np.full(len(mentions), config.fusion_weight)), config.fusion_weight


def _require_same(bundle: Artifact, checkpoint: Artifact, config: Config) -> None:
    """Refuses a bundle of another checkpoint, or that another command line made."""
    way_out = "move it away or delete it."
    if bundle.inputs["checkpoint"] != checkpoint.digest:
        raise MelError(f"{bundle.path} is a bundle of another checkpoint, of round {bundle.facts['round']}: {way_out}")
    made_with = bundle.facts["settings"]
    for name, value in config.settings().items():
        if made_with.get(name) != value:
            raise MelError(f"{bundle.path} was made with --{name}={made_with.get(name)}, not {value}: {way_out}")


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
