"""Fusion over the ten candidates that a report keeps of each mention, where its checkpoint is not at hand.

    python -m experiments.mdn_pretrained.fusion_of_ten --workdir=W --report=W/reports/round-4 --file=ranks.npz

As `mel-evaluate --model=fusion`, with weights fitted on one half of the pages for the other, but that it puts ten
candidates in a new order, and not the first hundred with those that the alias table knows; so it can do no better than
the encoder's R@10. The ranks are kept in --file as "REPORT-fusion-of-ten".
"""

from __future__ import annotations

import argparse
import json
import pathlib

import numpy as np

from experiments import ranks
from experiments.programs import launch
from mel.artifacts import Workdir, open_artifact
from mel.corpora.alias_table import AliasTable
from mel.corpora.kb import KnowledgeBase
from mel.corpora.similarity import similarity_prior
from mel.evaluation.evaluation_set import read_prepared
from mel.evaluation.fusion import Pool
from mel.systems.fusion import fuse_cross_fitted
from mel.types import MelError

CANDIDATES = 10


def pool_of(report: pathlib.Path, work: Workdir) -> tuple[Pool, np.ndarray, list[str]]:
    """The candidates of a report's mentions, their golds, and their pages.

    Raises:
      MelError: the report's mentions are not those of the working directory.
    """
    opened = open_artifact(work.kb, "kb")
    kb = KnowledgeBase.read(opened.path, opened.facts["languages"])
    mentions = read_prepared(work, "mewsli", kb)
    with open(report / "predictions.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    if [line["id"] for line in lines] != mentions.ids:
        raise MelError(f"The mentions of {report} are not those of {work.path}.")
    table = AliasTable.read(open_artifact(work.alias_table, "alias table").path)
    table.add_titles(kb)
    prior = similarity_prior(table, mentions.lookups, 1 / kb.entity_rows.count(), "mentions")
    numbers = {name: number for number, name in enumerate(kb.ids)}
    entities_QC = np.array([[numbers[name] for name, _ in line["candidates"][:CANDIDATES]] for line in lines])
    cosines_QC = np.array([[score for _, score in line["candidates"][:CANDIDATES]] for line in lines], np.float32)
    priors = [prior(*lookup) for lookup in mentions.lookups]
    log_priors_QC = np.log([
        [known.get(entity, other) for entity in entities_C]
        for (known, other), entities_C in zip(priors, entities_QC.tolist(), strict=True)
    ]).astype(np.float32)  # fmt: skip
    return Pool(entities_QC, cosines_QC, log_priors_QC), mentions.gold_Q, [line["cluster"] for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="what mel-prepare-data published into")
    parser.add_argument("--report", type=pathlib.Path, required=True, help="a report on it by the encoder alone")
    parser.add_argument("--file", type=pathlib.Path, required=True, help="ranks.npz that has the same mentions")
    options = parser.parse_args()
    pool, gold_Q, pages = pool_of(options.report, Workdir(options.workdir))
    ranking, fitted = fuse_cross_fitted(pool, gold_Q, pages)
    rank_Q = ranks.ranks_of(ranking, gold_Q)
    kept = ranks.read(options.file)
    name = f"{options.report.name}-fusion-of-ten"
    ranks.write(options.file, ranks.Ranks(kept.mentions, kept.columns, {**kept.ranks, name: rank_Q}))
    print(f"{name}: R@1 {np.mean(rank_Q == 1):.4f}, {fitted}")


if __name__ == "__main__":
    launch(main)
