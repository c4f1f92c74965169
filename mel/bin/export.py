"""Exports a round's checkpoint as a bundle: everything that `mel.Linker` and mel-link need, in one folder.

Reads   rounds/K/checkpoint, kb, alias_table, tokens; with --calibrate_on the mentions of a split and their
        tokens, with --contexts the training mentions' tokens.
Writes  bundle: the encoder for transformers and sentence-transformers, its tokenizer, an index of all
        entities, their ids, titles, languages and descriptions, the alias table, and the detector of mentions if
        the data was prepared with mel-prepare-data --detector. It can be moved to another machine; nothing else is
        needed there. rounds/K/embeddings are published where they are missing.

The bundle answers as `mel-evaluate --model=fusion` does: score = cosine + weight · log prior, with the prior
of the alias table and one weight. --calibrate_on=SPLIT fits the weight; --fusion_weight states it, and 0
leaves the alias table out. --contexts lets the training mentions nearest to a mention speak for their
entities, too, at the cost of their embeddings in the bundle.

With --calibrate_on the bundle also says how probable its answers are, and can withhold those that are not
probable enough (--nil_precision of mel-link). Weight and probabilities hold for mentions like those of the
split; it should be one that was neither trained nor selected on. Lemmas, where the split has them, are not
looked at, because texts that are linked have none.

For other programs there is a card (README.md): how texts are written, the licence, the data, the reports of this
round, and code. --onnx adds the encoder as a graph (encoder.onnx, opset 17, tried in onnxruntime) and
--entities_file all entities in one file (entities.safetensors). --noindex exports the encoder alone. A bundle or
an encoder can be given to mel-train as --encoder and to mel-prepare-data as --tokenizer.

Examples:
  mel-export --workdir=run --round=best --calibrate_on=mewsli
  mel-export --workdir=run --round=2 --output=run/bundles/small --onnx
  mel-link --bundle=run/bundle --input=texts.jsonl --output=links.jsonl
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from mel.artifacts import Workdir, exists, open_artifact
from mel.bin.launch import launch
from mel.config import REQUIRED, flag, group
from mel.corpora.kb import KnowledgeBase
from mel.encoder.backend import ComputeConfig, keep_compiled
from mel.encoder.graph import check_onnx, require_onnx, write_onnx
from mel.evaluation.contexts import known_entities
from mel.evaluation.evaluation_set import read_prepared
from mel.evaluation.evidence import Evidence
from mel.linking.bundle import (
    ENCODER_KIND,
    KIND,
    Ingredients,
    Measured,
    publish_bundle,
    publish_encoder,
    read_evidence,
    require_detector,
    require_made_like,
)
from mel.linking.card import About, data_of, start_of, write_card
from mel.linking.detection import KIND as DETECTOR_KIND
from mel.linking.entities import write_entities
from mel.reports.rounds import BEST, chosen_round, results
from mel.retrieval.index import IndexKind
from mel.systems.calibrated import calibrate_fused
from mel.systems.system import FITTED
from mel.systems.trained import LAST, Trained, open_trained
from mel.text.tokenizer import Tokenizer
from mel.types import MelError

USUAL_WEIGHT = 0.01  # among what collections asked for so far, .005 to .02
ONLY_LINKING = ("calibrate_on", "contexts", "entities_file")
GRAPH = "encoder.onnx"
ROWS_TRIED = 16  # of entities, in onnxruntime


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag(REQUIRED, "Folder that the rounds are in.")
    round: str = flag(
        str(LAST),
        "Round whose checkpoint is exported; -1 is the untrained encoder, -2 the last round, "
        f"{BEST} the one of the highest R@1 in the reports of the held-out split.",
    )
    output: str = flag("", "Folder that is published; that of the name bundle in --workdir if empty.")
    index: IndexKind = flag("exact", "How the linker searches neighbours.")
    calibrate_on: str = flag("", "Prepared split that the probabilities of answers are fitted on; none if empty.")
    fusion_weight: float = flag(
        FITTED,
        f"Weight of the alias table's prior in a score; -1 fits it on --calibrate_on, and is {USUAL_WEIGHT} without; "
        "0 leaves the table out.",
    )
    contexts: bool = flag(False, "Whether the training mentions nearest to a mention speak for their entities, too.")
    context_weight: float = flag(0.2, "Their weight beside descriptions.")
    noindex: bool = flag(False, "Export the encoder alone, which links nothing.")
    onnx: bool = flag(False, "Add the encoder as an ONNX graph.")
    entities_file: bool = flag(False, "Add the embeddings, ids and titles of all entities in one file.")
    license: str = flag("", "Licence that the card names, as the Hugging Face hub calls it; none is stated if empty.")
    compute: ComputeConfig = group(ComputeConfig)

    def __post_init__(self):
        if not (self.fusion_weight == FITTED or 0 <= self.fusion_weight < math.inf):
            raise MelError(f"--fusion_weight={self.fusion_weight} is no weight: state 0 or more, or {FITTED:g}.")
        if not 0 < self.context_weight < math.inf:
            raise MelError(f"--context_weight={self.context_weight} is no weight: state one above 0.")
        if self.calibrate_on == "train":
            raise MelError("--calibrate_on=train would call answers more probable than they are: choose another split.")
        if self.noindex and (useless := [name for name in ONLY_LINKING if getattr(self, name)]):
            raise MelError(
                f"--{useless[0]} is for a bundle that links, and --noindex exports none: leave one of them out."
            )

    def settings(self) -> dict[str, Any]:
        """What decides what a bundle of the same checkpoint holds."""
        names = ["onnx", "license"]
        if not self.noindex:
            names += ["index", "fusion_weight", *ONLY_LINKING, *(["context_weight"] if self.contexts else [])]
        return {name: getattr(self, name) for name in names}


def main(config: Config) -> None:
    """Publishes the bundle, or finds it published."""
    work = Workdir(config.workdir)
    if config.onnx:
        require_onnx()
    keep_compiled(config.compute.compilation_cache)
    trained = open_trained(work, chosen_round(work, config.round), config.compute.precision)
    path, checkpoint = pathlib.Path(config.output or work.bundle), trained.artifact
    if exists(path):
        bundle = open_artifact(path, ENCODER_KIND if config.noindex else KIND)
        require_made_like(bundle, checkpoint, config.settings())
        if not config.noindex and exists(work.detector):
            require_detector(bundle, open_artifact(work.detector, DETECTOR_KIND, reads=()))
        logging.info("Exported already: %s", path)
        return
    shared = {"settings": config.settings(), "config": config}
    shared["add_files"] = functools.partial(_add_files, config, work, trained)
    if config.noindex:
        publish_encoder(path, work, checkpoint, trained.encoder, **shared)
        logging.info("Published %s: the encoder of round %d", path, trained.round)
        return
    measure = functools.partial(_measure, config, work, trained)
    bundle = publish_bundle(path, work, _ingredients(config, work, trained), measure, **shared)
    weight = bundle.facts["fusion_weight"]
    logging.info("Published %s: round %d, %s index, weight of the prior %g", path, trained.round, config.index, weight)


def _add_files(config: Config, work: Workdir, trained: Trained, folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Writes what is for other programs."""
    tokenizer = Tokenizer.load(folder / "encoder")
    if config.onnx:
        encoder, rows = trained.encoder, trained.entities.rows
        some = np.arange(min(ROWS_TRIED, len(rows)))
        write_onnx(folder / GRAPH, encoder.config, folder / "encoder")
        tokens_NL = rows.gather(some, int(rows.take(some).lengths_N.max()))
        check_onnx(folder / GRAPH, encoder.config, encoder.params, tokens_NL, tokenizer.row_ids)
    if config.entities_file:
        write_entities(folder, read_evidence(folder, facts))
    checkpoint = trained.artifact
    about = About(
        config.license, data_of(work), results(work, checkpoint), start_of(work), not config.noindex, config.onnx,
        config.entities_file,
    )  # fmt: skip
    write_card(folder, facts, tokenizer.prefixes, about)


def _ingredients(config: Config, work: Workdir, trained: Trained) -> Ingredients:
    ingredients = Ingredients(
        trained.artifact, trained.encoder, trained.entity_embeddings[0], config.index,
        with_prior=config.fusion_weight != 0, probes=trained.training_probes() if config.index != "exact" else None,
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
    if not config.calibrate_on:
        return Measured(USUAL_WEIGHT if config.fusion_weight == FITTED else config.fusion_weight)
    mentions = read_prepared(work, config.calibrate_on, evidence.kb)
    weight, calibration = calibrate_fused(trained.encoder, evidence, mentions, config.fusion_weight)
    logging.info("Calibrated on %d mentions of %s: error %.4f", len(mentions), config.calibrate_on, calibration["ece"])
    return Measured(weight, {"split": config.calibrate_on, "inputs": mentions.inputs} | calibration)


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
