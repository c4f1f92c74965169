"""A published evaluation: `report.json` for programs, `report.md` for people.

Neither holds a time or a path, so the same evaluation done twice is the same report, byte for byte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mel import artifacts
from mel.evaluation import recall
from mel.types import MelError

DIGITS = 6
AMBIGUITIES = ("ambiguous", "unambiguous", "unseen")
ABOUT = ("name", "model", "round", "search", "seed", "dataset", "split", "languages", "limit", "command", "inputs")
LABELS = ("dataset", "command")  # these say the same in other words
HEADINGS = ("R@1", "R@10", "R@100", "MRR")

Report = dict[str, Any]


def measure(
    ranking: recall.Ranking,
    gold_Q: np.ndarray,
    languages: Sequence[str],
    ambiguities: Sequence[str],
    qids_E: np.ndarray,
) -> Report:
    """The figures of a report.

    Args:
      ranking: the candidates of Q mentions.
      gold_Q: the gold QID of each.
      languages: the language of each.
      ambiguities: what the surface form of each is in training, one of `AMBIGUITIES`.
      qids_E: the QIDs of the KB.
    """
    gold_rank_Q = recall.gold_rank(ranking, gold_Q)
    by_language = recall.scores_by(languages, gold_rank_Q)
    nothing = {group: recall.scores(np.zeros(0)) for group in AMBIGUITIES}
    micro = recall.scores(gold_rank_Q)
    return {
        "mentions": micro.pop("mentions"),
        "kb_coverage": recall.coverage(gold_Q, qids_E),
        "micro": micro,
        "macro": recall.macro(by_language),
        "by_language": by_language,
        "breakdown": nothing | recall.scores_by(ambiguities, gold_rank_Q),
    }


def publish_report(path: str | os.PathLike, report: Report, config: Any = None) -> Report:
    """Publishes a report, and returns it as published: its figures rounded.

    Args:
      path: the artefact's folder.
      report: the figures of `measure`; {reason: count} of mentions "dropped" before; and what it is
        `ABOUT`, where "inputs" holds the digest of everything it was made from, by name.
      config: the config that made it.
    """
    report = _rounded(report)
    with artifacts.publish(path, "report", config) as draft:
        draft.inputs.update(report["inputs"])
        artifacts.write_text(draft / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        artifacts.write_text(draft / "report.md", markdown(report))
    return report


def open_report(path: str | os.PathLike) -> Report:
    """Reads a published report back.

    Raises:
      MelError: there is none, or it is damaged.
    """
    return json.loads((artifacts.open_artifact(path, "report") / "report.json").read_text(encoding="utf-8"))


def open_same_report(path: str | os.PathLike, about: Mapping[str, Any]) -> Report:
    """Reads a published report back that must be `ABOUT` the same; what it calls the data may differ.

    Raises:
      MelError: there is none, it is damaged, or about something else.
    """
    report = open_report(path)
    if different := [key for key in ABOUT if key not in LABELS and report.get(key) != about[key]]:
        raise MelError(
            f"{path} is another evaluation (it differs in {', '.join(different)}): choose another --name or delete it."
        )
    return report


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown: what it is about, scores per language, scores by ambiguity."""
    overall = {"micro": report["micro"] | {"mentions": report["mentions"]}, "macro": report["macro"]}
    languages = _scores_table("language", report["by_language"] | overall)
    breakdown = _scores_table("surface form in training", report["breakdown"])
    return "\n".join([f"# {report['name']}", "", *_description(report), "", *languages, "", *breakdown, ""])


def comparison_table(reports: Iterable[Mapping[str, Any]]) -> str:
    """Several reports in one Markdown table, a row each, the alias table first."""
    header = ("system", "R@1", "R@1 ambiguous", "R@1 unseen", "R@10", "R@100", "MRR")
    rows = [
        (
            report["name"],
            _figure(report["micro"], "r@1"),
            _figure(report["breakdown"]["ambiguous"], "r@1"),
            _figure(report["breakdown"]["unseen"], "r@1"),
            *(_figure(report["micro"], metric) for metric in recall.METRICS[1:]),
        )
        for report in sorted(reports, key=lambda report: report["model"] != "alias_table")
    ]
    return "\n".join(_table(header, rows)) + "\n"


def _description(report: Mapping[str, Any]) -> list[str]:
    dataset = f"{report['dataset']}, " if report["dataset"] else ""
    seed = "" if report["seed"] is None else f", seed {report['seed']}"
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in report["dropped"].items()) or "none"
    number = {None: "", artifacts.START: " before training"}.get(report["round"], f" of round {report['round']}")
    return [
        f"- Data: {dataset}split `{report['split']}`.",
        f"- System: {report['model']}{number}, {report['search']} search{seed}.",
        f"- Every figure is a share of all its mentions ({report['mentions']:,} in all); a gold that the KB lacks is "
        f"a miss. The KB holds the gold of {report['kb_coverage']:.2%}. Dropped before: {dropped}.",
        f"- Command: `{report['command']}`",
    ]


def _scores_table(heading: str, groups: Mapping[str, recall.Scores]) -> list[str]:
    rows = []
    for name, group in groups.items():
        mentions = f"{group['mentions']:,}" if "mentions" in group else ""
        rows.append((name, mentions, *(_figure(group, metric) for metric in recall.METRICS)))
    return _table((heading, "mentions", *HEADINGS), rows)


def _figure(group: Mapping[str, float], metric: str) -> str:
    return f"{group[metric]:.3f}" if group.get("mentions", 1) else "–"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def _rounded(value: Any) -> Any:
    """Rounded so that the last bits of a sum, which depend on the machine, never reach a file."""
    match value:
        case float():
            return round(value, DIGITS)
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case _:
            return value
