"""Mines hard negatives with the checkpoint of one round, for the next round.

Reads   rounds/K/checkpoint, the token shards and the KB. Negatives that need no encoder are drawn
        from the KB (--negatives=random), from the golds of all training mentions (by_frequency), or
        from what the mention's surface form is linked to elsewhere in training (same_surface).
Writes  rounds/K/embeddings of all entities and training mentions, rounds/K/index (serialized), and
        rounds/K+1/negatives: entity rows, never one with the mention's gold QID.

ScaNN builds another index each time, so what is published is kept and never built again; with
--index=exact two runs are equal byte for byte.

Example:
  mel-mine-negatives --workdir=run --round=0 --negatives_per_mention=3
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np
import orjson
from absl import logging

from mel.artifacts import START, Artifact, Workdir, exists, open_artifact, require_settings
from mel.bin.launch import launch
from mel.config import REQUIRED, flag, group
from mel.corpora.kb import KnowledgeBase
from mel.cost import record_cost
from mel.encoder.backend import CompilationConfig, keep_compiled
from mel.progress import Progress
from mel.retrieval import mining
from mel.retrieval.embeddings import publish_or_open
from mel.retrieval.index import open_index, publish_index
from mel.shards.datasets import RowSet, open_rows
from mel.shards.negatives import publish_negatives
from mel.training.checkpoint import open_checkpoint
from mel.types import MelError

Negatives = Literal["hard", "random", "by_frequency", "same_surface"]


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag(REQUIRED, "Folder that the rounds are in.")
    round: int = flag(0, "Round whose checkpoint mines; -1 is the untrained encoder.", driven=True)
    negatives: Negatives = flag("hard", "Mine near wrong entities, or draw wrong ones without an encoder.", driven=True)
    index: Literal["exact", "scann"] = flag("scann", "How neighbours are searched.")
    negatives_per_mention: int = flag(3, "Hard negatives of each mention.")
    pool: int = flag(12, "Draw them from so many nearest wrong entities.")
    seed: int = flag(0, "Of the draw.")
    compute: CompilationConfig = group(CompilationConfig)


def main(config: Config) -> None:
    """Publishes the negatives of round `config.round + 1`."""
    _check(config)
    work = Workdir(config.workdir)
    path = work.round(config.round + 1).negatives
    settings = _settings(config)
    kb = open_artifact(work.kb, "kb")
    inputs = {
        "entity_tokens": open_artifact(work.entity_tokens, "tokens", {"kb": kb}),
        "mention_tokens": open_artifact(work.mention_tokens("train"), "tokens", {"kb": kb}),
    }
    if exists(path):
        require_settings(open_artifact(path, "negatives", inputs), settings)
        logging.info("The negatives of round %d are published already: %s", config.round + 1, path)
        return
    entities, mentions = (open_rows(tokens, work.cache(tokens)) for tokens in inputs.values())
    with record_cost(work.path, f"mine round {config.round}", mentions=len(mentions)):
        if config.negatives == "hard":
            rows_NK, found = _mine(config, work, inputs, entities, mentions)
        else:
            rows_NK, found = _draw(config, work, kb, inputs["mention_tokens"], entities, mentions)
        publish_negatives(path, rows_NK, inputs | found, {"settings": settings})
    logging.info("Published %s", path)


def _mine(
    config: Config, work: Workdir, tokens: dict[str, Artifact], entities: RowSet, mentions: RowSet
) -> tuple[np.ndarray, dict[str, Artifact]]:
    keep_compiled(config.compute.compilation_cache)
    this = work.round(config.round)
    checkpoint = open_checkpoint(work, config.round, tokens)
    _, mentions_ND = publish_or_open(
        this.mention_embeddings,
        checkpoint.artifact,
        tokens["mention_tokens"],
        checkpoint.encoder_config,
        checkpoint.params,
        mentions.rows,
    )
    embeddings, _ = publish_or_open(
        this.entity_embeddings,
        checkpoint.artifact,
        tokens["entity_tokens"],
        checkpoint.encoder_config,
        checkpoint.params,
        entities.rows,
    )
    if not exists(this.index):
        publish_index(this.index, config.index, embeddings)
    if (kind := open_artifact(this.index, "index").facts["kind"]) != config.index:
        raise MelError(f"{this.index} was built with --index={kind}, not {config.index}: delete it to build it again.")
    index = open_index(this.index, embeddings)
    progress = Progress("mining", len(mentions), "mentions")
    rows_NK = mining.mine(
        index, mentions_ND, mentions.qids_N, entities.qids_N, config.negatives_per_mention, config.pool,
        config.seed, progress.add,
    )  # fmt: skip
    progress.close()
    return rows_NK, {"checkpoint": checkpoint.artifact, "index": open_artifact(this.index, "index")}


def _draw(
    config: Config, work: Workdir, kb: Artifact, mention_tokens: Artifact, entities: RowSet, mentions: RowSet
) -> tuple[np.ndarray, dict[str, Artifact]]:
    draw = (config.negatives_per_mention, config.seed)
    if config.negatives == "random":
        return mining.random_negatives(mentions.qids_N, entities.qids_N, *draw), {}
    if config.negatives == "by_frequency":
        return mining.negatives_by_frequency(mentions.qids_N, mentions.entity_rows_N, entities.qids_N, *draw), {}
    published = open_artifact(work.mentions("train"), "mentions", {"kb": kb})
    languages_N = np.asarray(mention_tokens.facts["languages"])[mentions.languages_N]
    kb_rows = KnowledgeBase.read(kb.path, kb.facts["languages"])
    rows_NK = mining.same_surface_negatives(surface_forms(published), mentions.qids_N, languages_N, kb_rows, *draw)
    return rows_NK, {"mentions": published}


def surface_forms(mentions: Artifact) -> Iterator[str]:
    """Of all mentions, in the order of their token rows."""
    for language in mentions.facts["languages"]:
        with open(mentions / f"{language}.jsonl", "rb") as file:
            yield from (orjson.loads(line)["surface_form"] for line in file)


def _settings(config: Config) -> dict:
    names = ("negatives", "index", "negatives_per_mention", "pool", "seed")
    return {name: getattr(config, name) for name in names}


def _check(config: Config) -> None:
    if config.round < START:
        raise MelError(f"--round={config.round} is not a round: -1 is the untrained encoder, 0 the first round.")
    if not 0 < config.negatives_per_mention <= config.pool:
        raise MelError(
            f"--negatives_per_mention={config.negatives_per_mention} is not between 1 and --pool={config.pool}."
        )


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
