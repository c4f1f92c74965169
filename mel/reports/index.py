"""All reports of a working directory on one page, whose columns can be sorted; without script it is a plain table."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from mel.artifacts import Workdir, write_text
from mel.evaluation import recall
from mel.reports.page import template
from mel.reports.report import open_report
from mel.types import MelError

COLUMNS = (
    "report", "model", "data", "split", "mentions", "R@1", "R@1, macro", "R@10", "R@100", "MRR", "ece", "made",
)  # fmt: skip


class Row(NamedTuple):
    """A report in the table, each field a cell or several."""

    name: str
    address: str
    words: tuple[str, str, str]
    counts: tuple[int]
    figures: tuple[float | None, ...]
    made: str


def write_index(work: Workdir) -> None:
    """Writes reports/index.html from what is published; a report that cannot be read is left out."""
    folder = work.report("")
    rows = sorted(_rows(work), key=lambda row: row.name)
    write_text(folder / "index.html", template("index.html").render(rows=rows, columns=COLUMNS))


def _rows(work: Workdir) -> Iterator[Row]:
    for path in filter(pathlib.Path.is_dir, work.report("").iterdir()):
        with contextlib.suppress(MelError):
            report = open_report(path)
            made = datetime.datetime.fromtimestamp(os.path.getmtime(path / "report.json"), datetime.UTC)
            yield _row(report, path.name, made)


def _row(report: Mapping[str, Any], folder: str, made: datetime.datetime) -> Row:
    micro, macro = report["micro"], report["macro"]
    first, *others = (micro[metric] for metric in recall.METRICS)
    return Row(
        name=report["name"],
        address=f"{quote(folder, safe='')}/index.html",
        words=(report["model"], report["dataset"], report["split"]),
        counts=(report["mentions"],),
        figures=(first, macro["r@1"], *others, report.get("calibration", {}).get("ece")),
        made=made.strftime("%Y-%m-%d %H:%M"),
    )
