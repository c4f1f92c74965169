"""A round's checkpoint as whoever answers with it needs it: its encoder, embeddings and indexes."""

from __future__ import annotations

import functools

import numpy as np

from mel.artifacts import START, Artifact, Workdir, exists, open_artifact
from mel.corpora.kb import KnowledgeBase
from mel.encoder.backend import Precision
from mel.encoder.embed import Encoder
from mel.evaluation.contexts import Contexts, known_entities
from mel.retrieval.embeddings import publish_or_open
from mel.retrieval.exact import ExactIndex
from mel.retrieval.index import Index, IndexKind, publish_or_open_index
from mel.shards.datasets import RowSet, open_rows
from mel.shards.selection import require_mentions
from mel.training.checkpoint import Checkpoint, open_checkpoint
from mel.types import MelError

LAST = START - 1  # the round that was trained last


class Trained:
    """The checkpoint of a round; embeddings and indexes that nobody needed yet are published when asked for.

    Attributes:
      round: its number.
      checkpoint: as it was published.
    """

    def __init__(self, work: Workdir, number: int, checkpoint: Checkpoint, precision: Precision = "auto"):
        self.round, self.checkpoint = number, checkpoint
        self._work = work
        self._precision: Precision = precision

    @functools.cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.checkpoint.encoder_config, self.checkpoint.params, self._precision)

    @functools.cached_property
    def entities(self) -> RowSet:
        """The rows of the knowledge base."""
        return open_rows(self._entity_tokens, self._work.cache(self._entity_tokens))

    @functools.cached_property
    def mentions(self) -> RowSet:
        """All training mentions."""
        return open_rows(self._mention_tokens, self._work.cache(self._mention_tokens))

    @functools.cached_property
    def entity_embeddings(self) -> tuple[Artifact, np.ndarray]:
        """Of `entities`, float32 [E, D], mapped into memory."""
        path = self._work.round(self.round).entity_embeddings
        return publish_or_open(path, self.checkpoint.artifact, self._entity_tokens, self.encoder, self.entities.rows)

    @functools.cached_property
    def mention_embeddings(self) -> tuple[Artifact, np.ndarray]:
        """Of `mentions`, float32 [M, D], mapped into memory."""
        path = self._work.round(self.round).mention_embeddings
        return publish_or_open(path, self.checkpoint.artifact, self._mention_tokens, self.encoder, self.mentions.rows)

    def entity_index(self, kind: IndexKind) -> tuple[Index, dict[str, str]]:
        """An index over the entities, and the digest of the published one where its answers depend on its building."""
        if kind == "exact":
            return ExactIndex(self.entity_embeddings[1]), {}
        artifact, index = publish_or_open_index(self._work.round(self.round).index, kind, self.entity_embeddings[0])
        return index, {"index": artifact.digest}

    def contexts(self, kind: IndexKind, kb: KnowledgeBase, weight: float) -> tuple[Contexts, dict[str, str]]:
        """The training mentions, to be heard beside the descriptions of `kb`, and digests as of `entity_index`."""
        index, digests = self._mention_index(kind)
        entities_M = known_entities(self.mentions.entities_N, kb)
        return Contexts(index, entities_M, weight, self.checkpoint.logit_scale), digests

    def _mention_index(self, kind: IndexKind) -> tuple[Index, dict[str, str]]:
        """As `entity_index`, over the training mentions."""
        if kind == "exact":
            return ExactIndex(self.mention_embeddings[1]), {}
        path = self._work.round(self.round).mention_index
        artifact, index = publish_or_open_index(path, kind, self.mention_embeddings[0])
        return index, {"mention_index": artifact.digest}

    @functools.cached_property
    def _entity_tokens(self) -> Artifact:
        return open_artifact(self._work.entity_tokens, "tokens")

    @functools.cached_property
    def _mention_tokens(self) -> Artifact:
        tokens = open_artifact(self._work.mention_tokens("train"), "tokens")
        require_mentions(tokens)
        return tokens


def open_trained(work: Workdir, number: int, precision: Precision = "auto") -> Trained:
    """Opens the checkpoint of a round.

    Args:
      work: the working directory.
      number: the round, or LAST.
      precision: of the encoder.

    Raises:
      MelError: there is no such checkpoint, or it was trained on other entity tokens.
    """
    if number == LAST:
        trained = [round_ for round_ in work.rounds() if exists(work.round(round_).checkpoint)]
        number = max(trained, default=0)
    if not exists(work.round(number).checkpoint):
        untrained = ", or ask for --round=-1, the untrained encoder" if exists(work.round(START).checkpoint) else ""
        raise MelError(
            f"Round {number} of {work.path} has no checkpoint: run mel-train --round={number} first{untrained}."
        )
    tokens = open_artifact(work.entity_tokens, "tokens")
    return Trained(work, number, open_checkpoint(work, number, {"entity_tokens": tokens}), precision)
