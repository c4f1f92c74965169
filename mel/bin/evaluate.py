"""Evaluates a checkpoint or a baseline: R@1, R@10, R@100 and MRR, in all, by language, by ambiguity.

Reads   mentions prepared in --workdir (--split), or any Mewsli-9 tree (--mewsli), of languages that
        were not prepared too; kb, alias_table; for a checkpoint rounds/K/checkpoint.
Writes  reports/NAME: report.json, report.md, index.html (a page to open in a browser), predictions.jsonl,
        and run.trec.gz with qrels.txt; rounds/K/embeddings where they are missing.
        The report is printed, beside those of --against. The same evaluation under the same name is
        not done again.

Systems (--model):
  checkpoint            the entities whose embeddings are nearest to the mention's
  alias_table           the entities most often linked from the surface form in any language, else from
                        the same lower-cased, else from its lemma
  alias_table_language  those linked in the mention's own language before all others
  alias_table_names     the same, and the KB's titles, labels, aliases and redirects behind all links
  string_similarity     the same, and for a surface form without candidates those of the most similar ones
  olpeat                the aliases whose embeddings without context are nearest (--round=-1: no training)
  fusion                checkpoint and string_similarity: cosine + weight · log prior

With --context_weight, checkpoint and fusion also hear the training mentions nearest to a mention, which speak
for the entities they link to: exp(scale · score) is that of the description plus weight times theirs.

Every figure is a share of all mentions: a gold that the KB lacks is a miss.

Examples:
  mel-evaluate --workdir=run --name=alias-table --model=alias_table
  mel-evaluate --workdir=run --name=round-2 --model=checkpoint --round=2
  mel-evaluate --workdir=run --name=fusion --model=fusion --split=test --fusion_weight=0.03
  mel-evaluate --workdir=run --name=round-2 --round=2 --against=alias-table,round-1
  mel-evaluate --workdir=run --name=with-contexts --model=fusion --context_weight=0.2
  mel-evaluate --workdir=run --name=news --mewsli=mewsli-9 --languages=de,ja
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import shlex
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from absl import logging

from mel.artifacts import START, Artifact, Workdir, exists, open_artifact, write_text
from mel.bin.launch import launch
from mel.config import REQUIRED, flag, group
from mel.corpora.alias_table import AliasTable
from mel.corpora.kb import KnowledgeBase, read_entities
from mel.cost import read_cost, record_cost
from mel.encoder.backend import CompilationConfig, keep_compiled
from mel.evaluation import baselines, breakdowns, calibration, fusion, olpeat, systems
from mel.evaluation import report as reports
from mel.evaluation.comparison import compare, paired_differences, read_outcomes
from mel.evaluation.contexts import add_contexts
from mel.evaluation.page import Other, choose_examples, page, read_curves
from mel.evaluation.questions import Questions, read_prepared, read_tree
from mel.evaluation.recall import Ranking
from mel.retrieval.embeddings import publish_or_open
from mel.retrieval.exact import ExactIndex
from mel.retrieval.index import Index, IndexKind, open_index, publish_index
from mel.shards.datasets import open_rows
from mel.shards.prepare import Windows
from mel.text.tokenizer import Tokenizer
from mel.training.checkpoint import Checkpoint, open_checkpoint
from mel.types import MelError, format_qid

LAST = START - 1  # the round that was trained last
FITTED = -1.0
EXAMPLES = 32

Model = Literal[
    "checkpoint", "alias_table", "alias_table_language", "alias_table_names", "string_similarity", "olpeat", "fusion"
]


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag(REQUIRED, "Folder that mel-prepare-data published into.")
    name: str = flag(REQUIRED, "Name of the report.")
    model: Model = flag("checkpoint", "What is evaluated.")
    round: int = flag(LAST, "Round whose checkpoint is evaluated; -1 is the untrained encoder, -2 the last round.")
    mewsli: str = flag("", "Mewsli-9 tree to evaluate on; the prepared --split if empty.")
    split: str = flag("mewsli", "Prepared mentions to evaluate on.")
    languages: tuple[str, ...] = flag((), "Languages to evaluate on; all that there are if empty.")
    index: IndexKind = flag("exact", "How neighbours are searched.")
    dataset: str = flag("", "What the report calls the data.")
    against: tuple[str, ...] = flag((), "Names of reports on the same mentions to compare with, in one table.")
    limit: int = flag(0, "Evaluate only the first so many mentions of each language; 0 for all.")
    max_malformed: int = flag(1000, "Most malformed records of --mewsli to skip before stopping.")
    context_weight: float = flag(0.0, "Weight of the nearest training mentions beside descriptions; 0 for none.")
    fusion_weight: float = flag(FITTED, "Weight of the prior in a fusion; -1 fits it, two-fold over documents.")
    compute: CompilationConfig = group(CompilationConfig)


class System(NamedTuple):
    """What answers, with what it tuned on the questions; and what a report says of it."""

    rank: Callable[[Questions], tuple[Ranking, dict[str, Any]]]
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
    if config.model in ("alias_table_names", "string_similarity", "fusion"):
        table.add_titles(read_entities(kb.path))
    questions = _questions(config, work)
    system = _system(config, work, table, qids_E)
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
    path, against = work.report(config.name), [work.report(name) for name in config.against]
    for other in against:
        reports.open_report(other)
    if exists(path):
        report = reports.open_same_report(path, about)
        logging.info("Evaluated already: %s", path)
    else:
        with record_cost(work.path, f"evaluate {config.name}", mentions=len(questions)):
            ranking, tuned = system.rank(questions)
            titles = breakdowns.gold_titles(read_entities(kb.path), questions.gold_Q)
            answers = reports.Answers(questions, breakdowns.group_mentions(questions, table, titles), ranking)
            figures = about | {"dropped": questions.dropped} | reports.measure(answers, qids_E)
            figures |= {"tuned": tuned} if tuned else {}
            if config.model in ("checkpoint", "fusion") and len(set(questions.documents)) > 1:
                figures["calibration"] = calibration.measure(ranking, questions.gold_Q, questions.documents, qids_E)
        write = functools.partial(_write_page, work=work, kb=kb, questions=questions, against=against)
        report = reports.publish_report(path, figures, answers, config, write)
        logging.info("Published %s", path)
    print(reports.markdown(report))
    if against:
        print(compare([*against, path]))


def _write_page(
    folder: pathlib.Path, report: reports.Report, work: Workdir, kb: Artifact, questions: Questions,
    against: Sequence[pathlib.Path],
) -> None:  # fmt: skip
    """Writes index.html beside a report, with what else is known of the run."""
    outcomes = read_outcomes(folder)
    others = [
        Other(reports.open_report(path), paired_differences(read_outcomes(path), outcomes)["all"]["all"])
        for path in against
    ]
    examples = choose_examples(reports.read_predictions(folder), seed=0, count=EXAMPLES)
    tokenizer, row_of = Tokenizer.load(work.tokenizer), {name: row for row, name in enumerate(questions.mention_ids)}
    rows = questions.rows.take(np.asarray([row_of[example["id"]] for example in examples], np.int64))
    ends = zip(rows.offsets_N1[:-1], rows.offsets_N1[1:])
    decoded = [tokenizer.decode(rows.tokens_T[start:end]) for start, end in ends]
    shown = {name for example in examples for name in (example["gold"], *(name for name, _ in example["candidates"]))}
    titles: dict[str, str] = {}
    for entity in read_entities(kb.path):
        if (name := format_qid(entity.qid)) in shown:
            titles.setdefault(name, entity.title)
    contexts = dict(zip((example["id"] for example in examples), decoded))
    html = page(
        report, others=others, curves=read_curves(work), examples=examples, contexts=contexts, titles=titles,
        costs=read_cost(work.path),
    )  # fmt: skip
    write_text(folder / "index.html", html)


def command(config: Config, number: int | None) -> str:
    """The command line that evaluates like this; W and DIR stand for folders, `number` is the round, if any."""
    said = dataclasses.asdict(config) | {"workdir": "W", "round": number}
    if config.mewsli:
        said["mewsli"] = "DIR"
    flags = []
    for field in dataclasses.fields(config):
        value = said[field.name]
        if value not in (None, field.default) and not isinstance(value, dict):  # where programs are kept says nothing
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
    number, checkpoint = open_round(work, number)
    tokens = open_artifact(work.entity_tokens, "tokens")
    embeddings, embeddings_ED = publish_or_open(
        work.round(number).entity_embeddings, checkpoint.artifact, tokens,
        checkpoint.encoder_config, checkpoint.params, open_rows(tokens, work.cache(tokens)).rows,
    )  # fmt: skip
    return Trained(number, checkpoint, embeddings, embeddings_ED)


def open_round(work: Workdir, number: int) -> tuple[int, Checkpoint]:
    """The round that is meant, which may be LAST, and its checkpoint; raises as `open_trained`."""
    if number == LAST:
        number = 0
        while exists(work.round(number + 1).checkpoint):
            number += 1
    if not exists(work.round(number).checkpoint):
        raise MelError(f"Round {number} of {work.path} has no checkpoint: run mel-train --round={number} first.")
    return number, open_checkpoint(work, number, {"entity_tokens": open_artifact(work.entity_tokens, "tokens")})


def open_windows(work: Workdir) -> Windows:
    """How the mentions that a checkpoint was trained on were cut."""
    facts = open_artifact(work.mention_tokens("train"), "tokens").facts
    return Windows(work.tokenizer, facts["max_tokens"], facts["title_in_window"])


def _questions(config: Config, work: Workdir) -> Questions:
    if config.mewsli:
        tree = pathlib.Path(config.mewsli)
        return read_tree(tree, config.languages, config.limit, open_windows(work), config.max_malformed)
    mentions = open_artifact(work.mentions(config.split), "mentions")
    tokens = open_artifact(
        work.mention_tokens(config.split), "tokens", {"tokenizer": open_artifact(work.tokenizer, "tokenizer")}
    )
    rows = open_rows(tokens, work.cache(tokens)).rows
    return read_prepared(mentions, tokens, rows, config.languages, config.limit)


def _system(config: Config, work: Workdir, table: AliasTable, qids_E: np.ndarray) -> System:
    match config.model:
        case "alias_table":
            return _without_checkpoint(lambda asked: baselines.rank_by_alias_table(table, asked))
        case "alias_table_language":
            return _without_checkpoint(lambda asked: baselines.rank_by_prior(table, asked, with_names=False))
        case "alias_table_names":
            return _without_checkpoint(lambda asked: baselines.rank_by_prior(table, asked, with_names=True))
        case "string_similarity":
            return _without_checkpoint(lambda asked: baselines.rank_by_similarity(table, asked))
        case "olpeat":
            return _olpeat(config, work, table)
        case "checkpoint" | "fusion":
            return _checkpoint(config, work, table, qids_E)


def _without_checkpoint(rank: Callable[[Questions], Ranking]) -> System:
    return System(lambda asked: (rank(asked), {}), {"round": None, "search": "exact", "seed": None}, {})


def _olpeat(config: Config, work: Workdir, table: AliasTable) -> System:
    keep_compiled(config.compute.compilation_cache)
    number, checkpoint = open_round(work, config.round)
    tokenizer = Tokenizer.load(open_artifact(work.tokenizer, "tokenizer").path)
    facts = {"round": number, "search": "exact", "seed": checkpoint.artifact.facts["settings"]["seed"]}

    def rank(asked: Questions) -> tuple[Ranking, dict[str, Any]]:
        return olpeat.rank_by_olpeat(checkpoint, tokenizer, table, asked), {}

    return System(rank, facts, {"checkpoint": checkpoint.artifact.digest})


def _checkpoint(config: Config, work: Workdir, table: AliasTable, qids_E: np.ndarray) -> System:
    """The encoder alone, or fused with the alias table."""
    weight = config.fusion_weight
    if not (weight == FITTED or 0 <= weight < math.inf):
        raise MelError(f"--fusion_weight={weight} is no weight: state 0 or more, or {FITTED:g} to fit it.")
    if not 0 <= config.context_weight < math.inf:
        raise MelError(f"--context_weight={config.context_weight} is no weight: state 0 or more.")
    keep_compiled(config.compute.compilation_cache)
    trained = open_trained(work, config.round)
    this = work.round(trained.round)
    inputs = {"checkpoint": trained.checkpoint.artifact.digest, "entity_embeddings": trained.embeddings.digest}
    index, digests = _index(config.index, this.index, trained.embeddings, trained.embeddings_ED)
    inputs |= digests
    settings = trained.checkpoint.artifact.facts["settings"]
    facts = {"round": trained.round, "search": config.index, "seed": settings["seed"]}
    if config.model == "fusion":
        facts["fusion_weight"] = weight
    if config.context_weight:
        facts["context_weight"] = config.context_weight
        hear, digests = _contexts(config, work, trained, qids_E)
        inputs |= digests

    def rank(asked: Questions) -> tuple[Ranking, dict[str, Any]]:
        queries_QD = systems.embed(trained.checkpoint, asked.rows, "mentions")
        ranking = systems.rank_by_embeddings(queries_QD, index, qids_E)
        if config.context_weight:
            ranking = hear(ranking, queries_QD)
        if config.model == "checkpoint":
            return ranking, {}
        prior = baselines.similarity_prior(table, asked, outside=1 / len(np.unique(qids_E)))
        pool = fusion.pool(asked, ranking, prior, queries_QD, trained.embeddings_ED, qids_E)
        if weight == FITTED:
            return fusion.fuse_cross_fitted(pool, asked.gold_Q, asked.documents)
        return fusion.fuse(pool, np.full(len(asked), weight)), {}

    return System(rank, facts, inputs)


def _contexts(
    config: Config, work: Workdir, trained: Trained, qids_E: np.ndarray
) -> tuple[Callable[[Ranking, np.ndarray], Ranking], dict[str, str]]:
    """What adds the training mentions to a ranking, given the embeddings of what is asked; and its inputs' digests."""
    tokens = open_artifact(work.mention_tokens("train"), "tokens")
    mentions, this, checkpoint = open_rows(tokens, work.cache(tokens)), work.round(trained.round), trained.checkpoint
    embeddings, embeddings_MD = publish_or_open(
        this.mention_embeddings, checkpoint.artifact, tokens, checkpoint.encoder_config, checkpoint.params,
        mentions.rows,
    )  # fmt: skip
    index, digests = _index(config.index, this.mention_index, embeddings, embeddings_MD)

    def hear(ranking: Ranking, queries_QD: np.ndarray) -> Ranking:
        return add_contexts(
            ranking, queries_QD, index, mentions.qids_N, trained.embeddings_ED, qids_E, config.context_weight,
            checkpoint.logit_scale,
        )  # fmt: skip

    inputs = {"mention_embeddings": embeddings.digest} | {f"mention_{name}": it for name, it in digests.items()}
    return hear, inputs


def _index(
    kind: IndexKind, path: pathlib.Path, embeddings: Artifact, embeddings_ND: np.ndarray
) -> tuple[Index, dict[str, str]]:
    """An index, and the digest of a published one. ScaNN's is built once: another would answer otherwise."""
    if kind == "exact":
        return ExactIndex(embeddings_ND), {}
    if not exists(path):
        publish_index(path, "scann", embeddings)
    published = open_artifact(path, "index")
    if published.facts["kind"] != "scann":
        raise MelError(f"{path} is not a ScaNN index: evaluate with --index=exact, or delete it.")
    return open_index(path, embeddings), {"index": published.digest}


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
