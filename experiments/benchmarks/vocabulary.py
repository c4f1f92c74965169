"""What training only the token rows in use saves: a step of 32 mentions, compacted table by full table.

    python -m experiments.benchmarks.vocabulary [--workdir=W] [--negatives=3]

In-batch negatives only by default: the fewer texts, the more of a step is the table's optimiser.
The synthetic texts use about an eighth of LEALLA's 501,154 rows; MDN's use a quarter of mBERT's 119,548.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.harness import Target, in_turn, options, parser, publish
from experiments.benchmarks.workload import Ours, add_flags, facts, initial_weights, our_side, spec_of
from experiments.programs import launch

TARGET = Target(passes=0.85, stretch=0.70, at_least=False)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = options(add_flags(parser(__doc__, repeats=21), mentions=32, negatives=0), argv)
    spec = spec_of(chosen)
    with initial_weights(spec) as folder:
        sides = {"compacted": Ours(compact=True), "full table": Ours(compact=False)}
        runs = in_turn({name: (our_side, spec, folder, ours) for name, ours in sides.items()}, chosen.repeats)
    seconds = {side: [run.seconds for run in steps] for side, steps in runs.items()}
    measure = (
        f"step of {spec.batch_size} mentions with {spec.negatives} hard negatives each, token rows in use ÷ full table"
    )
    return publish("vocabulary", measure, TARGET, seconds, "s", chosen.results, facts(spec, runs))


if __name__ == "__main__":
    launch(main)
