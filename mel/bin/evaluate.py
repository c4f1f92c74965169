"""Evaluates a checkpoint or the alias table: R@1, R@10, R@100 and MRR, in all, by language, by ambiguity.

Reads   mentions prepared in --workdir (--split), or any Mewsli-9 tree (--mewsli), of languages that
        were not prepared too; kb, alias_table; for a checkpoint rounds/K/checkpoint.
Writes  reports/NAME/report.json and report.md; rounds/K/embeddings/entities where it is missing.
        The report is printed. The same evaluation under the same name is not done again.

Every figure is a share of all mentions: a gold that the KB lacks is a miss.

Examples:
  mel-evaluate --workdir=run --name=alias-table --model=alias_table
  mel-evaluate --workdir=run --name=round-2 --model=checkpoint --round=2
  mel-evaluate --workdir=run --name=news --mewsli=mewsli-9 --languages=de,ja
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import shlex
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from absl import logging

from mel.artifacts import START, Artifact, Workdir, exists, open_artifact
from mel.bin.launch import REQUIRED, flag, launch
from mel.corpora.alias_table import AliasTable
from mel.corpora.kb import KnowledgeBase
from mel.encoder.backend import keep_compiled
from mel.evaluation import report as reports
from mel.evaluation import systems
from mel.evaluation.recall import Ranking
from mel.evaluation.systems import Questions
from mel.retrieval.embeddings import publish_or_open
from mel.retrieval.exact import ExactIndex
from mel.retrieval.index import open_index, publish_index
from mel.shards.datasets import open_rows
from mel.shards.prepare import Windows
from mel.training.checkpoint import Checkpoint, open_checkpoint
from mel.types import MelError

LAST = START - 1  # the round that was trained last


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag(REQUIRED, "Folder that mel-prepare-data published into.")
    name: str = flag(REQUIRED, "Name of the report.")
    model: Literal["checkpoint", "alias_table"] = flag("checkpoint", "What is evaluated.")
    round: int = flag(LAST, "Round whose checkpoint is evaluated; -1 is the untrained encoder, -2 the last round.")
    mewsli: str = flag("", "Mewsli-9 tree to evaluate on; the prepared --split if empty.")
    split: str = flag("mewsli", "Prepared mentions to evaluate on.")
    languages: tuple[str, ...] = flag((), "Languages to evaluate on; all that there are if empty.")
    index: Literal["exact", "scann"] = flag("exact", "How neighbours are searched.")
    dataset: str = flag("", "What the report calls the data.")
    limit: int = flag(0, "Evaluate only the first so many mentions of each language; 0 for all.")
    max_malformed: int = flag(1000, "Most malformed records of --mewsli to skip before stopping.")


class System(NamedTuple):
    """What answers, and what a report says of it."""

    rank: Callable[[Questions], Ranking]
    facts: dict[str, Any]
    inputs: dict[str, str]


class Trained(NamedTuple):
    """The checkpoint of a round and the embeddings of the entities by it."""

    round: int
    checkpoint: Checkpoint
    embeddings: Artifact
    embeddings_ED: np.ndarray


def main(config: Config) -> None:
    """Publishes the report, or finds it published, and prints it."""
    if config.name in ("", "..") or pathlib.Path(config.name).name != config.name:
        raise MelError(f"--name={config.name!r} cannot be the name of a folder: choose letters, digits and hyphens.")
    work = Workdir(config.workdir)
    kb, aliases = open_artifact(work.kb, "kb"), open_artifact(work.alias_table, "alias table")
    qids_E = KnowledgeBase.read(kb.path, kb.facts["languages"]).qids_E
    table = AliasTable.read(aliases.path)
    questions = _questions(config, work)
    system = _alias_table(table) if config.model == "alias_table" else _checkpoint(config, work, qids_E)
    about = {
        "name": config.name,
        "model": config.model,
        **system.facts,
        "dataset": config.dataset,
        "split": pathlib.Path(config.mewsli).name or config.split,
        "languages": list(config.languages),
        "limit": config.limit,
        "command": command(config, system.facts["round"]),
        "inputs": questions.inputs | system.inputs | {"alias_table": aliases.digest, "kb": kb.digest},
    }
    path = work.report(config.name)
    if exists(path):
        report = reports.open_same_report(path, about)
        logging.info("Evaluated already: %s", path)
    else:
        ambiguities = [table.ambiguity(surface_form) for surface_form in questions.surface_forms]
        figures = reports.measure(system.rank(questions), questions.gold_Q, questions.languages, ambiguities, qids_E)
        report = reports.publish_report(path, about | {"dropped": questions.dropped} | figures, config)
        logging.info("Published %s", path)
    print(reports.markdown(report))


def command(config: Config, number: int | None) -> str:
    """The command line that evaluates like this; W and DIR stand for folders, `number` is the round, if any."""
    said = dataclasses.asdict(config) | {"workdir": "W", "round": number}
    if config.mewsli:
        said["mewsli"] = "DIR"
    flags = []
    for field in dataclasses.fields(config):
        value = said[field.name]
        if value not in (None, field.default):
            value = ",".join(value) if isinstance(value, tuple) else str(value)
            flags.append(f"--{field.name}={shlex.quote(value)}")
    return f"mel-evaluate {' '.join(flags)}"


def open_trained(work: Workdir, number: int) -> Trained:
    """Opens the checkpoint of a round; entity embeddings that nobody needed yet are published.

    Args:
      work: the working directory.
      number: the round, or LAST.

    Raises:
      MelError: there is no such checkpoint, or it was trained on other entity tokens.
    """
    if number == LAST:
        number = 0
        while exists(work.round(number + 1).checkpoint):
            number += 1
    if not exists(work.round(number).checkpoint):
        raise MelError(f"Round {number} of {work.path} has no checkpoint: run mel-train --round={number} first.")
    tokens = open_artifact(work.entity_tokens, "tokens")
    keep_compiled(work.compiled)
    checkpoint = open_checkpoint(work.round(number).checkpoint, {"entity_tokens": tokens})
    embeddings, embeddings_ED = publish_or_open(
        work.round(number).entity_embeddings, checkpoint.artifact, tokens,
        checkpoint.encoder_config, checkpoint.params, open_rows(tokens, work.cache(tokens)).rows,
    )  # fmt: skip
    return Trained(number, checkpoint, embeddings, embeddings_ED)


def open_windows(work: Workdir) -> Windows:
    """How the mentions that a checkpoint was trained on were cut."""
    facts = open_artifact(work.mention_tokens("train"), "tokens").facts
    return Windows(work.tokenizer, facts["max_tokens"], facts["title_in_window"])


def _questions(config: Config, work: Workdir) -> Questions:
    if config.mewsli:
        tree = pathlib.Path(config.mewsli)
        return systems.read_tree(tree, config.languages, config.limit, open_windows(work), config.max_malformed)
    mentions = open_artifact(work.mentions(config.split), "mentions")
    tokens = open_artifact(
        work.mention_tokens(config.split), "tokens", {"tokenizer": open_artifact(work.tokenizer, "tokenizer")}
    )
    rows = open_rows(tokens, work.cache(tokens)).rows
    return systems.read_prepared(mentions, tokens, rows, config.languages, config.limit)


def _alias_table(table: AliasTable) -> System:
    facts = {"round": None, "search": "exact", "seed": None}
    return System(functools.partial(systems.rank_by_alias_table, table), facts, {})


def _checkpoint(config: Config, work: Workdir, qids_E: np.ndarray) -> System:
    trained = open_trained(work, config.round)
    inputs = {"checkpoint": trained.checkpoint.artifact.digest, "entity_embeddings": trained.embeddings.digest}
    if config.index == "exact":
        index = ExactIndex(trained.embeddings_ED)
    else:
        published = _scann_index(work.round(trained.round).index, trained.embeddings)
        inputs["index"] = published.digest
        index = open_index(published.path, trained.embeddings)
    settings = trained.checkpoint.artifact.facts["settings"]
    facts = {"round": trained.round, "search": config.index, "seed": settings["seed"]}

    def rank(questions: Questions) -> Ranking:
        return systems.rank_by_checkpoint(trained.checkpoint, questions, index, qids_E)

    return System(rank, facts, inputs)


def _scann_index(path: pathlib.Path, embeddings: Artifact) -> Artifact:
    """The round's ScaNN index, which mining shares: it is built once, because a rebuilt one answers otherwise."""
    if not exists(path):
        publish_index(path, "scann", embeddings)
    published = open_artifact(path, "index")
    if published.facts["kind"] != "scann":
        raise MelError(f"{path} is not a ScaNN index: evaluate with --index=exact, or delete it.")
    return published


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
