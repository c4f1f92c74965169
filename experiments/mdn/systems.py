"""Evaluates every system on the rounds of one seed or more; writes the tables of README.md, and rounds.svg.

Each working directory holds what mel-run-rounds made of one seed, all of the same data and recipe.
The first is tabulated in full. What is evaluated already is not evaluated again.

  python -m experiments.mdn.systems --workdir=W,W1 --clusters=pages.tsv
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
from collections.abc import Sequence

from absl import logging

from experiments.curves import drawing, spread, write_results
from experiments.programs import launch
from mel.artifacts import START, Workdir
from mel.cost import read_cost
from mel.evaluation.breakdowns import IN_TRAINING
from mel.reports.comparison import comparison_table, differences_to_first, read_compared
from mel.reports.evaluate import EvaluationConfig, evaluate
from mel.reports.report import Report, open_report, open_rounds, table
from mel.systems.system import SystemConfig
from mel.types import MelError

EXPERIMENT = pathlib.Path(__file__).resolve().parent
ALIAS_TABLE = "alias_table"  # the report that mel-run-rounds makes
CONTEXTS = {"context_weight": 0.2}
# Reports and the settings of mel-evaluate that they are made with; the round is the last where none is given.
BASELINES = {
    "alias-table-language": {"model": "alias_table_language"},
    "alias-table-names": {"model": "alias_table_names"},
    "string-similarity": {"model": "string_similarity"},
    "olpeat-start": {"model": "olpeat_all_languages", "round": START},
    "olpeat": {"model": "olpeat_all_languages"},
}
ENCODERS = {
    "contexts": {"model": "checkpoint", **CONTEXTS},
    "fusion": {"model": "fusion"},
    "fusion-contexts": {"model": "fusion", **CONTEXTS},
}
STAGES = {"prepare": "preparing data", "train": "training", "mine": "mining", "evaluate": "evaluation"}
GROUPS = {"all": "o", "ambiguous": "s", "unseen": "D"}  # with its marker in the plot


def evaluate_all(work: Workdir, rounds: Sequence[Report], clusters: str = "") -> None:
    """Publishes a report of every system that needs no training of its own, compared with the last round."""
    last = rounds[-1]
    against = ALIAS_TABLE, last["name"]
    shared = {"workdir": str(work.path), "dataset": last["dataset"], "clusters": clusters, "against": against}
    for name, own in (BASELINES | ENCODERS).items():
        logging.info("%s: %s", work.path, name)
        config = EvaluationConfig(name=name, **shared, system=SystemConfig(**{"round": last["round"]} | own))
        evaluate(config)


def about(report: Report) -> str:
    """Of what data and which seed the tables are."""
    return (
        f"{report['dataset']}; seed {report['seed']}; every figure is a share of all {report['mentions']:,} mentions."
    )


def by_language(reports: Sequence[Report]) -> list[str]:
    """R@1 of each report in each language."""
    languages = reports[0]["by_language"]
    rows = [["mentions", *(f"{scores['mentions']:,}" for scores in languages.values()), ""]]
    for report in reports:
        scores = [*report["by_language"].values(), report["macro"]]
        rows.append([report["name"], *(f"{score['r@1']:.3f}" for score in scores)])
    return table(["R@1", *languages, "macro"], rows)


def by_seed(reports: dict[str, list[Report]]) -> list[str]:
    """R@1 of each system at each seed, over all mentions and ambiguous ones."""
    seeds = [str(report["seed"]) for report in next(iter(reports.values()))]
    rows = []
    for (name, of_seeds), group in itertools.product(reports.items(), ("all", "ambiguous")):
        values = [r_at_1(report, group) for report in of_seeds]
        rows.append([f"{name}, {group}", *(f"{value:.3f}" for value in values), spread(values)])
    return table(["R@1", *(f"seed {seed}" for seed in seeds), "mean"], rows)


def costs(work: Workdir) -> list[str]:
    """Minutes and memory of each kind of stage."""
    rows = []
    for kind, label in STAGES.items():
        of_kind = [cost for cost in read_cost(work.path) if cost["stage"].split()[0] == kind]
        if of_kind:
            minutes = sum(cost["seconds"] for cost in of_kind) / 60
            peak = max(cost["peak_memory_mb"] for cost in of_kind) / 1000
            rows.append([f"{label}, {of_kind[0]['hardware']}", f"{minutes:.1f}", f"{peak:.1f}"])
    return table(["cost", "minutes", "peak memory, GB"], rows)


def r_at_1(report: Report, group: str) -> float:
    """Over all mentions, or of surface forms that are "ambiguous" or "unseen" in training."""
    return (report["micro"] if group == "all" else report["breakdowns"][IN_TRAINING][group])["r@1"]


def draw(seeds: Sequence[Sequence[Report]], alias_table: Report, path: pathlib.Path) -> None:
    """R@1 by round, a line a group of mentions and seed; dotted, the alias table's."""
    with drawing(path, 6.4) as figure:
        axes = figure.add_subplot()
        for number, (group, marker) in enumerate(GROUPS.items()):
            look = {"color": f"C{number}", "markersize": 4}
            for rounds in seeds:
                label = f"encoder, {group}" if rounds is seeds[0] else None
                axes.plot([r_at_1(report, group) for report in rounds], marker=marker, label=label, **look)
            if value := r_at_1(alias_table, group):  # it answers no name that it never saw
                axes.axhline(value, linestyle=":", label=f"alias table, {group}", **look)
        axes.set(xlabel="round", ylabel="R@1")
        figure.legend(loc="outside right center", frameon=False)


