"""A report as one self-contained HTML page: no script, nothing loaded from anywhere, plots as inline SVG.

Only the ids of Wikidata are links to elsewhere. The page takes plain values and computes no score. What is
not given is left out, and every string is escaped. `page.html` is its template, `page.css` its style.
"""

from __future__ import annotations

import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np

from mel.artifacts import START, Workdir, exists, open_artifact
from mel.evaluation import breakdowns
from mel.files import read_json_lines
from mel.progress import duration
from mel.reports import plots, published
from mel.reports.comparison import Difference
from mel.reports.report import index_recall_in_words, language_rows
from mel.workdir import METRICS

SHOWN = 3  # candidates of each error
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
# The first strong character of a window says nothing: an Arabic text may begin with a Latin name.
RIGHT_TO_LEFT = frozenset("ar arc arz azb ckb dv fa glk he ku-arab lrc mzn nqo pnb ps sd ug ur yi".split())
WIKIDATA = "https://www.wikidata.org/wiki/"
PRIVATE = 900_000_000  # Wikidata has no QID as high; collections without QIDs number their own from here
MOST_SKIPPED = 24  # characters of a word that may be cut off at the rims of a window

Report = Mapping[str, Any]
Prediction = dict[str, Any]


class Other(NamedTuple):
    """Another system's report on the same mentions, and how much higher micro R@1 is in the page's report."""

    report: Report
    difference: Difference | None = None


def page(
    report: Report, *, others: Sequence[Other] = (), curves: Mapping[int, Sequence[Mapping]] = {},
    examples: Sequence[Prediction] = (), contexts: Mapping[str, tuple[str, str, str]] = {},
    titles: Mapping[str, str] = {}, costs: Sequence[Mapping] = (), origin: Mapping[str, str] = {},
    settings: Mapping[str, Any] = {},
) -> str:  # fmt: skip
    """The page of a report, as HTML; published systems stand beside it where they are on the same data.

    Args:
      report: as in report.json.
      others: other systems on the same mentions, in the order of their table.
      curves: the lines of metrics.jsonl by round, as `read_curves` gives them.
      examples: the errors to show, as `choose_examples` gives them.
      contexts: {mention id: (left, surface form, right)} of the examples, pieces that join without a gap.
      titles: {"Q42": title} of their golds and candidates.
      costs: what each stage cost, as `mel.cost.read_cost` gives it.
      origin: when and by which versions the report was made, by name.
      settings: what the encoder was trained with, by flag.
    """
    calibration = report.get("calibration")
    beside = published.published_beside(report)
    return template("page.html").render(
        report=report,
        others=list(others),
        published=[(published.label(row), row["r@1"]) for row in beside],
        notes=published.notes(beside),
        calibration=calibration,
        risks=_risks(calibration["risk_coverage"]) if calibration else [],
        curves={number: _last(lines) for number, lines in curves.items()},
        rounds=_rounds([report, *(other.report for other in others)]),
        plots=_plots(report, others, curves, beside),
        examples=[_example(prediction, contexts, titles) for prediction in examples],
        costs=costs,
        origin=origin,
        settings=settings,
    )


def wikidata_url(entity_id: str) -> str:
    """Where Wikidata describes an entity; "" for ids that are not its own."""
    number = re.fullmatch(r"Q([1-9][0-9]{0,9})", entity_id, re.ASCII)
    return f"{WIKIDATA}{entity_id}" if number and int(number[1]) < PRIVATE else ""


def whole_words(left: str, right: str) -> tuple[str, str]:
    """The text on both sides of a focus without the words that the ends of a window may have cut, marked by "…".

    Where no space is near, as in scripts without spaces, nothing is dropped.
    """
    first, last = left.find(" ", 0, MOST_SKIPPED), right.rfind(" ", max(0, len(right) - MOST_SKIPPED))
    left = f"…{left[first:]}" if first >= 0 else f"…{left}" if left else left
    right = f"{right[: last + 1]}…" if last >= 0 else f"{right}…" if right else right
    return left, right


def choose_examples(predictions: Iterable[Prediction], seed: int, count: int) -> list[Prediction]:
    """Errors to show, spread over languages and over the groups of the first heading.

    Every language gives one error of another group in turn; of mentions that share language,
    surface form and gold only one is taken. The order is that of the languages and groups.

    Args:
      predictions: as in predictions.jsonl.
      seed: which errors of a language and group are taken.
      count: most errors.
    """
    cells: dict[tuple[str, str], dict[tuple[str, str], Prediction]] = {}
    for prediction in predictions:
        if prediction["rank"] != 0:
            cell = cells.setdefault((prediction["language"], _group(prediction)), {})
            cell.setdefault((prediction["surface_form"], prediction["gold"]), prediction)
    generator = np.random.default_rng(seed)
    shuffled = {}
    for cell in sorted(cells):
        errors = list(cells[cell].values())
        shuffled[cell] = [errors[number] for number in generator.permutation(len(errors))]
    languages, groups = (sorted(set(names)) for names in zip(*cells, strict=True)) if cells else ([], [])
    turns = [
        (language, groups[(number + turn) % len(groups)])
        for turn in range(len(groups))
        for number, language in enumerate(languages)
    ]
    rounds = itertools.zip_longest(*(shuffled.get(cell, ()) for cell in turns))
    chosen = itertools.islice((error for each in rounds for error in each if error is not None), count)
    return sorted(chosen, key=lambda error: (error["language"], _group(error), error["id"]))


