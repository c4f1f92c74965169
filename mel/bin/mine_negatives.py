"""Mines hard negatives with the checkpoint of one round, for the next round.

Reads   rounds/K/checkpoint, the token shards and the KB. Negatives that need no encoder are drawn
        from the KB (--negatives=random), from the golds of all training mentions (by_frequency), or
        from what the mention's surface form is linked to elsewhere in training (same_surface).
Writes  rounds/K/embeddings/entities, rounds/K/index (ScaNN's; an exact one is the embeddings), and
        rounds/K+1/negatives: entity rows, never one with the mention's gold QID.

Only the mentions are mined that round K+1 will train on: rounds/start/checkpoint states what decides
them. They are embedded and searched in chunks, and a command that was ended goes on after the last
one. Of the rounds before K the embeddings and indexes are removed then, and whatever needs them makes them
again; --keep_embeddings keeps them.

ScaNN builds another index each time, so what is published is never built again as long as it is there;
with --index=exact two runs are equal byte for byte. An index that does not fit into the memory that is free is
built in shards (--rows_a_shard), and goes on after the last one, too. Its manifest says how much of what is
nearest to training mentions it finds, and that of the negatives how much of what is nearest to these mentions.

Example:
  mel-mine-negatives --workdir=run --round=0 --negatives_per_mention=3
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging

from mel.artifacts import START, Artifact, Workdir, exists, open_artifact, remove_files, require_settings
from mel.bin.launch import launch
from mel.config import REQUIRED, flag, group
from mel.corpora.kb import KnowledgeBase
from mel.corpora.mentions import KIND, surface_forms
from mel.cost import record_cost
from mel.encoder.backend import ComputeConfig, keep_compiled
from mel.locks import claim
from mel.retrieval import mining
from mel.retrieval.chunks import mine_chunks
from mel.retrieval.index import IndexKind, first_depth
from mel.retrieval.probes import spread
from mel.shards.datasets import RowSet, open_rows
from mel.shards.negatives import Negatives, publish_negatives
from mel.shards.permutation import fold
from mel.shards.selection import MentionOrder, require_mentions, usable_mentions
from mel.systems.trained import Trained
from mel.types import MelError

SETTINGS = ("negatives", "index", "negatives_per_mention", "pool", "seed")


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag(REQUIRED, "Folder that the rounds are in.")
    round: int = flag(0, "Round whose checkpoint mines; -1 is the untrained encoder.", driven=True)
    negatives: mining.Negatives = flag(
        "hard", "Mine the nearest wrong entities, or draw some without an encoder.", driven=True
    )
    index: IndexKind = flag("scann", "How neighbours are searched.")
    negatives_per_mention: int = flag(3, "Hard negatives of each mention.")
    pool: int = flag(12, "Draw them from so many nearest wrong entities.")
    seed: int = flag(0, "Of the draw.")
    rows_a_shard: int = flag(0, "Rows in one tree of a ScaNN index, at most; 0 for as many as memory allows.")
    keep_embeddings: bool = flag(False, "Keep the embeddings and indexes of earlier rounds, too.")
    compute: ComputeConfig = group(ComputeConfig)


def main(config: Config) -> None:
    """Publishes the negatives of round `config.round + 1`."""
    _check(config)
    work = Workdir(config.workdir)
    path = work.round(config.round + 1).negatives
    settings = {name: getattr(config, name) for name in SETTINGS}
    kb = open_artifact(work.kb, "kb")
    inputs = {
        "entity_tokens": open_artifact(work.entity_tokens, "tokens", {"kb": kb}),
        "mention_tokens": open_artifact(work.mention_tokens("train"), "tokens", {"kb": kb}),
    }
    require_mentions(inputs["mention_tokens"])
    if exists(path):
        require_settings(open_artifact(path, "negatives", inputs), settings)
        logging.info("The negatives of round %d are published already: %s", config.round + 1, path)
        _clean_up(config, work)
        return
    mining.require_entities(KnowledgeBase.read(kb.path, kb.facts["languages"]), config.negatives_per_mention)
    with claim(path), record_cost(work.path, f"mine round {config.round}") as figures:
        if config.negatives == "hard":
            negatives, made_from, index_recall = _mine(config, work, inputs, settings)
        else:
            rows_NK, made_from = _draw(config, work, kb, inputs)
            negatives, index_recall = Negatives(rows_NK), {}
        facts = {"settings": settings} | ({"index_recall": index_recall} if index_recall else {})
        publish_negatives(path, negatives, inputs | made_from, facts)
        figures["mentions"] = len(negatives)
    logging.info("Published %s", path)
    _clean_up(config, work)


def _mine(
    config: Config, work: Workdir, tokens: dict[str, Artifact], settings: dict[str, object]
) -> tuple[Negatives, dict[str, Artifact], dict[str, Any]]:
    """The nearest wrong entities by the round's checkpoint, of the mentions that the next round trains on.

    Returns:
      them, what they were made from, and the recall of the index, of these mentions.
    """
    keep_compiled(config.compute.compilation_cache)
    trained = Trained(work, config.round, config.compute.precision, tokens, config.rows_a_shard)
    mentions, entities = trained.mentions, trained.entities
    asked_n = _asked(config, trained, tokens["mention_tokens"].facts["languages"])
    artifact, index = trained.entity_index(config.index)
    made_from = {"checkpoint": trained.artifact, "embeddings" if config.index == "exact" else "index": artifact}
    twins = mining.Twins(trained.twins, mentions.entity_rows_N)
    twins = twins._replace(counted=twins.most)  # once, and not for every chunk

    def mine(rows_c: np.ndarray, count: Callable[[int], None]) -> np.ndarray:
        return mining.mine(
            index, trained.encoder.embed(mentions.rows.take(rows_c)), mentions.entities_N[rows_c], entities.entities_N,
            config.negatives_per_mention, config.pool, config.seed, config.round - START,
            twins._replace(gold_rows_Q=mentions.entity_rows_N[rows_c]), rows_c, count,
        )  # fmt: skip

    chunks, lengths_n = work.round(config.round + 1).mining, mentions.rows.lengths_of(asked_n)
    rows_nK = mine_chunks(chunks, asked_n, lengths_n, mine, tokens | made_from, settings)
    some, depth = mentions.rows.take(asked_n[spread(len(asked_n))]), first_depth(mining.deepest(config.pool, twins))
    recall = trained.index_recall(config.index, some, "mined mentions", {"entities": depth})
    return Negatives(rows_nK, asked_n), made_from, recall


def _asked(config: Config, trained: Trained, languages: list[str]) -> np.ndarray:
    """The mentions that the batches of the next round draw."""
    decided, mentions = trained.start.facts["settings"], trained.mentions
    chosen = decided["train_languages"], decided["train_mentions"], decided["seed"]
    order = MentionOrder(usable_mentions(mentions, languages, *chosen), decided["batch_size"], decided["seed"])
    steps = decided["steps_per_round"]
    asked_n = order.asked((config.round + 1) * steps, (config.round + 2) * steps)
    logging.info(
        "Round %d trains on %d of %d mentions: only these are mined.", config.round + 1, len(asked_n), len(mentions)
    )
    return asked_n


def _clean_up(config: Config, work: Workdir) -> None:
    """Deletes what the negatives were put together from, and the embeddings and indexes of earlier rounds."""
    chunks = work.round(config.round + 1).mining
    if chunks.exists():
        with claim(work.round(config.round + 1).negatives):
            shutil.rmtree(chunks)
    if config.keep_embeddings:
        return
    for number in (START, *work.rounds()):
        if number < config.round:
            this = work.round(number)
            for path in (this.entity_embeddings, this.mention_embeddings, this.index, this.mention_index):
                remove_files(path)


def _draw(
    config: Config, work: Workdir, kb: Artifact, tokens: dict[str, Artifact]
) -> tuple[np.ndarray, dict[str, Artifact]]:
    """Wrong entities that need no encoder to be found."""
    entities, mentions = (open_rows(each, work.cache(each)) for each in tokens.values())
    draw = (config.negatives_per_mention, fold(config.seed, config.round - START))
    if config.negatives == "random":
        return mining.random_negatives(mentions.entities_N, entities.entities_N, *draw), {}
    if config.negatives == "by_frequency":
        golds_and_rows = mentions.entities_N, mentions.entity_rows_N
        return mining.negatives_by_frequency(*golds_and_rows, entities.entities_N, *draw), {}
    published = open_artifact(work.mentions("train"), KIND, {"kb": kb})
    return _draw_same_surface(published, tokens["mention_tokens"], mentions, kb, draw), {"mentions": published}


def _draw_same_surface(
    published: Artifact, tokens: Artifact, mentions: RowSet, kb: Artifact, draw: tuple[int, int]
) -> np.ndarray:
    languages_N = np.asarray(tokens.facts["languages"])[mentions.languages_N]
    known = KnowledgeBase.read(kb.path, kb.facts["languages"])
    return mining.same_surface_negatives(surface_forms(published), mentions.entities_N, languages_N, known, *draw)


def _check(config: Config) -> None:
    if config.round < START:
        raise MelError(f"--round={config.round} is not a round: -1 is the untrained encoder, 0 the first round.")
    if config.seed < 0:
        raise MelError(f"--seed={config.seed} must not be below 0.")
    if not 0 < config.negatives_per_mention <= config.pool:
        raise MelError(
            f"--negatives_per_mention={config.negatives_per_mention} is not between 1 and --pool={config.pool}."
        )


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
