"""Several reports in one table, and whether their differences are more than chance.

Two systems answered the same mentions, so the difference of their hits is resampled, not the two
figures apart: what is hard for both cancels out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mel.evaluation import breakdowns, intervals, recall
from mel.reports import published
from mel.reports.report import (
    ALL,
    SEED,
    Evaluation,
    Report,
    all_headings,
    figure,
    open_report,
    read_predictions,
    table,
)
from mel.types import MelError


class Outcomes(NamedTuple):
    """How Q mentions were answered, in the order of their ids.

    Attributes:
      mentions: the id and the gold of each.
      clusters: the document of each, or what it shares with its translations.
      headings: the group of each under every heading, "all" and "language" among them.
      gold_rank_Q: the place of each gold from 0, -1 if absent.
    """

    mentions: list[tuple[str, str]]
    clusters: list[str]
    headings: dict[str, Sequence[str]]
    gold_rank_Q: np.ndarray


class Compared(NamedTuple):
    """A report and how it answered each mention, both read once."""

    report: Report
    outcomes: Outcomes


class Difference(NamedTuple):
    """How much higher R@1 is, and its interval."""

    mentions: int
    mean: float
    interval: intervals.Interval


Differences = dict[str, dict[str, Difference]]  # by heading and group


def read_compared(path: str | os.PathLike, report: Report | None = None) -> Compared:
    """The published report at `path`, and how it answered.

    Args:
      path: its folder.
      report: where it has been read already.

    Raises:
      MelError: it is missing, damaged or old.
    """
    report = report or open_report(path)
    lines = (
        (line["id"], line["gold"], line["cluster"], line["language"], line["groups"], line["rank"])
        for line in read_predictions(path)
    )
    return Compared(report, _outcomes(lines))


def outcomes_of(evaluation: Evaluation) -> Outcomes:
    """How an evaluation answered, before it is published."""
    groups, ranks, clusters = evaluation.groups, evaluation.gold_rank_Q.tolist(), evaluation.mentions.clusters
    by_mention = zip(evaluation.mentions.lines, clusters, ranks, *groups.values(), strict=True)
    return _outcomes(
        (line.mention_id, line.gold, cluster, line.language, dict(zip(groups, names, strict=True)), rank)
        for line, cluster, rank, *names in by_mention
    )


def _outcomes(lines: Iterable[tuple]) -> Outcomes:
    ids, golds, clusters, languages, groups, ranks = map(
        list, zip(*sorted(lines, key=lambda line: line[:2]), strict=True)
    )
    by_heading = {heading: [names[heading] for names in groups] for heading in groups[0]}
    named = list(zip(ids, golds, strict=True))
    return Outcomes(named, clusters, all_headings(languages, by_heading), np.asarray(ranks))


def compare(compared: Sequence[Compared]) -> str:
    """Reports in Markdown: all scores, then differences to the first in each group.

    Raises:
      MelError: see `differences_to_first`.
    """
    reports, differences = differences_to_first(compared)
    return "\n".join([comparison_table(reports, differences), *_differences_table(reports[0]["name"], differences)])


def differences_to_first(compared: Iterable[Compared]) -> tuple[list[Report], dict[str, Differences]]:
    """The reports, the alias table first, each once, and how the others differ from the first, by name.

    Raises:
      MelError: a report was asked other mentions than the first.
    """
    by_name = {each.report["name"]: each for each in compared}
    first, *others = ordered = sorted(by_name.values(), key=lambda each: _place(each.report))
    differences = {}
    for other in others:
        if other.outcomes.mentions != first.outcomes.mentions:
            raise MelError(
                f"Reports {first.report['name']!r} ({len(first.outcomes.mentions):,} mentions) and "
                f"{other.report['name']!r} ({len(other.outcomes.mentions):,}) are not about the same mentions: "
                "evaluate both on the same data, with the same --languages and --limit."
            )
        differences[other.report["name"]] = paired_differences(first.outcomes, other.outcomes)
    return [each.report for each in ordered], differences


def comparison_table(reports: Iterable[Report], differences: Mapping[str, Differences] = {}) -> str:
    """Several reports in one Markdown table, a row each, the alias table first and published systems last.

    Args:
      reports: what to show.
      differences: of the reports' names, to the first row.
    """
    reports = sorted(reports, key=_place)
    header = ["system", "R@1", "R@1 ambiguous", "R@1 unseen", "R@10", "R@100", "MRR"]
    rows = [[report["name"], *_row(report)] for report in reports]
    beside = published.published_beside(reports[0]) if all(map(published.published_beside, reports)) else []
    for system in beside:
        known = {metric: system[metric]["micro"] for metric in recall.METRICS if metric in system}
        rows.append([published.label(system), *_row({"micro": known, "breakdowns": {}})])
    if differences:
        header.append(f"R@1 minus {reports[0]['name']}")
        for row in rows:
            row.append(_signed(differences[row[0]][ALL][ALL]) if row[0] in differences else "–")
    notes = ["", *(f"- {note}" for note in published.notes(beside))] if beside else []
    return "\n".join([*table(header, rows), *notes]) + "\n"


def paired_differences(first: Outcomes, second: Outcomes, seed: int = SEED) -> Differences:
    """How much higher R@1 of `second` is than of `first`, on the same mentions, in all and in each group."""
    gain_Q = (second.gold_rank_Q == 0).astype(np.int64) - (first.gold_rank_Q == 0)
    means = intervals.resampled_means(gain_Q, first.clusters, first.headings, np.random.default_rng(seed))
    differences: Differences = {}
    for heading, names in first.headings.items():
        names_Q = np.asarray(names, np.str_)
        order = breakdowns.in_order(heading, names) if heading in breakdowns.GROUPS else sorted(set(names))
        differences[heading] = {}
        for group in order:
            gain_G = gain_Q[names_Q == group]
            interval = intervals.interval(means[heading][group])
            differences[heading][group] = Difference(len(gain_G), float(gain_G.mean()), interval)
    return differences


def _place(report: Report) -> int:
    """Sorts the alias table before all others."""
    return 0 if report["model"] == "alias_table" else 1


def _row(report: Mapping[str, Any]) -> list[str]:
    in_training = report["breakdowns"].get(breakdowns.IN_TRAINING, {})
    special = [figure(in_training.get(group, {}), "r@1") for group in ("ambiguous", "unseen")]
    first, *others = (figure(report["micro"], metric) for metric in recall.METRICS)
    return [first, *special, *others]


def _differences_table(first: str, differences: Mapping[str, Differences]) -> list[str]:
    """A row for each group of each heading, a column for each report but the first."""
    if not differences:
        return []
    header = [f"R@1 minus {first}", "mentions", *differences]
    rows = [
        [f"{heading}: {group}", f"{difference.mentions:,}", *(_signed(d[heading][group]) for d in differences.values())]
        for heading, groups in next(iter(differences.values())).items()
        if heading != ALL
        for group, difference in groups.items()
    ]
    return [*table(header, rows), ""]


def _signed(difference: Difference) -> str:
    low, high = difference.interval
    return f"{difference.mean:+.3f} [{low:+.3f}, {high:+.3f}]"
