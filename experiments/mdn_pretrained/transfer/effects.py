"""What fine-tuning on one language gives the others: R@1 by source and target, and what both have in common.

    python -m experiments.mdn_pretrained.transfer.effects keep --workdir=W
    python -m experiments.mdn_pretrained.transfer.effects

The first keeps the ranks of all finished runs (of run_grid), and of the reports of W that stand beside them, in
ranks.npz; the second makes README.md's results from that file alone. Every mention of the file says which sources
link its gold while they train, with any seed, so that sources are compared on entities that all of them have seen, and
on those that none has.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from experiments import curves, programs, ranks
from experiments.mdn_pretrained.transfer.similarity import PREFIX, ranks_by_source
from experiments.programs import launch
from experiments.ranks import Ranks, shown, signed
from experiments.run_grid import Run
from experiments.transfer.matrix import MIXED, SCRIPTS
from mel.artifacts import Workdir, exists, open_artifact
from mel.corpora.kb import KnowledgeBase
from mel.evaluation.intervals import interval, resampled_means
from mel.reports.report import SEED, table
from mel.shards.datasets import open_rows
from mel.shards.selection import MentionOrder, usable_mentions
from mel.types import MelError

EXPERIMENT = pathlib.Path(__file__).resolve().parent
FILE = EXPERIMENT / "ranks.npz"
BESIDE = ("alias_table", "string-similarity", "before-training", "olpeat-before-training")
SOURCES = "sources"  # the column of the sources that link a mention's gold, separated by spaces
FAMILIES = {"Romance": ("es", "fr", "pt"), "Germanic": ("en",), "Slavic": ("ru",)}
EFFECTS = "the same language", "another of the same family", "another of the same script only"


def keep(work: Workdir, runs: pathlib.Path) -> None:
    """Writes the ranks of all finished runs, and of the reports beside them."""
    found = curves.read_runs(EXPERIMENT, runs)
    reports = {name: work.report(name) for name in BESIDE if exists(work.report(name))}
    for source, of_source in found.items():
        for finished in of_source:
            last = finished.points[-1].report["name"]
            reports[f"{source}, seed {finished.run.seed}"] = Workdir(finished.run.path).report(last)
    FILE.unlink(missing_ok=True)
    kept = ranks.keep(FILE, reports)
    drawn = {source: [drawn_by(done.run) for done in some] for source, some in found.items() if source not in MIXED}
    linked = {source: set[str]().union(*(linked_by(work, each_n) for each_n in some)) for source, some in drawn.items()}
    firsts = {source: some[0] for source, some in drawn.items()}
    kept = dataclasses.replace(kept, ranks={**kept.ranks, **dict(ranks_by_source(work, firsts))})
    column = [" ".join(source for source, golds in linked.items() if gold in golds) for gold in golds_of(reports)]
    ranks.write(FILE, dataclasses.replace(kept, columns={**kept.columns, SOURCES: np.array(column)}))


def drawn_by(run: Run) -> np.ndarray:
    """The numbers of the training mentions that the batches of a run draw."""
    work, config = Workdir(run.path), programs.parse("run_rounds", run.flags).train
    tokens = open_artifact(work.mention_tokens("train"), "tokens")
    mentions = open_rows(tokens, work.cache(tokens))
    chosen = config.train_languages, config.train_mentions, config.seed
    order = MentionOrder(usable_mentions(mentions, tokens.facts["languages"], *chosen), config.batch_size, config.seed)
    return order.asked(0, config.rounds * config.steps_per_round)


def linked_by(work: Workdir, drawn_n: np.ndarray) -> set[str]:
    """The golds of some training mentions."""
    tokens = open_artifact(work.mention_tokens("train"), "tokens")
    entities_n = open_rows(tokens, work.cache(tokens)).entities_N[drawn_n]
    kb = open_artifact(work.kb, "kb")
    ids = KnowledgeBase.read(kb.path, kb.facts["languages"]).ids
    return {ids[number] for number in np.unique(entities_n).tolist()}


def golds_of(reports: Mapping[str, pathlib.Path]) -> list[str]:
    """The gold of every mention, in the order of the ranks."""
    with open(next(iter(reports.values())) / "predictions.jsonl", "rb") as lines:
        return [json.loads(line)["gold"] for line in lines]


def by_source(kept: Ranks) -> dict[str, np.ndarray]:
    """The mean over seeds of the hits of each source, [Q]."""
    seeds: dict[str, list[np.ndarray]] = {}
    for name in kept.ranks:
        source, comma, _ = name.partition(", seed ")
        if comma:
            seeds.setdefault(source, []).append(kept.hits(name))
    if not seeds:
        raise MelError(f"{FILE} has no run's ranks: run the grid, and then keep.")
    return {source: np.mean(hits, axis=0) for source, hits in seeds.items()}


def matrix(kept: Ranks, hits: Mapping[str, np.ndarray]) -> list[str]:
    """A row a system or source, a column a target; and the mean over the targets that are not the source."""
    language_Q = kept.columns["language"]
    targets = sorted(set(language_Q.tolist()))
    rows = []
    for name, hits_Q in hits.items():
        cells = [hits_Q[language_Q == target].mean() for target in targets]
        marked = [f"**{cell:.3f}**" if target == name else f"{cell:.3f}" for target, cell in zip(targets, cells)]
        rows.append([name, *marked, f"{np.mean([c for t, c in zip(targets, cells) if t != name]):.3f}"])
    return table(["trained on", *targets, "the others"], rows)


def against(kept: Ranks, hits: Mapping[str, np.ndarray], rivals: Sequence[str]) -> list[str]:
    """R@1 on the languages that a source is not, by whether its training links the gold, minus each rival's there."""
    rows = []
    for source in (name for name in hits if name not in MIXED):
        other_Q = kept.columns["language"] != source
        links_Q = np.array([source in sources.split() for sources in kept.columns[SOURCES].tolist()])
        groups = {"": other_Q, ", gold linked": other_Q & links_Q, ", gold not linked": other_Q & ~links_Q}
        for label, chosen_Q in ((label, chosen_Q) for label, chosen_Q in groups.items() if chosen_Q.any()):
            some = dataclasses.replace(kept, columns={name: column[chosen_Q] for name, column in kept.columns.items()})
            own_q = hits[source][chosen_Q]
            beside = [*rivals, *(name for name in [PREFIX + source] if name in kept.ranks)]
            differences = [signed(*some.mean(own_q - kept.hits(rival)[chosen_Q])) for rival in beside]
            rows.append([f"{source}{label}", f"{chosen_Q.sum():,}", shown(*some.mean(own_q)), *differences])
    heading = [*rivals, f"{PREFIX}the source"][: len(rows[0]) - 3]
    return table(["trained on, other languages", "mentions", "R@1", *(f"minus {rival}" for rival in heading)], rows)


