"""The systems that can be asked, behind one protocol: mentions to a ranking."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from mel.artifacts import Artifact, Workdir, open_artifact
from mel.config import flag
from mel.corpora.alias_table import AliasTable
from mel.corpora.kb import KnowledgeBase
from mel.encoder.backend import Precision
from mel.encoder.embed import Encoder
from mel.evaluation.contexts import NEAREST
from mel.evaluation.evaluation_set import EvaluationSet
from mel.evaluation.evidence import Evidence
from mel.evaluation.fusion import fuse
from mel.evaluation.ranking import DEPTH, Ranking
from mel.retrieval.index import IndexKind, first_depth
from mel.systems import alias_tables
from mel.systems.fusion import fuse_cross_fitted
from mel.systems.olpeat import rank_by_linked_aliases, rank_by_olpeat
from mel.systems.trained import LAST, Trained, open_trained
from mel.text.tokenizer import Tokenizer
from mel.types import MelError

FITTED = -1.0

Model = Literal[
    "checkpoint", "alias_table", "alias_table_language", "alias_table_names", "string_similarity", "olpeat",
    "olpeat_all_languages", "fusion",
]  # fmt: skip
WITH_NAMES = ("alias_table_names", "string_similarity", "olpeat", "fusion")  # these know titles, too
WITH_SCORES = ("checkpoint", "fusion")  # the scores of these are made for calibration


@dataclasses.dataclass(frozen=True)
class SystemConfig:
    """Which system answers."""

    model: Model = flag("checkpoint", "What is evaluated.")
    round: int = flag(LAST, "Round whose checkpoint is evaluated; -1 is the untrained encoder, -2 the last round.")
    index: IndexKind = flag("exact", "How neighbours are searched.")
    context_weight: float = flag(0.0, "Weight of the nearest training mentions beside descriptions; 0 for none.")
    fusion_weight: float = flag(FITTED, "Weight of the prior in a fusion; -1 fits it, two-fold over documents.")
    rows_a_shard: int = flag(0, "Rows in one tree of a ScaNN index, at most; 0 for as many as memory allows.")

    def __post_init__(self):
        if not (self.fusion_weight == FITTED or 0 <= self.fusion_weight < math.inf):
            raise MelError(
                f"--fusion_weight={self.fusion_weight} is no weight: state 0 or more, or {FITTED:g} to fit it."
            )
        if not 0 <= self.context_weight < math.inf:
            raise MelError(f"--context_weight={self.context_weight} is no weight: state 0 or more.")


class System(NamedTuple):
    """Whoever answers.

    Attributes:
      rank: mentions to a ranking, and what was tuned on these mentions, by name.
      facts: what a report says of the system: "round" (None without one), "search", "seed", weights.
      inputs: the digests of what it was made from, by name.
      index_recall: how much of what is nearest to the mentions its indexes find; nothing where they are exact.
    """

    rank: Callable[[EvaluationSet], tuple[Ranking, dict[str, Any]]]
    facts: dict[str, Any]
    inputs: dict[str, str]
    index_recall: Callable[[EvaluationSet], dict[str, Any]] = lambda mentions: {}


def open_system(
    config: SystemConfig, work: Workdir, kb: KnowledgeBase, precision: Precision = "auto"
) -> tuple[System, Callable[[], AliasTable]]:
    """The system that is asked for, and what reads the alias table, once: it tells mentions apart, too.

    Raises:
      MelError: the alias table, or the checkpoint that the system needs, is missing or damaged.
    """
    aliases = open_artifact(work.alias_table, "alias table", {"kb": open_artifact(work.kb, "kb")})
    table = functools.cache(functools.partial(_read_table, aliases, kb, with_titles=config.model in WITH_NAMES))
    match config.model:
        case "alias_table":
            system = _untrained(lambda mentions: alias_tables.rank_by_alias_table(table(), mentions))
        case "alias_table_language":
            system = _untrained(lambda mentions: alias_tables.rank_by_prior(table(), mentions, with_names=False))
        case "alias_table_names":
            system = _untrained(lambda mentions: alias_tables.rank_by_prior(table(), mentions, with_names=True))
        case "string_similarity":
            system = _untrained(lambda mentions: alias_tables.rank_by_similarity(table(), mentions))
        case "olpeat":
            system = _olpeat(rank_by_olpeat, open_trained(work, config.round, precision), work, table)
        case "olpeat_all_languages":
            system = _olpeat(rank_by_linked_aliases, open_trained(work, config.round, precision), work, table)
        case "checkpoint" | "fusion":
            system = _encoder(config, open_trained(work, config.round, precision, config.rows_a_shard), kb, table)
    return system._replace(inputs=system.inputs | {"alias_table": aliases.digest}), table


def _read_table(aliases: Artifact, kb: KnowledgeBase, with_titles: bool) -> AliasTable:
    table = AliasTable.read(aliases.path)
    if with_titles:
        table.add_titles(kb)
    return table


def _untrained(rank: Callable[[EvaluationSet], Ranking]) -> System:
    return System(lambda mentions: (rank(mentions), {}), {"round": None, "search": "exact", "seed": None}, {})


def _olpeat(
    rank_by: Callable[[Encoder, Tokenizer, AliasTable, EvaluationSet], Ranking], trained: Trained, work: Workdir,
    table: Callable[[], AliasTable],
) -> System:  # fmt: skip
    tokenizer = Tokenizer.load(open_artifact(work.tokenizer, "tokenizer").path)

    def rank(mentions: EvaluationSet) -> tuple[Ranking, dict[str, Any]]:
        return rank_by(trained.encoder, tokenizer, table(), mentions), {}

    return System(rank, _facts(trained, "exact"), {"checkpoint": trained.artifact.digest})


def _encoder(config: SystemConfig, trained: Trained, kb: KnowledgeBase, table: Callable[[], AliasTable]) -> System:
    """A round's encoder alone, or with contexts, or fused with the alias table; read when it is asked, not before."""
    inputs = {"checkpoint": trained.artifact.digest, **trained.entity_digests(config.index)}
    facts = _facts(trained, config.index)
    if config.model == "fusion":
        facts["fusion_weight"] = config.fusion_weight
    if config.context_weight:
        facts["context_weight"] = config.context_weight
        inputs |= trained.mention_digests(config.index)
    depths = {"entities": first_depth(DEPTH)} | ({"mentions": NEAREST} if config.context_weight else {})

    def index_recall(mentions: EvaluationSet) -> dict[str, Any]:
        return trained.index_recall(config.index, mentions.rows, "evaluated mentions", depths)

    return System(functools.partial(_rank_by_evidence, config, trained, kb, table), facts, inputs, index_recall)


def _rank_by_evidence(
    config: SystemConfig, trained: Trained, kb: KnowledgeBase, table: Callable[[], AliasTable], mentions: EvaluationSet
) -> tuple[Ranking, dict[str, Any]]:
    evidence = Evidence(
        kb, trained.entity_embeddings[1], trained.entity_index(config.index)[1],
        trained.contexts(config.index, kb, config.context_weight) if config.context_weight else None,
        table() if config.model == "fusion" else None,
    )  # fmt: skip
    queries_QD = trained.encoder.embed(mentions.rows, "mentions")
    ranking = evidence.ranking(queries_QD, "mentions")
    if config.model == "checkpoint":
        return ranking, {}
    pool = evidence.pool(queries_QD, ranking, mentions.lookups, "mentions")
    if config.fusion_weight == FITTED:
        return fuse_cross_fitted(pool, mentions.gold_Q, mentions.clusters)
    return fuse(pool, np.full(len(mentions), config.fusion_weight)), {}


def _facts(trained: Trained, search: IndexKind) -> dict[str, Any]:
    settings = trained.artifact.facts["settings"]
    return {"round": trained.round, "search": search, "seed": settings["seed"]}
