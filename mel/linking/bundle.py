"""The bundle: everything that linking needs in one folder, movable, without the working directory.

encoder/      weights and tokenizer, as `transformers` and `mel` load them
modules.json, 1_Pooling/, 2_Dense/
              with encoder/ they make the bundle a sentence-transformers model; its input is a
              text with the marker before and behind the focus (`mel.encoder.pretrained` writes them)
index/        of the entities' embeddings
qids.npy, languages.npy, titles.npy, title_ends.npy
              the QID, language and title of each row of the index
calibration.json
              where the bundle was calibrated: what turns scores into probabilities, and thresholds
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from mel.artifacts import Artifact, open_artifact, publish
from mel.corpora.kb import KnowledgeBase, read_entities
from mel.encoder import pretrained
from mel.encoder.config import EncoderConfig
from mel.retrieval.index import Index, IndexKind, open_index, publish_index
from mel.text.tokenizer import MARKER, Tokenizer
from mel.training.checkpoint import Checkpoint

KIND = "bundle"
CALIBRATION = "calibration.json"


class Titles:
    """The title of each of E rows, held as one block of UTF-8: millions of Python strings would not fit."""

    def __init__(self, bytes_T: np.ndarray, ends_E: np.ndarray):
        self._bytes_T, self._ends_E = bytes_T, ends_E

    def __getitem__(self, row: int) -> str:
        start = self._ends_E[row - 1] if row else 0
        return self._bytes_T[start : self._ends_E[row]].tobytes().decode("utf-8")

    @classmethod
    def of(cls, titles: Iterable[str]) -> Titles:
        encoded = [title.encode("utf-8") for title in titles]
        ends_E = np.cumsum([len(title) for title in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends_E)

    @classmethod
    def read(cls, folder: pathlib.Path) -> Titles:
        return cls(*(np.load(folder / name, mmap_mode="r") for name in ("titles.npy", "title_ends.npy")))

    def write(self, folder: pathlib.Path) -> None:
        np.save(folder / "titles.npy", self._bytes_T)
        np.save(folder / "title_ends.npy", self._ends_E)


@dataclasses.dataclass(frozen=True, eq=False)
class Bundle:
    """A linker's parts.

    Attributes:
      tokenizer, max_tokens, title_in_window: how a mention becomes a row.
      encoder_config, params: how a row becomes an embedding.
      index: finds rows near an embedding.
      kb: the QID and language of each row.
      titles: the title of each row.
      calibration: the values of its calibration, None where it has none.
    """

    tokenizer: Tokenizer
    max_tokens: int
    title_in_window: bool
    encoder_config: EncoderConfig
    params: Any
    index: Index
    kb: KnowledgeBase
    titles: Titles
    calibration: Mapping[str, Any] | None = None


def publish_bundle(
    path: str | os.PathLike,
    checkpoint: Checkpoint,
    kb: Artifact,
    tokenizer: Artifact,
    embeddings: Artifact,
    index: IndexKind,
    max_tokens: int,
    title_in_window: bool,
    calibrate: Callable[[Index], Mapping[str, Any]] | None = None,
    config: Any = None,
) -> Artifact:
    """Publishes a bundle.

    Args:
      path: where.
      checkpoint: the encoder.
      kb: the entities.
      tokenizer: what their rows and the mentions' were made with.
      embeddings: of the entities, by the checkpoint.
      index: the kind that is built over them.
      max_tokens: of a mention's row.
      title_in_window: whether the title of the page is in it.
      calibrate: makes the values of a calibration from answers of the bundle's own index.
      config: the config that made it.

    Raises:
      MelError: there is one already, or the index cannot be built.
    """
    inputs = {"checkpoint": checkpoint.artifact, "kb": kb, "tokenizer": tokenizer, "embeddings": embeddings}
    with publish(path, KIND, config) as draft:
        for name, artifact in inputs.items():
            draft.reads(name, artifact)
        draft.facts = {
            "round": checkpoint.artifact.facts["round"],
            "step": checkpoint.step,
            "encoder": checkpoint.encoder_config.to_json(),
            "marker": MARKER,
            "max_tokens": max_tokens,
            "title_in_window": title_in_window,
            "index": index,
            "languages": kb.facts["languages"],
        }
        loaded = Tokenizer.load(tokenizer.path)
        loaded.save(draft / "encoder")
        prompts = {"query": loaded.prefixes.mention, "document": loaded.prefixes.entity}
        encoder = checkpoint.encoder_config, checkpoint.params
        pretrained.save(draft.path, *encoder, transformer="encoder", max_tokens=max_tokens, prompts=prompts)
        publish_index(draft / "index", index, embeddings)
        if calibrate:
            _write_json(draft / CALIBRATION, calibrate(open_index(draft / "index")))
        entities = KnowledgeBase.read(kb.path, kb.facts["languages"])
        np.save(draft / "qids.npy", entities.qids_E)
        np.save(draft / "languages.npy", entities.languages_E)
        Titles.of(entity.title for entity in read_entities(kb.path)).write(draft.path)
    return open_artifact(path, KIND)


def open_bundle(path: str | os.PathLike) -> Bundle:
    """Opens a published bundle.

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
        encoder_config=EncoderConfig.from_json(facts["encoder"]),
        params=params,
        index=open_index(artifact / "index"),
        kb=KnowledgeBase.read(artifact.path, facts["languages"]),
        titles=Titles.read(artifact.path),
        calibration=read_calibration(artifact),
    )


def read_calibration(bundle: Artifact) -> Mapping[str, Any] | None:
    """The values of a bundle's calibration, None where it has none."""
    return json.loads((bundle / CALIBRATION).read_bytes()) if CALIBRATION in bundle.files else None


def _write_json(path: pathlib.Path, value: Mapping[str, Any] | list) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")
