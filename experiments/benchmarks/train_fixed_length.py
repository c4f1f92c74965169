"""Training on texts of exactly 64 tokens, where no padding can be saved: mel against sentence-transformers at its best.

    python -m experiments.benchmarks.train_fixed_length [--compact]

As train_variable_length, with other texts and 128 mentions a step, which have as many tokens to encode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.harness import Target, options
from experiments.benchmarks.train_variable_length import compare, training_flags
from experiments.benchmarks.workload import spec_of
from experiments.programs import launch

TARGET = Target(passes=1.0, stretch=1.3)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    flags = training_flags(__doc__, mentions=128)
    chosen = options(flags, argv)
    if chosen.workdir:
        flags.error(f"--workdir={chosen.workdir} has texts of its own lengths: leave it out.")
    measure = "all texts 64 tokens, against sentence-transformers"
    return compare("train_fixed_length", measure, TARGET, spec_of(chosen, fixed=True), chosen)


if __name__ == "__main__":
    launch(main)
