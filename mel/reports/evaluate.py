"""One evaluation, from the mentions and the system asked for to a published report."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import pathlib
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from mel.artifacts import Artifact, Workdir, digest_of, exists, open_artifact, write_text
from mel.config import REQUIRED, flag, group
from mel.corpora.kb import KnowledgeBase
from mel.corpora.malformed import MAX_SHARE, Malformed
from mel.corpora.names import check_distinct
from mel.corpora.redirects import Redirects
from mel.cost import read_cost, record_cost
from mel.encoder.backend import ComputeConfig, keep_compiled
from mel.evaluation import recall
from mel.evaluation.breakdowns import group_mentions
from mel.evaluation.calibration import calibrate
from mel.evaluation.evaluation_set import EvaluationSet, golds_with_twins, read_clusters, read_prepared, read_tree
from mel.locks import claim
from mel.reports.comparison import Compared, compare, outcomes_of, paired_differences, read_compared
from mel.reports.index import write_index
from mel.reports.origin import origin
from mel.reports.page import Other, choose_examples, page, read_curves, whole_words
from mel.reports.report import (
    ALL,
    Evaluation,
    Report,
    markdown,
    measure,
    measure_all,
    open_same_report,
    publish_report,
    read_predictions,
)
from mel.shards.blocks import Windows
from mel.shards.datasets import open_rows, open_twins
from mel.shards.rows import TokenRows
from mel.shards.selection import read_mixture
from mel.systems.system import WITH_SCORES, System, SystemConfig, open_system
from mel.text.tokenizer import Tokenizer
from mel.types import MarkedText, MelError, Span

EXAMPLES = 32


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated on which mentions."""

    workdir: str = flag(REQUIRED, "Folder that mel-prepare-data published into.")
    name: str = flag(REQUIRED, "Name of the report.")
    system: SystemConfig = group(SystemConfig)
    compute: ComputeConfig = group(ComputeConfig)
    mewsli: str = flag("", "Mewsli-9 tree to evaluate on; the prepared --split if empty.")
    split: str = flag("mewsli", "Prepared mentions to evaluate on.")
    languages: tuple[str, ...] = flag((), "Languages to evaluate on; all that there are if empty.")
    dataset: str = flag("", "What the report calls the data.")
    against: tuple[str, ...] = flag((), "Names of reports on the same mentions to compare with, in one table.")
    clusters: str = flag("", "File of lines document, tab, cluster: translations of one page are drawn together.")
    without_context: bool = flag(False, "Ask an encoder once more, with surface forms alone, beside the full figures.")
    limit: int = flag(0, "Evaluate only the first so many mentions of each language; 0 for all.")
    max_malformed: int = flag(1000, "Most malformed records of --mewsli to skip before stopping.")
    max_malformed_share: float = flag(MAX_SHARE, "The same as a share of what each of its files holds, if ten or more.")
    redirects: str = flag("", "JSON file {old QID: new QID}, followed to the end for the golds of --mewsli.")

    def __post_init__(self):
        if self.limit < 0:
            raise MelError(f"--limit={self.limit} must not be below 0.")
        if self.redirects and not self.mewsli:
            raise MelError(f"--redirects={self.redirects} is for --mewsli: golds that are prepared follow theirs.")
        Malformed(self.max_malformed, self.max_malformed_share)  # refuses bounds that are none
        check_distinct("languages", self.languages)


