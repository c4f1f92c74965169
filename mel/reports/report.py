"""A published evaluation: figures for programs and people, and the answers they were counted from.

`report.json` and `report.md` hold no time and no path, so the same evaluation done twice is the same
report, byte for byte; only `report.json` counts as the artefact's content.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from mel import artifacts
from mel.corpora.kb import KnowledgeBase
from mel.evaluation import breakdowns, intervals, recall
from mel.evaluation.evaluation_set import EvaluationSet
from mel.evaluation.ranking import Ranking
from mel.reports import published, trec
from mel.types import NIL, MelError

DIGITS = 6
SHOWN = 10  # candidates a mention that predictions.jsonl keeps
SEED = 0  # of the resamples
PREDICTIONS = "predictions.jsonl"
ABOUT = (
    "name", "model", "round", "search", "seed", "context_weight", "fusion_weight", "dataset", "split", "languages",
    "limit", "without_context", "command", "inputs",
)  # fmt: skip
LABELS = ("dataset", "command")  # these say the same in other words
HEADINGS = ("R@1", "R@10", "R@100", "MRR")
LANGUAGE = "language"
ALL = "all"  # a heading with one group of the same name: every mention

Report = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What a system answered.

    Attributes:
      mentions: Q mentions.
      groups: the group of each under each heading, as `breakdowns.group_mentions` names them.
      ranking: the candidates of each.
      kb: what the candidates' numbers mean.
    """

    mentions: EvaluationSet
    groups: Mapping[str, Sequence[str]]
    ranking: Ranking
    kb: KnowledgeBase

    @functools.cached_property
    def gold_rank_Q(self) -> np.ndarray:
        """The place of each gold from 0, -1 if absent."""
        return recall.gold_rank(self.ranking, self.mentions.gold_Q)


def measure(evaluation: Evaluation) -> Report:
    """The figures of a report."""
    mentions, gold_rank_Q = evaluation.mentions, evaluation.gold_rank_Q
    headings = all_headings(mentions.languages, evaluation.groups)
    scores = {heading: recall.scores_by(names, gold_rank_Q) for heading, names in headings.items()}
    rng = np.random.default_rng(SEED)
    means = intervals.resampled_means(gold_rank_Q == 0, mentions.clusters, headings, rng)
    for heading, by_group in scores.items():
        for group, group_scores in by_group.items():
            group_scores["r@1_interval"] = intervals.interval(means[heading][group])
    micro, by_language = scores[ALL][ALL], scores[LANGUAGE]
    macro_interval = intervals.interval(intervals.macro_means(means[LANGUAGE]))
    return {
        "mentions": micro.pop("mentions"),
        "kb_coverage": recall.coverage(mentions.gold_Q, evaluation.kb.entity_rows),
        "micro": micro,
        "macro": recall.macro(by_language) | {"r@1_interval": macro_interval},
        "by_language": by_language,
        "breakdowns": {
            heading: {group: scores[heading][group] for group in breakdowns.in_order(heading, names)}
            for heading, names in evaluation.groups.items()
        },
    }


def measure_all(gold_rank_Q: np.ndarray, clusters: Sequence[str]) -> recall.Scores:
    """The scores of all mentions in one group, with the interval of R@1."""
    headings = {ALL: [ALL] * len(clusters)}
    means = intervals.resampled_means(gold_rank_Q == 0, clusters, headings, np.random.default_rng(SEED))
    return recall.scores(gold_rank_Q) | {"r@1_interval": intervals.interval(means[ALL][ALL])}


