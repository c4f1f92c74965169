"""The bundle: everything that linking needs in one folder, movable, without the working directory.

encoder/      weights and tokenizer, as `transformers` and `mel` load them
modules.json, 1_Pooling/, 2_Dense/
              with encoder/ they make the bundle a sentence-transformers model; its input is a
              text with the marker before and after the focus (`mel.encoder.pretrained` writes them)
index/        of the entities' embeddings; an exact one holds them
embeddings.npy
              the entities' embeddings where the index holds them in another form
entities.npy, languages.npy, titles*.npy, title_*.npy, ids*.npy, id_*.npy, row_*.npy
              the entity, language and title of each row of the index, and what entities are called
descriptions*.npy
              the description of each row (`Strings`)
alias_table/  what surface forms were linked to, where the bundle knows more than the context says
              (`mel.corpora.alias_table` writes and reads it; the titles above join its names)
detector/     what finds mentions in plain text, where the working directory had one (`mel.linking.detection`)
contexts/index/, contexts/entities.npy
              an index of training mentions and the entity number of each, where the bundle hears them
calibration.json
              where the bundle was calibrated: what turns scores into probabilities, and thresholds
later/        entities that were added, changed or removed since (`mel.linking.layers` writes and reads it)
README.md, encoder.onnx, entities.safetensors
              for other programs: the card, and where asked for the encoder as a graph and all entities in one file

An encoder that is exported alone is a folder of another kind: encoder/, the modules and what is for other programs.

All columns are mapped into memory: opening makes no Python object a row. Facts of its manifest:

round, step      of the checkpoint
encoder          the config of the encoder
marker, max_tokens, title_in_window
                 how a mention becomes a row
entity_tokens    how long the row of an entity is at most
index            the kind of the index
languages        of the rows, in the order of preference
fusion_weight    of the prior in a score; 0 for none, and then there need be no alias table
context_weight, logit_scale
                 how training mentions are mixed in; 0 for none, and then there is no contexts/
settings         what was asked for, by flag; a fusion weight that was fitted is none of them
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mel.artifacts import Artifact, Workdir, exists, open_artifact, publish
from mel.corpora.alias_table import AliasTable
from mel.corpora.columns import read_column
from mel.corpora.kb import KnowledgeBase, read_entities
from mel.corpora.strings import Strings, StringsWriter
from mel.encoder import pretrained
from mel.encoder.backend import Precision
from mel.encoder.config import EncoderConfig
from mel.encoder.embed import Encoder
from mel.evaluation.contexts import Contexts
from mel.evaluation.evidence import Evidence
from mel.linking import detection
from mel.linking.detection import Detector
from mel.linking.layers import join_descriptions, join_detector, join_evidence, read_later
from mel.retrieval.embeddings import EMBEDDINGS
from mel.retrieval.index import IndexKind, open_index, publish_index
from mel.retrieval.probes import Probes
from mel.shards.blocks import Windows
from mel.text.tokenizer import MARKER, Tokenizer
from mel.types import MelError

KIND, ENCODER_KIND = "bundle", "encoder"
CALIBRATION = "calibration.json"
ALIAS_TABLE, CONTEXTS, CONTEXT_ENTITIES = "alias_table", "contexts", "contexts/entities.npy"
DESCRIPTIONS = "descriptions"
DETECTOR = "detector"

AddFiles = Callable[[pathlib.Path, Mapping[str, Any]], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Bundle:
    """A linker's parts.

    Attributes:
      tokenizer, max_tokens, title_in_window: how a mention becomes a row.
      entity_tokens: how long the row of an entity is at most.
      encoder: how a row becomes an embedding.
      evidence: what is known of the entities: their rows, embeddings and index, and what joins them.
      descriptions: of each row.
      fusion_weight: of the prior in a score, 0 for none.
      calibration: the values of its calibration, None where it has none.
      detector: finds the mentions of a plain text; None where it has none.
    """

    tokenizer: Tokenizer
    max_tokens: int
    title_in_window: bool
    entity_tokens: int
    encoder: Encoder
    evidence: Evidence
    descriptions: Strings
    fusion_weight: float = 0.0
    calibration: Mapping[str, Any] | None = None
    detector: Detector | None = None

    @property
    def kb(self) -> KnowledgeBase:
        """The entity, language and title of each row."""
        return self.evidence.kb


class Ingredients(NamedTuple):
    """What of a working directory goes into a bundle.

    Attributes:
      checkpoint: what the encoder comes from.
      encoder: with its weights.
      embeddings: of the entities, by the encoder.
      index: the kind that is built over them.
      with_prior: whether the alias table goes with it.
      context_weight: of training mentions beside descriptions, 0 for none.
      context_entities_M: what each training mention links to, as `Contexts` has it.
      context_embeddings: of the training mentions, by the encoder.
      probes: what an approximate index is tuned with, and its recall measured; rows of its own if None.
    """

    checkpoint: Artifact
    encoder: Encoder
    embeddings: Artifact
    index: IndexKind
    with_prior: bool = False
    context_weight: float = 0.0
    context_entities_M: np.ndarray | None = None
    context_embeddings: Artifact | None = None
    probes: Probes | None = None


class Measured(NamedTuple):
    """What answers of the bundle itself have shown: the weight of the prior, and the values of a calibration."""

    fusion_weight: float
    calibration: Mapping[str, Any] | None = None


def publish_bundle(
    path: pathlib.Path, work: Workdir, ingredients: Ingredients, measure: Callable[[Evidence], Measured],
    settings: Mapping[str, Any], config: Any = None, add_files: AddFiles = lambda folder, facts: None,
) -> Artifact:  # fmt: skip
    """Publishes a bundle.

    Args:
      path: where.
      work: its knowledge base, tokenizer, alias table, windows and detector go into the bundle.
      ingredients: what else does.
      measure: finds the weight of the prior and a calibration with what the bundle knows.
      settings: what was asked for.
      config: the config that made it.
      add_files: writes what is for other programs into the folder, of which it is told the facts.

    Raises:
      MelError: there is one already, or the index cannot be built.
    """
    kb, tokenizer = open_artifact(work.kb, "kb"), open_artifact(work.tokenizer, "tokenizer")
    inputs = {"checkpoint": ingredients.checkpoint, "kb": kb, "tokenizer": tokenizer}
    inputs |= {"embeddings": ingredients.embeddings}
    with publish(path, KIND, config) as draft:
        draft.facts = _facts(work, kb, ingredients) | {"settings": dict(settings)}
        write_encoder(draft.path, Tokenizer.load(tokenizer.path), ingredients.encoder, draft.facts["max_tokens"])
        known, described = KnowledgeBase.read(kb.path, kb.facts["languages"]), read_entities(kb.path)
        descriptions = (entity.description for entity in described)
        kind, probes = ingredients.index, ingredients.probes
        write_entity_columns(draft.path, known, descriptions, kind, ingredients.embeddings, probes)
        if ingredients.with_prior:
            inputs["alias_table"] = open_artifact(work.alias_table, "alias table", {"kb": kb})
            copy_files(inputs["alias_table"], draft / ALIAS_TABLE)
        if exists(work.detector):
            inputs["detector"] = open_artifact(work.detector, detection.KIND, {"kb": kb})
            copy_files(inputs["detector"], draft / DETECTOR)
        if ingredients.context_embeddings is not None and ingredients.context_entities_M is not None:
            inputs["context_embeddings"] = ingredients.context_embeddings
            publish_index(draft / CONTEXTS / "index", kind, ingredients.context_embeddings, probes=probes)
            np.save(draft / CONTEXT_ENTITIES, ingredients.context_entities_M)
        for name, artifact in inputs.items():
            draft.reads(name, artifact)
        measured = measure(read_evidence(draft.path, draft.facts))
        draft.facts["fusion_weight"] = measured.fusion_weight
        if measured.calibration is not None:
            (draft / CALIBRATION).write_text(json.dumps(measured.calibration, indent=1) + "\n")
        add_files(draft.path, draft.facts)
    return open_artifact(path, KIND)


def publish_encoder(
    path: pathlib.Path, work: Workdir, checkpoint: Artifact, encoder: Encoder, settings: Mapping[str, Any],
    config: Any = None, add_files: AddFiles = lambda folder, facts: None,
) -> Artifact:  # fmt: skip
    """Publishes an encoder alone, for other programs or to train on; see `publish_bundle`."""
    kb, tokenizer = open_artifact(work.kb, "kb"), open_artifact(work.tokenizer, "tokenizer")
    with publish(path, ENCODER_KIND, config) as draft:
        draft.reads("checkpoint", checkpoint)
        draft.reads("tokenizer", tokenizer)
        draft.facts = _encoder_facts(work, checkpoint, encoder) | {"languages": kb.facts["languages"]}
        draft.facts |= {"settings": dict(settings)}
        write_encoder(draft.path, Tokenizer.load(tokenizer.path), encoder, draft.facts["max_tokens"])
        add_files(draft.path, draft.facts)
    return open_artifact(path, ENCODER_KIND)


def open_bundle(path: str | os.PathLike, precision: Precision = "auto") -> Bundle:
    """Opens a published bundle, whose encoder will compute in `precision`.

    Raises:
      MelError: there is none, or a part of it is missing or damaged.
    """
    artifact = open_artifact(path, KIND)
    facts = artifact.facts
    later = read_later(artifact.path, facts)
    return Bundle(
        tokenizer=Tokenizer.load(artifact / "encoder"),
        max_tokens=facts["max_tokens"],
        title_in_window=facts["title_in_window"],
        entity_tokens=facts["entity_tokens"],
        encoder=read_encoder(artifact, precision),
        evidence=join_evidence(read_evidence(artifact.path, facts), later),
        descriptions=join_descriptions(Strings.read(artifact.path, DESCRIPTIONS), later),
        fusion_weight=facts["fusion_weight"],
        calibration=read_calibration(artifact),
        detector=join_detector(read_detector(artifact), later),
    )


def read_encoder(bundle: Artifact, precision: Precision = "auto") -> Encoder:
    """The encoder of a bundle, which will compute in `precision`."""
    _, params = pretrained.load(bundle.path)
    return Encoder(EncoderConfig.from_json(bundle.facts["encoder"]), params, precision)


def read_detector(bundle: Artifact) -> Detector | None:
    """The detector that a bundle was made with, None where it has none."""
    return Detector.read(bundle / DETECTOR) if (bundle / DETECTOR).is_dir() else None


def read_calibration(bundle: Artifact) -> Mapping[str, Any] | None:
    """The values of a bundle's calibration, None where it has none."""
    return json.loads((bundle / CALIBRATION).read_bytes()) if CALIBRATION in bundle.files else None