def effects(kept: Ranks, hits: Mapping[str, np.ndarray], chosen_Q: np.ndarray) -> list[tuple[float, ranks.Interval]]:
    """What each of `EFFECTS` is worth, with source and target effects taken out by least squares.

    R@1 of a pair = an effect of its source + one of its target + the effect of what they have in common; intervals are
    those of the pages, drawn alike for all pairs.
    """
    language_q, page_q = kept.columns["language"][chosen_Q], kept.columns["page"][chosen_Q]
    sources, targets = [name for name in hits if name not in MIXED], sorted(set(language_q.tolist()))
    design_PF, values_PR = [], []
    for number, source in enumerate(sources):
        hits_q = hits[source][chosen_Q]
        drawn = resampled_means(hits_q, page_q, {"": language_q}, np.random.default_rng(SEED))[""]
        for place, target in enumerate(targets):
            row_F = np.zeros(len(sources) + len(targets) + len(EFFECTS))
            row_F[number] = row_F[len(sources) + place] = 1
            if (common := in_common(source, target)) is not None:
                row_F[len(sources) + len(targets) + common] = 1
            design_PF.append(row_F)
            values_PR.append([hits_q[language_q == target].mean(), *drawn[target]])
    found_FR = (np.linalg.pinv(np.array(design_PF)) @ np.array(values_PR))[-len(EFFECTS) :]
    return [(float(found_R[0]), interval(found_R[1:])) for found_R in found_FR]


def in_common(source: str, target: str) -> int | None:
    """Which of `EFFECTS` holds of a pair."""
    if source == target:
        return 0
    if any(source in family and target in family for family in FAMILIES.values()):
        return 1
    return 2 if any(source in script and target in script for script in SCRIPTS.values()) else None


def results(kept: Ranks) -> list[list[str]]:
    """The parts of the page."""
    hits, beside = by_source(kept), [name for name in BESIDE if name in kept.ranks]
    count_Q = np.array([len(sources.split()) for sources in kept.columns[SOURCES].tolist()])
    chosen = {"all": count_Q >= 0, "gold linked by all sources": count_Q == len([s for s in hits if s not in MIXED]),
              "gold linked by no source": count_Q == 0}  # fmt: skip
    rows = [
        [name, f"{chosen_Q.sum():,}", *(signed(*effect) for effect in effects(kept, hits, chosen_Q))]
        for name, chosen_Q in chosen.items()
        if chosen_Q.any()
    ]
    runs = sum(", seed " in name for name in kept.ranks)
    return [
        [f"MDN hyperlink disambiguation, dev; R@1 over {len(count_Q):,} mentions; {runs} runs, means over seeds."],
        matrix(kept, {**{name: kept.hits(name) for name in beside}, **hits}),
        against(kept, hits, [name for name in beside if name != "alias_table"]),
        table(["mentions", "number", *(f"source and target are {effect}" for effect in EFFECTS)], rows),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("keep",), help="keep the ranks of W's runs first")
    parser.add_argument("--workdir", type=pathlib.Path, help="W, where the grid ran")
    options = parser.parse_args(argv)
    if options.command:
        if not options.workdir:
            raise MelError("keep needs --workdir=W.")
        keep(Workdir(options.workdir), options.workdir / "experiments" / EXPERIMENT.name)
    curves.write_results(EXPERIMENT / "README.md", results(ranks.read(FILE)))


if __name__ == "__main__":
    launch(main)
