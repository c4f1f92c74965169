"""Training on texts of varying length: mel against sentence-transformers at its best, in real tokens a second.

    python -m experiments.benchmarks.train_variable_length [--workdir=W] [--compact]

A step of 256 mentions with three hard negatives each, on the same batches, from the same weights. The rival is
SentenceTransformerTrainer with the plain or the cached loss, whichever mini-batch makes it fastest on one step.
Both train the full token table; with --compact mel trains its rows in use alone, as mel-train does, and the rival,
which cannot, still trains all of it: a measure of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.benchmarks import workload
from experiments.benchmarks.harness import Run, Target, in_turn, options, parser, publish
from experiments.benchmarks.training_rivals import BATCHES_OF_TEXTS, SWEPT_LOSSES, fastest, sentence_side
from experiments.benchmarks.workload import Ours, Spec
from experiments.programs import launch

TARGET = Target(passes=2.0, stretch=3.5)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = options(training_flags(__doc__), argv)
    measure = "variable length, against sentence-transformers"
    return compare("train_variable_length", measure, TARGET, workload.spec_of(chosen), chosen)


def training_flags(description: str | None, mentions: int = 256) -> argparse.ArgumentParser:
    """The flags of the benchmarks of whole training steps."""
    flags = workload.add_flags(parser(description), mentions)
    flags.add_argument("--compact", action="store_true", help="mel trains the token rows in use, as mel-train does")
    return flags


def compare(name: str, measure: str, target: Target, spec: Spec, chosen: argparse.Namespace) -> dict[str, Any]:
    """Publishes mel's rate against the best rate of sentence-transformers on this workload."""
    swept = ("plain", "rows 8") if spec.tiny else SWEPT_LOSSES
    with workload.initial_weights(spec) as folder:
        best, seconds = fastest({loss: (sentence_side, spec, folder, loss) for loss in swept})
        ours = workload.our_side, spec, folder, Ours(compact=chosen.compact)
        sides = {"ours": ours, f"sentence-transformers, {best}": (sentence_side, spec, folder, best)}
        runs = in_turn(sides, chosen.repeats)
    details = workload.facts(spec, runs) | {"rival_sweep_seconds": seconds, "compact": chosen.compact}
    name, measure = f"{name}_{spec.batch_size}", f"training, {spec.batch_size} mentions, {measure}"
    if chosen.compact:
        name, measure = f"{name}_compact", f"{measure}, which trains the full token table, mel the rows in use"
    return publish(name, measure, target, rates(spec, runs), "real tokens/s", chosen.results, details)


def rates(spec: Spec, runs: Mapping[str, Sequence[Run]]) -> dict[str, list[float]]:
    """Real tokens a second of interleaved turns, the first one being the warm-up; a rival's batches go round."""
    work, steps = workload.make_work(spec), spec.steps_a_turn
    tokens_n = [workload.real_tokens(work, spec, n) for n in range(BATCHES_OF_TEXTS)]

    def tokens(turn: int) -> int:
        return sum(tokens_n[n % BATCHES_OF_TEXTS] for n in range(turn * steps, (turn + 1) * steps))

    return {
        side: [tokens(number) / run.seconds for number, run in enumerate(turns, start=1)]
        for side, turns in runs.items()
    }


if __name__ == "__main__":
    launch(main)
