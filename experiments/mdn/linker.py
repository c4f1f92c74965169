"""Whether `mel.Linker` answers the dev mentions as `mel-evaluate --model=fusion` does, mention by mention.

The texts are read from the Mewsli tree as they are, the bundle is the one in the working directory, and the system is
evaluated with the bundle's own weights and index. Prints R@1 of both, how many first answers and how many of the first
ten are the same in the same order, and the greatest difference of scores.

  mel-export --workdir=W --calibrate_on=mewsli
  python -m experiments.mdn.linker --workdir=W --mewsli=mewsli
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.programs import launch
from mel.artifacts import Workdir, open_artifact
from mel.corpora import mewsli
from mel.corpora.malformed import Malformed
from mel.evaluation.evaluation_set import EvaluationSet, read_prepared
from mel.evaluation.ranking import Ranking
from mel.linking.linker import Linker, Text
from mel.systems.system import SystemConfig, open_system
from mel.types import Link, MelError

SPLIT = "mewsli"
TOP = 10


def texts_of(tree: pathlib.Path, languages: Sequence[str]) -> list[Text]:
    """The pages of a Mewsli tree with the spans of their mentions, in the order in which they are prepared."""
    return [
        Text(document.text, [mention.span for mention in document.mentions], language, document.title)
        for language in languages
        for document in mewsli.read_documents(tree, language, Malformed(0))
    ]


def evaluated(work: Workdir, linker: Linker, mentions: EvaluationSet) -> Ranking:
    """What the system with the bundle's weights answers."""
    bundle = open_artifact(work.bundle, "bundle")
    config = SystemConfig(
        model="fusion" if linker.bundle.fusion_weight else "checkpoint", round=bundle.facts["round"],
        index=bundle.facts["index"], context_weight=bundle.facts["context_weight"],
        fusion_weight=linker.bundle.fusion_weight,
    )  # fmt: skip
    system, _ = open_system(config, work, linker.bundle.kb)
    return system.rank(mentions)[0]


def compare(links: Sequence[Link], ranking: Ranking, mentions: EvaluationSet, ids: Sequence[str]) -> list[str]:
    """The figures, a line each."""
    if [link.surface_form for link in links] != mentions.surface_forms:
        raise MelError("The tree holds other mentions than those that were prepared: give the one of --mewsli.")
    golds = [ids[gold] if gold > 0 else "" for gold in mentions.gold_Q.tolist()]
    theirs = [[ids[entity] for entity in entities_k if entity] for entities_k in ranking.entities_QK[:, :TOP].tolist()]
    ours = [[candidate.id for candidate in link.candidates] for link in links]
    scores = np.array([[candidate.score for candidate in link.candidates] for link in links])
    same = [one == other for one, other in zip(ours, theirs, strict=True)]
    first = [one[0] == other[0] for one, other in zip(ours, theirs, strict=True)]
    return [
        f"R@1 of mel.Linker: {r_at_1(ours, golds):.4f}",
        f"R@1 of the evaluated system: {r_at_1(theirs, golds):.4f}",
        f"same first answer: {sum(first)} of {len(first)}",
        f"same first {TOP} in the same order: {sum(same)} of {len(same)}",
        f"greatest difference of scores: {np.abs(scores - ranking.scores_QK[:, :TOP]).max():.2g}",
    ]


def r_at_1(answers: Sequence[Sequence[str]], golds: Sequence[str]) -> float:
    """The share of mentions whose first candidate is right."""
    return sum(names[0] == gold for names, gold in zip(answers, golds, strict=True)) / len(golds)


def main(argv: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workdir", required=True, help="with a bundle and the rounds it was made of")
    options.add_argument("--mewsli", required=True, help="the tree of the dev mentions")
    chosen = options.parse_args(argv)
    work = Workdir(chosen.workdir)
    linker = Linker.load(work.bundle)
    mentions = read_prepared(work, SPLIT, linker.bundle.kb)
    languages = open_artifact(work.mentions(SPLIT), "mentions").facts["languages"]
    found = linker.link_batch(texts_of(pathlib.Path(chosen.mewsli), languages), top_k=TOP)
    links = [link for of_text in found for link in of_text]
    print(f"weight of the prior {linker.bundle.fusion_weight:g}")
    print("\n".join(compare(links, evaluated(work, linker, mentions), mentions, linker.bundle.kb.ids)))


if __name__ == "__main__":
    launch(main)
