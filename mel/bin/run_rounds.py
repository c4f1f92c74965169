"""Runs all rounds: train, mine, train, ..., and evaluates every one of them.

Each stage is what its own binary does, with the same flags: mel-train, mel-mine-negatives and
mel-evaluate. What is published is skipped, so the same command goes on after any crash and ends
with the same report. The last report compares the alias table and all rounds, as a table and as a page.
Mining searches as --index says, and evaluation as --evaluation_index does; both use one index where both are ScaNN's.
On several machines (see mel-train) all train, and the first one does the rest.

Example:
  mel-run-rounds --workdir=run --flagfile=experiments/mdn/run_rounds.flags
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

from absl import logging

from mel.artifacts import START, Workdir, exists, open_artifact
from mel.bin import mine_negatives, train
from mel.bin.launch import launch
from mel.config import REQUIRED, flag, group
from mel.corpora.kb import KnowledgeBase
from mel.reports.board import write_round
from mel.reports.evaluate import EvaluationConfig, evaluate
from mel.retrieval.index import IndexKind
from mel.retrieval.mining import Negatives, require_entities
from mel.systems.system import Model, SystemConfig
from mel.systems.trained import LAST
from mel.training.hosts import join_hosts, on_lead


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag(REQUIRED, "Folder that mel-prepare-data published into.")
    first_negatives: Literal["in_batch", Negatives] = flag(
        "in_batch", "Negatives of round 0: the batch's other entities only, or drawn or mined ones as well."
    )
    evaluate_on: Literal["mewsli", "held_out", "own"] = flag("mewsli", "Split that every round is evaluated on.")
    evaluation_index: IndexKind = flag("exact", "How neighbours are searched where a round is evaluated.")
    dataset: str = flag("", "What the reports call the data.")
    clusters: str = flag("", "File of lines document, tab, cluster: translations of one page are drawn together.")
    train: train.Config = group(train.Config)
    mine: mine_negatives.Config = group(mine_negatives.Config)


def main(config: Config) -> None:
    """Runs what is not published yet, and prints the comparison."""
    join_hosts()
    if "scann" in (config.mine.index, config.evaluation_index):
        logging.info(
            "ScaNN builds another index each time: killed, this run goes on and ends the same, bit for bit, but a "
            "second one from the beginning ends a little otherwise. --index=exact makes both equal, with "
            "--evaluation_index=exact."
        )
    work = Workdir(config.workdir)
    if config.train.rounds > 1 or config.first_negatives != "in_batch":  # known now, needed after hours
        kb = open_artifact(work.kb, "kb")
        require_entities(KnowledgeBase.read(kb.path, kb.facts["languages"]), config.mine.negatives_per_mention)
    names = [_evaluate(config, "alias_table", "alias_table", ())]
    for number in range(config.train.rounds):
        if number or config.first_negatives != "in_batch":
            _mine(config, number)
        logging.info("Round %d of %d", number, config.train.rounds)
        train.main(dataclasses.replace(config.train, round=number))
        is_new = not exists(work.report(f"round-{number}"))
        names.append(_evaluate(config, f"round-{number}", "checkpoint", tuple(names), number))
        if is_new:
            last_step = (number + 1) * config.train.steps_per_round
            on_lead(f"TensorBoard of round {number}", functools.partial(write_round, work, number, last_step))


def _mine(config: Config, number: int) -> None:
    """Makes the negatives of round `number`, with the checkpoint of the round before."""
    kind = "hard" if number else config.first_negatives
    if number == 0 and kind == "hard":
        train.main(dataclasses.replace(config.train, round=START))
    mining = dataclasses.replace(config.mine, round=number - 1, negatives=kind)
    on_lead(f"mining for round {number}", lambda: mine_negatives.main(mining))


def _evaluate(config: Config, name: str, model: Model, against: tuple[str, ...], number: int = LAST) -> str:
    index = config.evaluation_index if model == "checkpoint" else "exact"
    system = SystemConfig(model=model, round=number, index=index, rows_a_shard=config.mine.rows_a_shard)
    evaluation = EvaluationConfig(
        workdir=config.workdir, name=name, system=system, split=config.evaluate_on,
        dataset=config.dataset, against=against, clusters=config.clusters, compute=config.train.compute,
    )  # fmt: skip
    on_lead(f"evaluation of {name}", lambda: print(evaluate(evaluation)))
    return name


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