def read_curves(work: Workdir) -> dict[int, list[dict[str, float]]]:
    """The training metrics of every round of a working directory; a line that is being written is passed over.

    Raises:
      MelError: those of a published round are not as they were published.
    """
    curves = {}
    for number in work.rounds():
        this, path = work.round(number), work.round(number).metrics
        if exists(this.checkpoint):
            path = open_artifact(this.checkpoint, "checkpoint", reads=(METRICS,)) / METRICS
        if lines := read_json_lines(path, "delete the line, or the file to do without its curves"):
            curves[number] = lines
    return curves


def template(name: str) -> jinja2.Template:
    """A template of this folder, which escapes all that is put into it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"figure": _figure, "duration": duration}
    environment.globals |= {
        "FREQUENCY": breakdowns.FREQUENCY, "IN_TRAINING": breakdowns.IN_TRAINING,
        "index_recall_in_words": index_recall_in_words, "language_rows": language_rows, "round_name": _round_name,
        "plain": _plain, "wikidata_url": wikidata_url,
    }  # fmt: skip
    return environment.get_template(name)


def _plots(
    report: Report, others: Sequence[Other], curves: Mapping[int, Sequence[Mapping]], beside: Sequence[Mapping]
) -> dict[str, str]:
    """SVG by name, of what there is."""
    rows = {published.label(row): row["r@1"] for row in beside}
    drawn = {"language": plots.scores_plot("R@k by language", report["by_language"], rows)}
    if frequencies := report["breakdowns"].get(breakdowns.FREQUENCY):
        drawn["frequency"] = plots.scores_plot(f"R@k by {breakdowns.FREQUENCY}", frequencies)
    if curves:
        drawn["curves"] = plots.curves_plot("Loss and in-batch accuracy by step", curves)
    if rounds := _rounds([report, *(other.report for other in others)]):
        drawn["rounds"] = plots.rounds_plot("R@1 by round", rounds)
    if calibration := report.get("calibration"):
        if bins := calibration.get("reliability"):
            drawn["reliability"] = plots.reliability_plot("Share of right answers by probability", **bins)
        drawn["risk"] = plots.risk_coverage_plot("Risk by coverage", **calibration["risk_coverage"])
    return drawn


def _rounds(reports: Iterable[Report]) -> dict[str, Mapping]:
    """The micro scores of the checkpoints by round, where there is more than one round."""
    by_round: dict[int, Mapping] = {}
    for report in reports:
        if report["model"] == "checkpoint":
            by_round.setdefault(report["round"], report["micro"])
    return {_round_name(number): by_round[number] for number in sorted(by_round)} if len(by_round) > 1 else {}


def _round_name(number: int) -> str:
    return "start" if number == START else str(number)


def _last(lines: Sequence[Mapping]) -> dict[str, float]:
    """The last step of a round, and the smoothed metrics there."""
    ends = {metric: list(plots.smooth(lines, metric))[-1][1] for metric in ("loss", "accuracy")}
    return {"step": lines[-1]["step"]} | ends


def _risks(curve: Mapping[str, Sequence[float]]) -> list[tuple[float, float]]:
    """(coverage, risk) at the points of a risk-coverage curve that are nearest to `COVERAGES`."""
    points = list(zip(curve["coverage"], curve["risk"], strict=True))
    nearest = (min(points, key=lambda point: abs(point[0] - wanted)) for wanted in COVERAGES if points)
    return list(dict.fromkeys(nearest))


def _example(
    prediction: Prediction, contexts: Mapping[str, tuple[str, str, str]], titles: Mapping[str, str]
) -> dict[str, Any]:
    """What the page says of one error; the gold's line is there wherever it is ranked."""
    gold = prediction["gold"]
    lines = [
        {"place": rank + 1, "id": name, "title": titles.get(name, ""), "score": score, "gold": name == gold}
        for rank, (name, score) in enumerate(prediction["candidates"])
        if rank < SHOWN or name == gold
    ]
    if not any(line["gold"] for line in lines):
        place = prediction["rank"] + 1 if prediction["rank"] >= 0 else None
        lines.append({"place": place, "id": gold, "title": titles.get(gold, ""), "score": None, "gold": True})
    left, focus, right = contexts.get(prediction["id"], ("", prediction["surface_form"], ""))
    language = prediction["language"]
    direction = "rtl" if language.lower() in RIGHT_TO_LEFT else "auto"
    return prediction | {
        "left": left, "focus": focus, "right": right, "direction": direction, "lines": lines,
        "group": _group(prediction),
    }  # fmt: skip


def _group(prediction: Prediction) -> str:
    """The mention's group under the first heading."""
    return next(iter(prediction["groups"].values()), "")


def _plain(values: Mapping[str, Any], without: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Names and values in words, of what is a number or a string."""
    for name, value in values.items():
        if name not in without and isinstance(value, (str, int, float)):
            yield name.replace("_", " "), _figure(value) if isinstance(value, float) else str(value)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
