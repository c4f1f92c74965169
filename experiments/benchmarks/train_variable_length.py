"""Training on texts of varying length: mel against sentence-transformers at its best, in real tokens a second.

    python -m experiments.benchmarks.train_variable_length [--workdir=W] [--compact]

A step of 256 mentions with three hard negatives each, on the same batches, from the same weights. The rival is
SentenceTransformerTrainer with the plain or the cached loss, whichever mini-batch makes it fastest on one step.
Both train the full token table, unless --compact leaves that to the rival alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.harness import Target, child, interleave, options, parser, publish
from experiments.benchmarks.training_rivals import SWEPT_LOSSES, fastest, sentence_side
from experiments.benchmarks.workload import (
    Ours,
    Spec,
    add_flags,
    facts,
    initial_weights,
    make_work,
    our_side,
    real_tokens,
    spec_of,
)

TARGET = Target(passes=2.0, stretch=3.5)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = options(training_flags(__doc__), argv)
    measure = "training, variable length, against sentence-transformers"
    return compare("train_variable_length", measure, TARGET, spec_of(chosen), chosen)


def training_flags(description: str | None, mentions: int = 256) -> argparse.ArgumentParser:
    """The flags of the benchmarks of whole training steps."""
    flags = add_flags(parser(description), mentions)
    flags.add_argument("--compact", action="store_true", help="mel trains only the token rows in use")
    return flags


def compare(name: str, measure: str, target: Target, spec: Spec, chosen: argparse.Namespace) -> dict[str, Any]:
    """Publishes mel's rate against the best rate of sentence-transformers on this workload."""
    swept = ("plain", "rows 8") if spec.tiny else SWEPT_LOSSES
    with initial_weights(spec) as folder:
        best, seconds = fastest({loss: (sentence_side, spec, folder, loss) for loss in swept})
        ours = child(our_side, spec, folder, Ours(compact=chosen.compact))
        with ours as run, child(sentence_side, spec, folder, best) as rival:
            runs = interleave({"ours": run, f"sentence-transformers, {best}": rival}, chosen.repeats)
    details = {"rival_sweep_seconds": seconds, "compact": chosen.compact}
    return publish_rates(name, measure, target, spec, runs, chosen, details)


def publish_rates(
    name: str, measure: str, target: Target, spec: Spec, runs: dict, chosen: argparse.Namespace, details: dict
) -> dict[str, Any]:
    """Publishes real tokens a second of interleaved training steps, the warm-up step being batch 0."""
    work = make_work(spec)
    rates = {
        side: [real_tokens(work, spec, n + 1) / run.seconds for n, run in enumerate(steps)]
        for side, steps in runs.items()
    }
    details = facts(work, spec) | {"peak_mb": {side: steps[-1].peak_mb for side, steps in runs.items()}} | details
    return publish(name, measure, target, rates, "real tokens/s", chosen.results, details)


if __name__ == "__main__":
    main()