def tabulate(works: Sequence[Workdir], readme: pathlib.Path, clusters: str = "") -> None:
    """Evaluates what is not evaluated yet, and writes the results section of a page and rounds.svg beside it.

    Args:
      works: a working directory a seed.
      readme: the page.
      clusters: file of what is drawn together, as --clusters of mel-run-rounds.

    Raises:
      MelError: a working directory has no finished round, or other data or rounds than the first.
    """
    first, rounds = works[0], [open_rounds(work) for work in works]
    for work, found in zip(works, rounds):
        if not found:
            raise MelError(f"--workdir={work.path} holds no evaluated round: run mel-run-rounds first.")
    alias_table, names = open_report(first.report(ALIAS_TABLE)), [report["name"] for report in rounds[0]]
    for work, found in zip(works[1:], rounds[1:]):
        if open_report(work.report(ALIAS_TABLE)) != alias_table or len(found) != len(names):
            raise MelError(f"{work.path} has other data or another number of rounds than {first.path}.")
    for work, found in zip(works, rounds):
        evaluate_all(work, found, clusters)
    shown = [ALIAS_TABLE, *BASELINES, *names, *ENCODERS]
    reports, differences = differences_to_first([read_compared(first.report(name)) for name in shown])
    of_seeds = {name: [open_report(work.report(name)) for work in works] for name in (names[-1], *ENCODERS)}
    draw(rounds, alias_table, readme.parent / "rounds.svg")
    parts = [about(rounds[0][-1]), comparison_table(reports, differences).splitlines()]
    parts += [by_language([alias_table, *(some[0] for some in of_seeds.values())])]
    parts += [by_seed(of_seeds)] if len(works) > 1 else []
    write_results(readme, [*parts, costs(first), "![R@1 by round](rounds.svg)"])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workdir", required=True, help="of each seed, separated by commas")
    options.add_argument("--clusters", default="", help="which documents are drawn together, as the rounds had it")
    chosen = options.parse_args()
    tabulate([Workdir(path) for path in chosen.workdir.split(",")], EXPERIMENT / "README.md", chosen.clusters)


if __name__ == "__main__":
    launch(main)
