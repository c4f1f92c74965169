"""Prints what the quickstart linked and a table of its reports.

Exits with a sentence and status 1 unless every round beat the one before on ambiguous names, and the
last one the alias table.

    python experiments/quickstart/show_table.py WORKDIR LINKS
"""

import itertools
import json
import sys

from mel.artifacts import Workdir
from mel.evaluation.breakdowns import IN_TRAINING
from mel.reports.comparison import comparison_table
from mel.reports.report import Report, open_report, open_rounds


def main(workdir: str, links: str) -> None:
    print_links(links)
    work = Workdir(workdir)
    rounds = open_rounds(work)
    alias_table = open_report(work.report("alias_table"))
    print(comparison_table([alias_table, *rounds]))
    for worse, better in [*itertools.pairwise(rounds), (alias_table, rounds[-1])]:
        if not on_ambiguous(better) > on_ambiguous(worse):
            sys.exit(f"On ambiguous names {better['name']} is no better than {worse['name']}.")


def print_links(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        for text in map(json.loads, file):
            for link in text["links"]:
                print(f"{text['id']}: {link['surface_form']} -> {link['title']} ({link['id']}, {link['score']:.3f})")
    print()


def on_ambiguous(report: Report) -> float:
    return report["breakdowns"][IN_TRAINING]["ambiguous"]["r@1"]


if __name__ == "__main__":
    main(*sys.argv[1:])
