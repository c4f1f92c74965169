"""Peak memory of training with 2,048 mentions a batch: mel by sentence-transformers' cached loss.

    python -m experiments.benchmarks.memory [--workdir=W] [--full_table]

The most that a process of its own ever holds, from its start until its second step has ended. mel runs as
mel-train does, training the token rows in use, or the full table if asked to. The rival
has the smallest mini-batch of its sweep in training, which makes its peak the lowest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.harness import Target, options, parser, publish, second_run
from experiments.benchmarks.training_rivals import sentence_side
from experiments.benchmarks.workload import Ours, add_flags, facts, initial_weights, our_side, spec_of
from experiments.programs import launch

TARGET = Target(passes=0.6, stretch=0.4, at_least=False)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    flags = add_flags(parser(__doc__, repeats=1), mentions=2048)
    flags.add_argument("--full_table", action="store_true", help="mel trains the full token table too")
    chosen = options(flags, argv)
    spec = spec_of(chosen)
    with initial_weights(spec) as folder:
        cached = "rows 8" if spec.tiny else "rows 64"
        sides = {
            "ours": (our_side, spec, folder, Ours(compact=not chosen.full_table)),
            f"sentence-transformers, cached, {cached}": (sentence_side, spec, folder, cached),
        }
        peaks = {name: [second_run(side).peak_mb for _ in range(chosen.repeats)] for name, side in sides.items()}
    details = facts(spec) | {"full_table": chosen.full_table}
    measure = f"peak memory, {spec.batch_size:,} mentions a batch, against sentence-transformers cached"
    return publish("memory", measure, TARGET, peaks, "MiB", chosen.results, details)


if __name__ == "__main__":
    launch(main)
