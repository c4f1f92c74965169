"""A round's checkpoint as whoever answers with it needs it: its encoder, embeddings and indexes."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np

from mel.artifacts import START, Artifact, Workdir, exists, open_artifact, recorded
from mel.corpora.kb import KnowledgeBase
from mel.encoder.backend import Precision
from mel.encoder.embed import Encoder
from mel.evaluation.contexts import Contexts, known_entities
from mel.retrieval import embeddings, index
from mel.retrieval.approximate import ScannSettings
from mel.retrieval.embeddings import publish_or_open
from mel.retrieval.exact import ExactIndex
from mel.retrieval.index import Index, IndexKind, measure_recall, publish_or_open_index
from mel.retrieval.probes import Probes, spread
from mel.shards.datasets import RowSet, open_rows, open_twins
from mel.shards.rows import TokenRows
from mel.shards.selection import require_mentions
from mel.training.checkpoint import Checkpoint, find_checkpoint, open_checkpoint
from mel.types import MelError

LAST = START - 1  # the round that was trained last


class Trained:
    """The checkpoint of a round; embeddings and indexes that nobody needed yet are published when asked for.

    Nothing is read before it is asked for.

    Args:
      work: the working directory.
      number: the round.
      precision: of the encoder.
      inputs: artefacts that it must have been trained on, by name.
      rows_a_shard: rows in one tree of a ScaNN index that is built, at most; 0 for as many as memory allows.

    Attributes:
      round: its number.
      artifact: its checkpoint.
      start: the checkpoint before training.

    Raises:
      MelError: there is no checkpoint, or it was trained on other inputs.
    """

    def __init__(
        self, work: Workdir, number: int, precision: Precision = "auto", inputs: dict[str, Artifact] | None = None,
        rows_a_shard: int = 0,
    ):  # fmt: skip
        if rows_a_shard < 0:
            raise MelError(f"--rows_a_shard={rows_a_shard} must not be below 0, which is as many as memory allows.")
        self.round, self._work, self._inputs = number, work, inputs
        self._precision: Precision = precision
        self._scann = ScannSettings(rows_a_shard=rows_a_shard)
        self._indexes: dict[tuple[str, IndexKind], tuple[Artifact, Index]] = {}
        self.artifact, self.start = find_checkpoint(work, number, inputs)

    @functools.cached_property
    def checkpoint(self) -> Checkpoint:
        """With its parameters."""
        return open_checkpoint(self._work, self.round, self._inputs)

    @functools.cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.checkpoint.encoder_config, self.checkpoint.params, self._precision)

    @functools.cached_property
    def entities(self) -> RowSet:
        """The rows of the knowledge base."""
        return open_rows(self._entity_tokens, self._work.cache(self._entity_tokens))

    @functools.cached_property
    def twins(self) -> np.ndarray:
        """The first row of `entities` that reads like each."""
        return open_twins(self._entity_tokens, self._work.twins(self._entity_tokens), self.entities.rows)

    @functools.cached_property
    def mentions(self) -> RowSet:
        """All training mentions."""
        return open_rows(self._mention_tokens, self._work.cache(self._mention_tokens))

    @functools.cached_property
    def entity_embeddings(self) -> tuple[Artifact, np.ndarray]:
        """Of `entities`, float32 [E, D], mapped into memory."""
        path, tokens = self._work.round(self.round).entity_embeddings, self._entity_tokens
        return publish_or_open(path, self.artifact, tokens, lambda: (self.encoder, self.entities.rows))

    @functools.cached_property
    def mention_embeddings(self) -> tuple[Artifact, np.ndarray]:
        """Of `mentions`, float32 [M, D], mapped into memory."""
        path, tokens = self._work.round(self.round).mention_embeddings, self._mention_tokens
        return publish_or_open(path, self.artifact, tokens, lambda: (self.encoder, self.mentions.rows))

    def entity_index(self, kind: IndexKind) -> tuple[Artifact, Index]:
        """An index over the entities, and what was published of it: of an exact one the embeddings."""
        return self._index("entities", kind)

    def mention_index(self, kind: IndexKind) -> tuple[Artifact, Index]:
        """The same over the training mentions."""
        return self._index("mentions", kind)

    def index_recall(self, kind: IndexKind, rows: TokenRows, what: str, depths: dict[str, int]) -> dict[str, Any]:
        """How much of what is nearest to some mentions the indexes find; nothing where they find all of it.

        Args:
          kind: of the indexes.
          rows: the mentions that are searched for.
          what: what they are, in the plural ("training mentions").
          depths: how many rows each index is asked for: "entities", and "mentions" where these are searched.

        Returns:
          what `mel.retrieval.probes.stated` says of each.
        """
        if kind == "exact" or not len(rows):
            return {}
        probes = self._probes(rows, what)
        return {
            over: measure_recall(self._index(over, kind)[1], self._embeddings(over)[1], probes, depth)
            for over, depth in depths.items()
        }

    def _embeddings(self, over: str) -> tuple[Artifact, np.ndarray]:
        return self.entity_embeddings if over == "entities" else self.mention_embeddings

    def _index(self, over: str, kind: IndexKind) -> tuple[Artifact, Index]:
        """The index over "entities" or "mentions", opened once."""
        if (over, kind) not in self._indexes:
            made, embeddings_ND = self._embeddings(over)
            if kind == "exact":
                self._indexes[over, kind] = made, ExactIndex(embeddings_ND)
            else:
                this = self._work.round(self.round)
                path = this.index if over == "entities" else this.mention_index
                self._indexes[over, kind] = publish_or_open_index(path, kind, made, self._scann, self.training_probes)
        return self._indexes[over, kind]

    def training_probes(self) -> Probes | None:
        """Some training mentions, to try an index with; None where there are none."""
        tokens = self._work.mention_tokens("train")
        if not exists(tokens) or not open_artifact(tokens, "tokens", reads=()).facts["rows"]:
            return None
        return self._probes(self.mentions.rows, "training mentions")

    def _probes(self, rows: TokenRows, what: str) -> Probes:
        return Probes(self.encoder.embed(rows.take(spread(len(rows)))), what)

    def contexts(self, kind: IndexKind, kb: KnowledgeBase, weight: float) -> Contexts:
        """The training mentions, to be heard beside the descriptions of `kb`."""
        entities_M = known_entities(self.mentions.entities_N, kb)
        return Contexts(self.mention_index(kind)[1], entities_M, weight, self.checkpoint.logit_scale)

    def entity_digests(self, kind: IndexKind) -> dict[str, str]:
        """The digests of the embeddings, and of the index where its answers depend on its building.

        What was published before says so in its manifest, even if its files were removed since: nothing is opened.
        """
        this = self._work.round(self.round)
        made = self._recorded(this.entity_embeddings, self._entity_tokens) or self.entity_embeddings[0]
        if kind == "exact":
            return {"entity_embeddings": made.digest}
        built = _recorded_index(this.index, kind, made) or self.entity_index(kind)[0]
        return {"entity_embeddings": made.digest, "index": built.digest}

    def mention_digests(self, kind: IndexKind) -> dict[str, str]:
        """The same of the training mentions."""
        this = self._work.round(self.round)
        made = self._recorded(this.mention_embeddings, self._mention_tokens) or self.mention_embeddings[0]
        if kind == "exact":
            return {"mention_embeddings": made.digest}
        built = _recorded_index(this.mention_index, kind, made) or self.mention_index(kind)[0]
        return {"mention_embeddings": made.digest, "mention_index": built.digest}

    def _recorded(self, path: pathlib.Path, tokens: Artifact) -> Artifact | None:
        return recorded(path, embeddings.KIND, {"checkpoint": self.artifact, "tokens": tokens})

    @functools.cached_property
    def _entity_tokens(self) -> Artifact:
        return open_artifact(self._work.entity_tokens, "tokens")

    @functools.cached_property
    def _mention_tokens(self) -> Artifact:
        tokens = open_artifact(self._work.mention_tokens("train"), "tokens")
        require_mentions(tokens)
        return tokens


def _recorded_index(path: pathlib.Path, kind: IndexKind, made: Artifact) -> Artifact | None:
    """What was published of an index of this kind; None where there is none, or one that opening it will refuse."""
    found = recorded(path, index.KIND, {"embeddings": made})
    return found if found and found.facts["kind"] == kind else None


def open_trained(work: Workdir, number: int, precision: Precision = "auto", rows_a_shard: int = 0) -> Trained:
    """Opens the checkpoint of a round.

    Args:
      work: the working directory.
      number: the round, or LAST.
      precision: of the encoder.
      rows_a_shard: see `Trained`.

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
    return Trained(work, number, precision, {"entity_tokens": tokens}, rows_a_shard)