def evaluate(config: EvaluationConfig) -> str:
    """Publishes the report, or finds it published, and returns it as text, beside those it is compared with.

    Raises:
      MelError: a setting makes no sense, or something that is read is missing, damaged or another run's.
    """
    if config.name in ("", "..") or pathlib.Path(config.name).name != config.name:
        raise MelError(f"--name={config.name!r} cannot be the name of a folder: choose letters, digits and hyphens.")
    if config.without_context and config.system.model not in WITH_SCORES:
        raise MelError(f"--without_context is for an encoder: --model={config.system.model} reads no context anyway.")
    keep_compiled(config.compute.compilation_cache)
    work = Workdir(config.workdir)
    others = [read_compared(work.report(name)) for name in config.against]
    kb_artifact = open_artifact(work.kb, "kb")
    kb = KnowledgeBase.read(kb_artifact.path, kb_artifact.facts["languages"])
    mentions = _clustered(_mentions(config, work, kb), config.clusters)
    system, table = open_system(config.system, work, kb, config.compute.precision)
    about, path = _about(config, kb_artifact, mentions, system), work.report(config.name)
    if exists(path):
        report = open_same_report(path, about)
        logging.info("Evaluated already: %s", path)
    else:
        with claim(path):
            with record_cost(work.path, f"evaluate {config.name}", mentions=len(mentions)):
                ranking, tuned = system.rank(mentions)
                index_recall = system.index_recall(mentions)
                trained_on = list(read_mixture(_trained_with(work, system.facts["round"]).get("train_languages", ())))
                groups = group_mentions(mentions, table(), kb, trained_on)
                evaluation = Evaluation(mentions, groups, ranking, kb)
                # Embeddings that had been removed are made again by now, on another machine perhaps a little otherwise.
                system, _ = open_system(config.system, work, kb, config.compute.precision)
                about = _about(config, kb_artifact, mentions, system)
                figures = about | _figures(config, work, evaluation) | ({"tuned": tuned} if tuned else {})
                figures |= {"index_recall": index_recall} if index_recall else {}
                if config.without_context:
                    figures["scores_without_context"] = _scores_without_context(work, system, mentions)
            write = functools.partial(_write_page, work=work, evaluation=evaluation, others=others)
            with record_cost(work.path, f"report {config.name}"):
                report = publish_report(path, figures, evaluation, config, write)
        logging.info("Published %s", path)
        write_index(work)
    return "\n".join([markdown(report), *([compare([*others, read_compared(path, report)])] if others else [])])


def command(config: EvaluationConfig, number: int | None) -> str:
    """The command line that evaluates like this; W and DIR stand for folders, `number` is the round, if any."""
    stated = (
        {"workdir": "W", "round": number, "compilation_cache": None}
        | ({"clusters": "FILE"} if config.clusters else {})
        | ({"mewsli": "DIR"} if config.mewsli else {})
    )
    flags = []
    for field, value in _settings(config):
        value = stated.get(field.name, value)
        if value not in (None, field.default):
            value = ",".join(value) if isinstance(value, tuple) else str(value)
            flags.append(f"--{field.name}={shlex.quote(value)}")
    return f"mel-evaluate {' '.join(flags)}"


