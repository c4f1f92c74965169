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

import numpy as np
from absl import logging

from mel.artifacts import START, Artifact, Workdir, exists, open_artifact, require_settings
from mel.bin.launch import launch
from mel.config import REQUIRED, flag, group
from mel.corpora.kb import KnowledgeBase
from mel.corpora.mentions import KIND, surface_forms
from mel.cost import record_cost
from mel.encoder.backend import ComputeConfig, keep_compiled
from mel.locks import claim
from mel.progress import Progress
from mel.retrieval import mining
from mel.retrieval.index import IndexKind, publish_or_open_index
from mel.shards.datasets import RowSet, open_rows
from mel.shards.negatives import publish_negatives
from mel.shards.permutation import fold
from mel.shards.selection import require_mentions
from mel.systems.trained import Trained
from mel.training.checkpoint import open_checkpoint
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
        return
    mining.require_entities(KnowledgeBase.read(kb.path, kb.facts["languages"]), config.negatives_per_mention)
    rows = inputs["mention_tokens"].facts["rows"]
    with claim(path), record_cost(work.path, f"mine round {config.round}", mentions=rows):
        rows_NK, made_from = (
            _mine(config, work, inputs) if config.negatives == "hard" else _draw(config, work, kb, inputs)
        )
        publish_negatives(path, rows_NK, inputs | made_from, {"settings": settings})
    logging.info("Published %s", path)


def _mine(config: Config, work: Workdir, tokens: dict[str, Artifact]) -> tuple[np.ndarray, dict[str, Artifact]]:
    """The nearest wrong entities by the round's checkpoint."""
    keep_compiled(config.compute.compilation_cache)
    trained = Trained(work, config.round, open_checkpoint(work, config.round, tokens), config.compute.precision)
    mentions, entities = trained.mentions, trained.entities
    _, mentions_ND = trained.mention_embeddings
    index_path = work.round(config.round).index
    artifact, index = publish_or_open_index(index_path, config.index, trained.entity_embeddings[0])
    twins = mining.Twins(entities.rows.twins(), mentions.entity_rows_N)
    progress = Progress("mining", len(mentions), "mentions")
    rows_NK = mining.mine(
        index, mentions_ND, mentions.entities_N, entities.entities_N, config.negatives_per_mention, config.pool,
        config.seed, config.round - START, twins, progress.add,
    )  # fmt: skip
    progress.close()
    return rows_NK, {"checkpoint": trained.checkpoint.artifact, "index": artifact}


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
