"""The bundle: everything that linking needs in one folder, movable, without the working directory.

encoder/      weights and tokenizer, as `transformers` and `mel` load them
modules.json, 1_Pooling/, 2_Dense/
              with encoder/ they make the bundle a sentence-transformers model; its input is a
              text with the marker before and after the focus (`mel.encoder.pretrained` writes them)
index/        of the entities' embeddings
entities.npy, languages.npy, titles*.npy, title_*.npy, ids*.npy, id_*.npy, row_*.npy
              the entity, language and title of each row of the index, and what entities are called
calibration.json
              where the bundle was calibrated: what turns scores into probabilities, and thresholds
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from mel.artifacts import Artifact, Workdir, open_artifact, publish
from mel.corpora.kb import KnowledgeBase
from mel.encoder import pretrained
from mel.encoder.backend import Precision
from mel.encoder.config import EncoderConfig
from mel.encoder.embed import Encoder
from mel.retrieval.index import Index, IndexKind, open_index, publish_index
from mel.shards.blocks import Windows
from mel.text.tokenizer import MARKER, Tokenizer

KIND = "bundle"
CALIBRATION = "calibration.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Bundle:
    """A linker's parts.

    Attributes:
      tokenizer, max_tokens, title_in_window: how a mention becomes a row.
      encoder: how a row becomes an embedding.
      index: finds rows near an embedding.
      kb: the entity, language and title of each row.
      calibration: the values of its calibration, None where it has none.
    """

    tokenizer: Tokenizer
    max_tokens: int
    title_in_window: bool
    encoder: Encoder
    index: Index
    kb: KnowledgeBase
    calibration: Mapping[str, Any] | None = None


def publish_bundle(
    work: Workdir,
    checkpoint: Artifact,
    encoder: Encoder,
    embeddings: Artifact,
    index: IndexKind,
    windows: Windows,
    calibrate: Callable[[Index], Mapping[str, Any]] | None = None,
    config: Any = None,
) -> Artifact:
    """Publishes a bundle.

    Args:
      work: where; its knowledge base and tokenizer go into the bundle.
      checkpoint: what the encoder comes from.
      encoder: with its weights.
      embeddings: of the entities, by the encoder.
      index: the kind that is built over them.
      windows: how a mention's row is cut.
      calibrate: makes the values of a calibration from answers of the bundle's own index.
      config: the config that made it.

    Raises:
      MelError: there is one already, or the index cannot be built.
    """
    kb, tokenizer = open_artifact(work.kb, "kb"), open_artifact(work.tokenizer, "tokenizer")
    inputs = {"checkpoint": checkpoint, "kb": kb, "tokenizer": tokenizer, "embeddings": embeddings}
    with publish(work.bundle, KIND, config) as draft:
        for name, artifact in inputs.items():
            draft.reads(name, artifact)
        draft.facts = {
            "round": checkpoint.facts["round"],
            "step": checkpoint.facts["step"],
            "encoder": encoder.config.to_json(),
            "marker": MARKER,
            "max_tokens": windows.max_tokens,
            "title_in_window": windows.title_in_window,
            "index": index,
            "languages": kb.facts["languages"],
        }
        loaded = Tokenizer.load(tokenizer.path)
        loaded.save(draft / "encoder")
        prompts = {"query": loaded.prefixes.mention, "document": loaded.prefixes.entity}
        pretrained.save(
            draft.path, encoder.config, encoder.params, transformer="encoder", max_tokens=windows.max_tokens,
            prompts=prompts,
        )  # fmt: skip
        publish_index(draft / "index", index, embeddings)
        if calibrate:
            _write_json(draft / CALIBRATION, calibrate(open_index(draft / "index")))
        KnowledgeBase.read(kb.path, kb.facts["languages"]).write(draft.path)
    return open_artifact(work.bundle, KIND)


def open_bundle(path: str | os.PathLike, precision: Precision = "auto") -> Bundle:
    """Opens a published bundle, whose encoder will compute in `precision`.

    Raises:
      MelError: there is none, or a part of it is missing or damaged.
    """
    artifact = open_artifact(path, KIND)
    facts = artifact.facts
    _, params = pretrained.load(artifact.path)
    return Bundle(
        tokenizer=Tokenizer.load(artifact / "encoder"),
        max_tokens=facts["max_tokens"],
        title_in_window=facts["title_in_window"],
        encoder=Encoder(EncoderConfig.from_json(facts["encoder"]), params, precision),
        index=open_index(artifact / "index"),
        kb=KnowledgeBase.read(artifact.path, facts["languages"]),
        calibration=read_calibration(artifact),
    )


def read_calibration(bundle: Artifact) -> Mapping[str, Any] | None:
    """The values of a bundle's calibration, None where it has none."""
    return json.loads((bundle / CALIBRATION).read_bytes()) if CALIBRATION in bundle.files else None


def _write_json(path: pathlib.Path, value: Mapping[str, Any] | list) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")