def all_headings(languages: Sequence[str], groups: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """The group of each mention under every heading that has intervals: all, by language, and the breakdowns."""
    return {ALL: [ALL] * len(languages), LANGUAGE: languages, **groups}


def publish_report(
    path: str | os.PathLike,
    report: Report,
    evaluation: Evaluation,
    config: Any = None,
    add_files: Callable[[pathlib.Path, Report], None] = lambda folder, report: None,
) -> Report:
    """Publishes a report, and returns it as published: its figures rounded.

    Args:
      path: the artefact's folder.
      report: the figures of `measure`; {reason: count} of mentions "dropped" before; what it is
        `ABOUT`, where "inputs" holds the digest of everything it was made from, by name; and
        whatever else is known ("calibration", "tuned").
      evaluation: what the figures were counted from.
      config: the config that made it.
      add_files: writes more into the folder, such as a page; it finds the other files there already.
    """
    report = _rounded(report)
    mentions, ids = evaluation.mentions, evaluation.kb.ids
    with artifacts.publish(path, "report", config) as draft:
        draft.inputs.update(report["inputs"])
        draft.content_digest = artifacts.digest_of(report)
        artifacts.write_text(draft / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        artifacts.write_text(draft / "report.md", markdown(report))
        with open(draft / PREDICTIONS, "wb") as file:
            file.writelines(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in _predictions(evaluation))
        trec.write_run(draft / "run.trec.gz", mentions.ids, evaluation.ranking, ids, report["name"])
        trec.write_qrels(draft / "qrels.txt", mentions.ids, [line.gold for line in mentions.lines])
        add_files(draft.path, report)
    return report


def open_report(path: str | os.PathLike) -> Report:
    """Reads a published report back.

    Raises:
      MelError: there is none, it is damaged, or it was made before reports had breakdowns.
    """
    report = json.loads((artifacts.open_artifact(path, "report") / "report.json").read_text(encoding="utf-8"))
    if "breakdowns" not in report:
        raise MelError(f"{path} was made before reports had breakdowns and intervals: delete it and evaluate again.")
    return report


def open_rounds(work: artifacts.Workdir) -> list[Report]:
    """The reports of all rounds that mel-run-rounds evaluated, in order."""
    paths = (work.report(f"round-{number}") for number in work.rounds())
    return [open_report(path) for path in paths if artifacts.exists(path)]


def open_same_report(path: str | os.PathLike, about: Mapping[str, Any]) -> Report:
    """Reads a published report back that must be `ABOUT` the same; what it calls the data may differ.

    Raises:
      MelError: there is none, it is damaged, or about something else.
    """
    report = open_report(path)
    if different := [key for key in ABOUT if key not in LABELS and report.get(key) != about.get(key)]:
        raise MelError(
            f"{path} is another evaluation (it differs in {', '.join(different)}): choose another --name or delete it."
        )
    return report


def read_predictions(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The mentions of a published report and how each was answered, in the order in which they were asked.

    Yields:
      "id", "language", "document", "cluster", "surface_form", "gold" (an id), "rank" (from 0, -1 if absent),
      "groups" ({heading: group}) and "candidates" ([id, score], the best 10).
    """
    with open(pathlib.Path(path) / PREDICTIONS, "rb") as file:
        yield from map(orjson.loads, file)


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown: what it is about, scores by language and under each heading, published rows."""
    parts = [_description(report), _scores_table(LANGUAGE, language_rows(report))]
    parts += [_scores_table(heading, groups) for heading, groups in report["breakdowns"].items()]
    if rows := published.published_beside(report):
        parts += [_published_table(report, rows), [f"- {note}" for note in published.notes(rows)]]
    return "\n".join([f"# {report['name']}", *(line for part in parts for line in ["", *part]), ""])


def language_rows(report: Mapping[str, Any]) -> dict[str, recall.Scores]:
    """The rows of the table by language: each, all of them, and all without context if that was asked."""
    rows = report["by_language"] | {"micro": report["micro"] | {"mentions": report["mentions"]}}
    rows["macro"] = report["macro"]
    if without := report.get("scores_without_context"):
        rows["micro, without context"] = without
    return rows


def figure(scores: Mapping[str, Any], metric: str) -> str:
    """A score with three digits and its interval if it has one; a dash where there are no mentions."""
    if metric not in scores or not scores.get("mentions", 1):
        return "–"
    interval = scores.get(f"{metric}_interval")
    return f"{scores[metric]:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, its figures to the right."""
    cells = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def _description(report: Mapping[str, Any]) -> list[str]:
    dataset = f"{report['dataset']}, " if report["dataset"] else ""
    seed = "" if report["seed"] is None else f", seed {report['seed']}"
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in report["dropped"].items()) or "none"
    tuned = "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in report.get("tuned", {}).items())
    twins = report.get("golds_with_twins")
    number = {None: "", artifacts.START: " before training"}.get(report["round"], f" of round {report['round']}")
    return [
        f"- Data: {dataset}split `{report['split']}`.",
        f"- System: {report['model']}{number}, {report['search']} search{seed}.",
        f"- Every figure is a share of all its mentions ({report['mentions']:,} in all); a gold that the KB lacks is "
        f"a miss. The KB holds the gold of {report['kb_coverage']:.2%}. Dropped before: {dropped}.",
        f"- In brackets the {intervals.LEVEL:.0%} interval of R@1: percentile bootstrap over documents, "
        f"each with its translations, {intervals.RESAMPLES:,} resamples.",
        *([f"- {twins:,} golds read like another entity; of equal scores the smaller row counts."] if twins else []),
        *([f"- {index_recall_in_words(report)}"] if report.get("index_recall") else []),
        *([f"- Tuned on these mentions: {tuned}."] if tuned else []),
        f"- Command: `{report['command']}`",
    ]


def index_recall_in_words(report: Mapping[str, Any]) -> str:
    """What the indexes that answered found of what is nearest; "" where they were exact."""
    found = [
        f"{each['recall']:.2%} of the {each['depth']} rows of {over} nearest to {each['queries']:,} {each['kind']}"
        for over, each in report.get("index_recall", {}).items()
    ]
    return f"Recall of the index: {', and '.join(found)}." if found else ""


def _scores_table(heading: str, groups: Mapping[str, recall.Scores]) -> list[str]:
    rows = []
    for name, group in groups.items():
        mentions = f"{group['mentions']:,}" if "mentions" in group else ""
        rows.append((name, mentions, *(figure(group, metric) for metric in recall.METRICS)))
    return table((heading, "mentions", *HEADINGS), rows)


def _published_table(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    ours = {name: report["by_language"].get(name) or report[name] for name in rows[0]["r@1"]}
    figures = [(report["name"], {name: scores["r@1"] for name, scores in ours.items()})]
    figures += [(published.label(row), row["r@1"]) for row in rows]
    return table(("R@1", *ours), [(name, *(f"{value:.3f}" for value in row.values())) for name, row in figures])


def _predictions(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    ids, ranking, clusters = evaluation.kb.ids, evaluation.ranking, evaluation.mentions.clusters
    ranks, shown = evaluation.gold_rank_Q.tolist(), (ranking.entities_QK[:, :SHOWN], ranking.scores_QK[:, :SHOWN])
    for number, (line, entities_K, scores_K) in enumerate(zip(evaluation.mentions.lines, *shown, strict=True)):
        candidates = zip(entities_K[entities_K != NIL].tolist(), scores_K.tolist(), strict=False)
        yield {
            "id": line.mention_id,
            "language": line.language,
            "document": line.document,
            "cluster": clusters[number],
            "surface_form": line.surface_form,
            "gold": line.gold,
            "rank": ranks[number],
            "groups": {heading: names[number] for heading, names in evaluation.groups.items()},
            "candidates": [[ids[entity], round(score, DIGITS)] for entity, score in candidates],
        }


def _rounded(value: Any) -> Any:
    """Rounded so that the last bits of a sum, which depend on the machine, never reach a file."""
    match value:
        case float():
            return round(value, DIGITS)
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [_rounded(item) for item in value]
        case _:
            return value