def _settings(config: Any) -> Iterator[tuple[dataclasses.Field, Any]]:
    """All fields and values, those of nested configs in their places."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _settings(value)
        else:
            yield field, value


def _mentions(config: EvaluationConfig, work: Workdir, kb: KnowledgeBase) -> EvaluationSet:
    if config.mewsli:
        tree, windows = pathlib.Path(config.mewsli), Windows.of(work)
        bounds, redirects = (config.max_malformed, config.max_malformed_share), Redirects.read(config.redirects)
        return read_tree(tree, windows, kb, config.languages, config.limit, *bounds, redirects)
    return read_prepared(work, config.split, kb, config.languages, config.limit)


def _clustered(mentions: EvaluationSet, path: str) -> EvaluationSet:
    if not path:
        return mentions
    clusters = read_clusters(path)
    if strangers := [document for document in dict.fromkeys(mentions.documents) if document not in clusters]:
        logging.warning("--clusters=%s does not name %d documents (%s, ...).", path, len(strangers), strangers[0])
    inputs = mentions.inputs | {"clusters": digest_of(clusters)}
    return dataclasses.replace(mentions, cluster_of=clusters, inputs=inputs)


def _about(config: EvaluationConfig, kb: Artifact, mentions: EvaluationSet, system: System) -> dict[str, Any]:
    """What the report is about, before anything is computed."""
    return {
        "name": config.name,
        "model": config.system.model,
        **system.facts,
        "dataset": config.dataset,
        "split": pathlib.Path(config.mewsli).name or config.split,
        "languages": list(config.languages),
        "limit": config.limit,
        "without_context": config.without_context,
        "command": command(config, system.facts["round"]),
        "inputs": mentions.inputs | system.inputs | {"kb": kb.digest},
    }


def _figures(config: EvaluationConfig, work: Workdir, evaluation: Evaluation) -> dict[str, Any]:
    mentions = evaluation.mentions
    figures = {"dropped": mentions.dropped} | measure(evaluation)
    if config.system.model in WITH_SCORES:
        tokens = open_artifact(work.entity_tokens, "tokens")
        first_E = open_twins(tokens, work.twins(tokens), open_rows(tokens, work.cache(tokens)).rows)
        figures["golds_with_twins"] = golds_with_twins(mentions, evaluation.kb, first_E)
    if config.system.model in WITH_SCORES and len(set(mentions.clusters)) > 1:
        figures["calibration"] = calibrate(evaluation.ranking, mentions.gold_Q, mentions.clusters, evaluation.kb)
    return figures


def _scores_without_context(work: Workdir, system: System, mentions: EvaluationSet) -> dict[str, Any]:
    """How right the system is where it is shown nothing of a mention but its surface form."""
    tokenizer = _tokenizer(work)
    alone = [MarkedText(form, Span(0, len(form))) for form in mentions.surface_forms]
    rows = TokenRows.from_rows(tokenizer.rows(alone, Windows.of(work).max_tokens))
    ranking, _ = system.rank(dataclasses.replace(mentions, rows=rows))
    return measure_all(recall.gold_rank(ranking, mentions.gold_Q), mentions.clusters)


def _write_page(
    folder: pathlib.Path, report: Report, work: Workdir, evaluation: Evaluation, others: Sequence[Compared]
) -> None:
    """Writes index.html beside a report, with what else is known of the run."""
    outcomes = outcomes_of(evaluation)
    beside = [
        Other(other.report, paired_differences(other.outcomes, outcomes)[ALL][ALL])
        for other in others
        if other.outcomes.mentions == outcomes.mentions
    ]
    examples = choose_examples(read_predictions(folder), seed=0, count=EXAMPLES)
    html = page(
        report, others=beside, curves=read_curves(work), examples=examples, costs=read_cost(work.path),
        contexts=_contexts(work, evaluation, examples), titles=_titles(evaluation.kb, examples),
        origin=origin(datetime.datetime.now(datetime.UTC)), settings=_trained_with(work, report["round"]),
    )  # fmt: skip
    write_text(folder / "index.html", html)


def _trained_with(work: Workdir, number: int | None) -> dict[str, Any]:
    """The settings of the round that answered; none where no round did."""
    if number is None or not exists(work.round(number).checkpoint):
        return {}
    return open_artifact(work.round(number).checkpoint, "checkpoint").facts["settings"]


def _contexts(work: Workdir, evaluation: Evaluation, examples: Sequence[dict]) -> dict[str, tuple[str, str, str]]:
    """What the system was shown of each example, in whole words: left, surface form, right."""
    longest, tokenizer = Windows.of(work).max_tokens, _tokenizer(work)
    row_of = {name: row for row, name in enumerate(evaluation.mentions.ids)}
    rows = evaluation.mentions.rows.take(np.asarray([row_of[example["id"]] for example in examples], np.int64))
    windows = []
    for start, end in zip(rows.offsets_N1[:-1], rows.offsets_N1[1:], strict=True):
        left, focus, right = tokenizer.decode(rows.tokens_T[start:end].tolist())
        if end - start >= longest:  # text was left out, and perhaps a part of a word
            left, right = whole_words(left, right)
        windows.append((left, focus, right))
    return dict(zip((example["id"] for example in examples), windows, strict=True))


def _tokenizer(work: Workdir) -> Tokenizer:
    found = open_artifact(work.tokenizer, "tokenizer")
    return _load_tokenizer(found.path, found.digest)


@functools.lru_cache(maxsize=1)
def _load_tokenizer(path: pathlib.Path, digest: str) -> Tokenizer:
    """Kept from one evaluation of a process to the next: a large vocabulary takes seconds to load."""
    return Tokenizer.load(path)


def _titles(kb: KnowledgeBase, examples: Sequence[dict]) -> dict[str, str]:
    """The first title of each entity that the examples name; that of a gold without a row is not known."""
    names = {name for example in examples for name in (example["gold"], *(name for name, _ in example["candidates"]))}
    titles = {name: kb.titles_of(entity) for name, entity in zip(names, kb.numbers_of(list(names)), strict=True)}
    return {name: found[0] for name, found in titles.items() if found}
