"""Temporary memory of a compiled training step at 64, 512 and 4,096 mentions: how far one is from their mean.

What XLA says that the step takes beside its parameters, optimiser state and batch, and beside the gradients of the
parameters. mel chooses everything as it does in training, but keeps no states between layers, which
is what bounds memory; the details say what the step takes where it keeps them. Nothing is run.

  python -m experiments.benchmarks.step_memory
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks import workload
from experiments.benchmarks.harness import Target, child, options, parser, publish
from experiments.benchmarks.workload import LEARNING_RATE, LOGIT_SCALE, Spec
from experiments.programs import launch

TARGET = Target(passes=0.1, at_least=False)
MENTIONS = 64, 512, 4_096


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    flags = parser(__doc__, repeats=1)
    flags.add_argument("--mentions", type=int, nargs="+", default=MENTIONS, help="batch sizes")
    flags.add_argument("--layers", type=int, default=24, help="of the encoder; each is 128 wide")
    chosen = options(flags, argv)
    sizes = (4, 8) if chosen.quick else tuple(chosen.mentions)
    layers = 2 if chosen.quick else chosen.layers
    spec = Spec(tiny=chosen.quick)
    temporary: dict[tuple[int, bool], float] = {}
    for kept in (False, True):
        for size in sizes:
            with child(compile_side, dataclasses.replace(spec, batch_size=size), layers, kept) as run:
                temporary[size, kept] = run().value
            states = ", states kept" if kept else ""
            print(f"{size:,} mentions{states}: {temporary[size, kept]:.1f} MB beside the gradients", flush=True)
    bounded = np.array([temporary[size, False] for size in sizes])
    details = {f"MB at {size}{', states kept' if kept else ''}": value for (size, kept), value in temporary.items()}
    measure = f"temporary memory of a step of {sizes[0]:,} to {sizes[-1]:,} mentions, farthest from their mean"
    runs = {"ours": [float(np.abs(bounded / bounded.mean() - 1).max())]}
    return publish("step_memory", measure, TARGET, runs, "", chosen.results, details | {"layers": layers})


def compile_side(turn: Callable[[float], None], spec: Spec, layers: int, kept: bool) -> None:
    """A side that compiles a step and tells the MB of its temporary memory beyond those of the gradients."""
    import jax

    from mel.encoder.backend import choose_compute
    from mel.encoder.transformer import parameter_shapes
    from mel.training.loss import LossConfig, batch_loss
    from mel.training.state import OptimizerConfig, create_state, learning_rate_schedule, make_optimizer
    from mel.training.step import make_mesh, make_step

    work = workload.make_work(spec)
    words = np.unique(np.concatenate([rows.rows.tokens_T for rows in (work.mentions, work.entities)]))
    encoder = dataclasses.replace(work.encoder, num_layers=layers, vocab_size=len(words))
    compute = choose_compute("auto", encoder)
    source = workload.source_of(work, spec, compute.chunk_tokens)
    compute = compute if kept else dataclasses.replace(compute, kept_bytes=0)
    config, total_steps = OptimizerConfig(learning_rate=LEARNING_RATE), 1000
    optimizer = make_optimizer(config, total_steps)
    step = make_step(
        encoder, batch_loss(LossConfig(LOGIT_SCALE)), optimizer, learning_rate_schedule(config, total_steps),
        compute.chunk_tokens, make_mesh(), spec.seed, compute,
    )  # fmt: skip
    shapes = parameter_shapes(encoder)
    state = jax.eval_shape(lambda params: create_state(params, optimizer), shapes)
    compiled = step.lower(state, source.batch_at(0, source.plan())).compile()
    gradients = sum(4 * leaf.size for leaf in jax.tree.leaves(shapes))
    while True:
        turn((compiled.memory_analysis().temp_size_in_bytes - gradients) / 1e6)


if __name__ == "__main__":
    launch(main)
