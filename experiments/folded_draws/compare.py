"""How much R@1 gains when mining draws anew in every round: the table of README.md, by round and over both seeds.

python -m experiments.folded_draws.compare --out=OUT        # what run.sh left there
"""

from __future__ import annotations

import argparse
import pathlib

import numpy as np

from experiments.curves import write_results
from experiments.programs import launch
from mel.artifacts import Workdir
from mel.evaluation.intervals import interval, resampled_means
from mel.reports.comparison import Outcomes, read_compared
from mel.reports.report import SEED, table
from mel.types import MelError

EXPERIMENT = pathlib.Path(__file__).resolve().parent
ALL, GROUPS = "all", ("all", "ambiguous", "unseen")


def read_outcomes(out: pathlib.Path, arm: str, seed: int, number: int) -> Outcomes:
    return read_compared(Workdir(out / f"{arm}-{seed}").report(f"round-{number}")).outcomes


def groups_of(outcomes: Outcomes) -> list[str]:
    (heading,) = (name for name, groups in outcomes.headings.items() if "ambiguous" in groups)
    return list(outcomes.headings[heading])


def rows(out: pathlib.Path, seeds: list[int], rounds: int) -> list[list[str]]:
    """A row for each round and group: R@1 of each arm and seed, and the paired difference of the seeds' mean.

    Raises:
      MelError: the arms were not asked the same mentions.
    """
    lines = []
    for number in range(1, rounds):
        arms = {arm: [read_outcomes(out, arm, seed, number) for seed in seeds] for arm in ("same", "anew")}
        first, *others = [outcomes for of_arm in arms.values() for outcomes in of_arm]
        if any(other.mentions != first.mentions for other in others):
            raise MelError(f"The runs in {out} were not evaluated on the same mentions.")
        hits = {arm: np.stack([each.gold_rank_Q == 0 for each in of_arm]) for arm, of_arm in arms.items()}
        gain_Q = hits["anew"].mean(axis=0) - hits["same"].mean(axis=0)
        seen = groups_of(first)
        headings = {ALL: [ALL] * len(gain_Q), "in training": seen}
        means = resampled_means(gain_Q, first.clusters, headings, np.random.default_rng(SEED))
        for group in GROUPS:
            in_group_Q = np.full(len(gain_Q), True) if group == ALL else np.asarray(seen) == group
            low, high = interval(means[ALL if group == ALL else "in training"][group])
            figures = [f"{hits[arm][s, in_group_Q].mean():.4f}" for s in range(len(seeds)) for arm in hits]
            gain = gain_Q[in_group_Q].mean()
            lines.append(
                [f"{number}, {group}", f"{in_group_Q.sum():,}", *figures, f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]"]
            )
    return lines


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", type=pathlib.Path, required=True, help="the folder that run.sh was given")
    out = flags.parse_args().out
    seeds = sorted(int(path.name.removeprefix("anew-")) for path in out.glob("anew-[0-9]"))
    if not seeds:
        raise MelError(f"--out={out} holds no runs: experiments/folded_draws/run.sh makes them.")
    rounds = sum(1 for _ in Workdir(out / "anew-0").path.glob("reports/round-*"))
    header = ["round, mentions", "mentions", *(f"{arm}, seed {seed}" for seed in seeds for arm in ("same", "anew"))]
    lines = table([*header, "anew minus same, mean of seeds"], rows(out, seeds, rounds))
    write_results(EXPERIMENT / "README.md", ["MDN hyperlink disambiguation, dev; R@1.", lines])


if __name__ == "__main__":
    launch(main)
