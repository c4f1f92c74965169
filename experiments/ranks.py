"""Keeps the rank of every mention's gold, a byte each, so that anybody can make a table again and audit it.

    python -m experiments.ranks keep --file=experiments/mdn_pretrained/ranks.npz NAME=REPORT ...
    python -m experiments.ranks show --file=experiments/mdn_pretrained/ranks.npz [--against=NAME,NAME]

A REPORT is a folder reports/... of a working directory. The file holds the mentions once (language, page, and whether
training has linked the surface form and the gold) and of each system a row of ranks: 1 to 100, 0 where the gold is not
among the first hundred. All systems of a file were asked the same mentions, in the same order.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.programs import launch
from mel.evaluation.breakdowns import IN_TRAINING
from mel.evaluation.intervals import Interval, interval, resampled_means
from mel.evaluation.ranking import Ranking
from mel.evaluation.recall import gold_rank
from mel.reports.report import SEED, table
from mel.types import MelError

LINKED = "gold linked in training"
COLUMNS = {"language": "language", "page": "cluster", "form": IN_TRAINING, "gold": LINKED}  # and where a line has them
DEPTHS = (1, 10, 100)
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Ranks:
    """What Q mentions are, and where each of some systems has their golds.

    Attributes:
      mentions: sha256 of their ids, in order.
      columns: what each mention is, by the names of `COLUMNS`: str [Q].
      ranks: by system: uint8 [Q], 0 where the gold is missing.
    """

    mentions: str
    columns: Mapping[str, np.ndarray]
    ranks: Mapping[str, np.ndarray]

    def hits(self, system: str, depth: int = 1) -> np.ndarray:
        """1.0 where the gold is among the first `depth`: float64 [Q].

        Raises:
          MelError: there is no such system.
        """
        if system not in self.ranks:
            raise MelError(f"There are no ranks of {system!r}: there are those of {', '.join(self.ranks)}.")
        rank_Q = self.ranks[system]
        return ((rank_Q > 0) & (rank_Q <= depth)).astype(np.float64)

    def mean(self, values_Q: np.ndarray, column: str = "", value: str = ALL) -> tuple[float, Interval]:
        """The mean over the mentions of which `column` is `value`, and its interval over pages.

        Args:
          values_Q: such as `hits`, the difference of two systems' or a mean over seeds.
        """
        group_Q = self.columns[column] if column else np.full(len(values_Q), ALL)
        means_R = resampled_means(values_Q, self.columns["page"], {"": group_Q}, np.random.default_rng(SEED))[""]
        return float(values_Q[group_Q == value].mean()), interval(means_R[value])


def read_report(folder: pathlib.Path) -> Ranks:
    """The ranks in one report, under its folder's name.

    Raises:
      MelError: it is no report.
    """
    ids, columns, ranks = hashlib.sha256(), {name: [] for name in COLUMNS}, []
    try:
        with open(folder / "predictions.jsonl", "rb") as lines:
            for line in map(json.loads, lines):
                ids.update(f"{line['id']}\n".encode())
                for name, key in COLUMNS.items():
                    columns[name].append(line[key] if key in line else line["groups"][key])
                ranks.append(0 if line["rank"] is None else line["rank"] + 1)
    except (OSError, KeyError, ValueError) as error:
        raise MelError(f"{folder} is no report with predictions.jsonl ({error!r}).") from None
    named = {name: np.array(values) for name, values in columns.items()}
    return Ranks(ids.hexdigest(), named, {folder.name: np.array(ranks, np.uint8)})


def keep(file: pathlib.Path, reports: Mapping[str, pathlib.Path]) -> Ranks:
    """Adds the ranks of reports, by the name of each, to those of the file, and writes it.

    Raises:
      MelError: a report is of other mentions.
    """
    kept = read(file) if file.exists() else None
    for name, folder in reports.items():
        found = read_report(folder)
        if kept and found.mentions != kept.mentions:
            raise MelError(f"{folder} is of other mentions than {file}: keep it in a file of its own.")
        kept = Ranks(found.mentions, found.columns, {**(kept.ranks if kept else {}), name: found.ranks[folder.name]})
    if kept is None:
        raise MelError("Nothing to keep: name reports as NAME=FOLDER.")
    write(file, kept)
    return kept


def write(file: pathlib.Path, kept: Ranks) -> None:
    """Writes columns as numbers and the names they stand for, and all ranks as one array."""
    arrays = {"mentions": np.array(kept.mentions), "systems": np.array(list(kept.ranks))}
    for name, values_Q in kept.columns.items():
        arrays[f"{name}_names"], code_Q = np.unique(values_Q, return_inverse=True)
        arrays[name] = code_Q.astype(np.uint8 if len(arrays[f"{name}_names"]) <= 256 else np.uint16)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **arrays, ranks=np.stack(list(kept.ranks.values())))


def read(file: pathlib.Path) -> Ranks:
    """What `write` wrote.

    Raises:
      MelError: there is no such file.
    """
    if not file.exists():
        raise MelError(f"There are no ranks at {file}.")
    with np.load(file) as arrays:
        names = [name.removesuffix("_names") for name in arrays.files if name.endswith("_names")]
        columns = {name: arrays[f"{name}_names"][arrays[name]] for name in names}
        return Ranks(str(arrays["mentions"]), columns, dict(zip(arrays["systems"].tolist(), arrays["ranks"])))


def figures(kept: Ranks, systems: Sequence[str], against: Sequence[str] = ()) -> list[str]:
    """A row a system: R@1 with its interval, by surface form, R@10, R@100, and R@1 minus that of other systems.

    Where there are rounds, named `…round-1` and so on, one column has R@1 minus that of the round before.
    """
    forms = [form for form in ("ambiguous", "unseen") if (kept.columns["form"] == form).any()]
    before = {system: round_before(system) for system in systems if round_before(system) in systems}
    rows = []
    for system in systems:
        hits_Q = kept.hits(system)
        cells = [shown(*kept.mean(hits_Q))] + [f"{hits_Q[kept.columns['form'] == form].mean():.3f}" for form in forms]
        cells += [f"{kept.hits(system, depth).mean():.3f}" for depth in DEPTHS[1:]]
        for other in [*against, *([before.get(system, system)] if before else [])]:
            cells.append("–" if system == other else signed(*kept.mean(hits_Q - kept.hits(other))))
        rows.append([system, *cells])
    header = ["system", "R@1", *(f"R@1 {form}" for form in forms), *(f"R@{depth}" for depth in DEPTHS[1:])]
    others = [*against, *(["the round before"] if before else [])]
    return table(header + [f"R@1 minus {other}" for other in others], rows)


def ranks_of(ranking: Ranking, gold_Q: np.ndarray) -> np.ndarray:
    """As a file keeps them, from 1 on and 0 where the gold is not among the first hundred: uint8 [Q]."""
    rank_Q = gold_rank(ranking, gold_Q)
    return np.where(rank_Q < DEPTHS[-1], rank_Q + 1, 0).astype(np.uint8)


def in_order(kept: Ranks) -> list[str]:
    """The names of the systems: rounds last, recipe by recipe as they were kept."""
    recipe_of = {name: name.rpartition("round-")[:2] for name in kept.ranks}
    recipes = list(dict.fromkeys(recipe_of.values()))
    return sorted(kept.ranks, key=lambda name: (bool(recipe_of[name][1]), recipes.index(recipe_of[name])))


def round_before(system: str) -> str:
    """The name of the round before the one that a system is named after; "" if it is no later round."""
    name, dash, number = system.rpartition("-")
    is_later = name.endswith("round") and number.isdecimal() and int(number) > 0
    return f"{name}{dash}{int(number) - 1}" if is_later else ""


def shown(mean: float, bounds: Interval) -> str:
    return f"{mean:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def signed(mean: float, bounds: Interval) -> str:
    return f"{mean:+.4f} [{bounds[0]:+.4f}, {bounds[1]:+.4f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("keep", "show"):
        command = commands.add_parser(name)
        command.add_argument("--file", type=pathlib.Path, required=True, help="the file of ranks")
    commands.choices["keep"].add_argument("reports", nargs="+", metavar="NAME=REPORT", help="a report and its name")
    help_of_against = "the system that all are compared with, or several, separated by commas"
    commands.choices["show"].add_argument("--against", default="", help=help_of_against)
    chosen = parser.parse_args(arguments)
    if chosen.command == "keep":
        named = [report.rpartition("=") for report in chosen.reports]
        keep(chosen.file, {name: pathlib.Path(folder) for name, _, folder in named})
        return
    kept = read(chosen.file)
    print(f"{len(kept.columns['page']):,} mentions, {len(np.unique(kept.columns['page'])):,} pages")
    print("\n".join(figures(kept, in_order(kept), chosen.against.split(",") if chosen.against else ())))


if __name__ == "__main__":
    launch(main)
