"""Training against a hand-written PyTorch loop that does what mel does, in real tokens a second.

    python -m experiments.benchmarks.pytorch_loop [--workdir=W] [--compact]

The loop gets mel's own batches: sorted by length into the same widths, each distinct entity once. It runs
transformers' BertModel with sdpa attention and fused AdamW. The size of its chunks is swept on one step, and
the best is tried with torch.compile too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.harness import Target, in_turn, options, publish
from experiments.benchmarks.train_variable_length import rates, training_flags
from experiments.benchmarks.training_rivals import SWEPT_CHUNKS, fastest, pytorch_side
from experiments.benchmarks.workload import Ours, Spec, facts, initial_weights, our_side, spec_of
from experiments.programs import launch

TARGET = Target(passes=1.0, stretch=1.2)
MEASURE = "training, variable length, against a PyTorch loop"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    flags = training_flags(__doc__)
    flags.add_argument("--no_compile", action="store_true", help="leave torch.compile out, which needs a C compiler")
    chosen = options(flags, argv)
    spec = spec_of(chosen)
    with initial_weights(spec) as folder:
        best, seconds = _best(spec, folder, compiles=not chosen.no_compile)
        ours = our_side, spec, folder, Ours(compact=chosen.compact)
        sides = {"ours": ours, f"PyTorch, {_name(*best)}": (pytorch_side, spec, folder, *best)}
        runs = in_turn(sides, chosen.repeats)
    details = facts(spec, runs) | {"rival_sweep_seconds": seconds, "compact": chosen.compact}
    return publish("pytorch_loop", MEASURE, TARGET, rates(spec, runs), "real tokens/s", chosen.results, details)


def _best(spec: Spec, folder: str, compiles: bool) -> tuple[tuple[int, bool], dict[str, float]]:
    """The fastest (chunk_tokens, compiled), and the seconds of all that were tried."""
    settings = {_name(chunk_tokens, False): (chunk_tokens, False) for chunk_tokens in SWEPT_CHUNKS}
    best, seconds = fastest({name: (pytorch_side, spec, folder, *setting) for name, setting in settings.items()})
    if compiles:
        compiled = settings[best][0], True
        settings[_name(*compiled)] = compiled
        seconds |= fastest({_name(*compiled): (pytorch_side, spec, folder, *compiled)})[1]
    return settings[min(seconds, key=seconds.get)], seconds


def _name(chunk_tokens: int, compiled: bool) -> str:
    chunks = f"chunks of {chunk_tokens} tokens" if chunk_tokens else "one graph"
    return f"{chunks}, compiled" if compiled else chunks


if __name__ == "__main__":
    launch(main)