def _facts(work: Workdir, kb: Artifact, ingredients: Ingredients) -> dict[str, Any]:
    """What is known before anything is measured."""
    return _encoder_facts(work, ingredients.checkpoint, ingredients.encoder) | {
        "index": ingredients.index,
        "languages": kb.facts["languages"],
        "context_weight": ingredients.context_weight,
        "logit_scale": ingredients.checkpoint.facts["settings"]["logit_scale"],
    }


def _encoder_facts(work: Workdir, checkpoint: Artifact, encoder: Encoder) -> dict[str, Any]:
    windows = Windows.of(work)
    return {
        "round": checkpoint.facts["round"],
        "step": checkpoint.facts["step"],
        "encoder": encoder.config.to_json(),
        "marker": MARKER,
        "max_tokens": windows.max_tokens,
        "title_in_window": windows.title_in_window,
        "entity_tokens": open_artifact(work.entity_tokens, "tokens").facts["max_tokens"],
    }


def write_encoder(folder: pathlib.Path, tokenizer: Tokenizer, encoder: Encoder, max_tokens: int) -> None:
    """Writes what `transformers` and sentence-transformers load."""
    tokenizer.save(folder / "encoder")
    prompts = {"query": tokenizer.prefixes.mention, "document": tokenizer.prefixes.entity}
    pretrained.save(
        folder, encoder.config, encoder.params, transformer="encoder", max_tokens=max_tokens, prompts=prompts
    )


