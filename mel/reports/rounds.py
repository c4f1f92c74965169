"""What the reports of a working directory say of its rounds: which is the best, and how good one is."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
from collections.abc import Iterator

from absl import logging

from mel.artifacts import Artifact, Workdir, exists, read_manifest
from mel.reports.comparison import comparison_table
from mel.reports.report import Report, open_report
from mel.types import MelError

HELD_OUT = "held_out"
BEST = "best"


def chosen_round(work: Workdir, name: str) -> int:
    """The round of a number, or the best one.

    Raises:
      MelError: it is neither, or no round has a report that says which is the best.
    """
    if name == BEST:
        number = best_round(work)
        logging.info("Of the held-out split, round %d has the highest R@1.", number)
        return number
    try:
        return int(name)
    except ValueError:
        raise MelError(f"--round={name} is no round: give its number, or {BEST}.") from None


def best_round(work: Workdir) -> int:
    """The round whose encoder alone has the highest R@1 on the held-out split; of equal ones the first.

    Raises:
      MelError: no round that is here has such a report.
    """
    digests = {_digest(work, number): number for number in work.rounds() if exists(work.round(number).checkpoint)}
    found = {
        digests[report["inputs"]["checkpoint"]]: report["micro"]["r@1"]
        for report in _reports(work)
        if report["split"] == HELD_OUT and report["model"] == "checkpoint"
        and not report["limit"] and not report.get("context_weight") and report["inputs"].get("checkpoint") in digests
    }  # fmt: skip
    if not found:
        raise MelError(
            f"--round=best needs reports of the held-out split, and {work.path} has none of a round: run mel-evaluate "
            "--split=held_out --round=K for each round, or mel-run-rounds --evaluate_on=held_out."
        )
    return max(sorted(found), key=lambda number: found[number])


def results(work: Workdir, checkpoint: Artifact) -> str:
    """The reports of a checkpoint, and of what answers the same mentions without one, as Markdown; "" for none.

    There is a table for each collection.
    """
    mine = [report for report in _reports(work) if report["inputs"].get("checkpoint") in (checkpoint.digest, None)]
    tables = []
    for _, some in itertools.groupby(sorted(mine, key=_collection), key=_collection):
        reports = list(some)
        if any(report["inputs"].get("checkpoint") for report in reports):
            first = reports[0]
            tables.append(f"{first['dataset'] or first['split']}, {first['mentions']:,} mentions:\n")
            tables.append(comparison_table(reports))
    return "\n".join(tables)


def _reports(work: Workdir) -> Iterator[Report]:
    """Those that can be read."""
    for path in sorted(filter(pathlib.Path.is_dir, work.report("").glob("[!.]*"))):
        with contextlib.suppress(MelError):
            yield open_report(path)


def _collection(report: Report) -> tuple[str, str, str, int]:
    return report["dataset"], report["split"], report["inputs"].get("mentions", ""), report["limit"]


def _digest(work: Workdir, number: int) -> str:
    return read_manifest(work.round(number).checkpoint, "checkpoint").digest