def write_entity_columns(
    folder: pathlib.Path, kb: KnowledgeBase, descriptions: Iterable[str], index: IndexKind, embeddings: Artifact,
    probes: Probes | None = None,
) -> None:  # fmt: skip
    """Writes what a bundle holds of each row: its vector in an index, its entity, language, title and description.

    An approximate index is tuned with `probes`, or some of its rows.
    """
    publish_index(folder / "index", index, embeddings, probes=probes)
    if index != "exact":
        shutil.copyfile(embeddings / EMBEDDINGS, folder / EMBEDDINGS)
    kb.write(folder)
    writer = StringsWriter(folder, DESCRIPTIONS)
    for description in descriptions:
        writer.add(description)
    writer.close()


def copy_files(artifact: Artifact, folder: pathlib.Path) -> None:
    """Copies what an artefact holds, without its manifest."""
    for name in artifact.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact / name, target)


def read_evidence(folder: pathlib.Path, facts: Mapping[str, Any]) -> Evidence:
    """What the bundle in `folder` knows, all of it mapped into memory but for what the index holds there."""
    kb = KnowledgeBase.read(folder, facts["languages"])
    held_in = folder / "index" if facts["index"] == "exact" else folder
    contexts = table = None
    if facts["context_weight"]:
        heard = open_index(folder / CONTEXTS / "index"), read_column(folder / CONTEXT_ENTITIES)
        contexts = Contexts(*heard, facts["context_weight"], facts["logit_scale"])
    if (folder / ALIAS_TABLE).is_dir():
        table = AliasTable.read(folder / ALIAS_TABLE)
        table.add_titles(kb)
    return Evidence(kb, read_column(held_in / EMBEDDINGS), open_index(folder / "index"), contexts, table)


def require_made_like(bundle: Artifact, checkpoint: Artifact, settings: Mapping[str, Any]) -> None:
    """Refuses a bundle of another checkpoint, or one that was made with other settings."""
    way_out = "move it away or delete it."
    if bundle.inputs["checkpoint"] != checkpoint.digest:
        raise MelError(f"{bundle.path} is a bundle of another checkpoint, of round {bundle.facts['round']}: {way_out}")
    made_with = bundle.facts["settings"]
    for name, value in settings.items():
        if made_with.get(name) != value:
            raise MelError(f"{bundle.path} was made with --{name}={made_with.get(name)}, not {value}: {way_out}")


def require_detector(bundle: Artifact, detector: Artifact) -> None:
    """Refuses a bundle that was made before the detector was."""
    if bundle.inputs.get("detector") != detector.digest:
        raise MelError(f"{bundle.path} was made without the detector at {detector.path}: move it away or delete it.")
