"""What memory that does not grow with the batch costs in time: mel's step by one that keeps everything.

    python -m experiments.benchmarks.chunking [--workdir=W]

mel encodes chunks of texts and encodes them again for the backward pass, from the states between the layers where
those of the batch fit, and from the tokens where they do not. The second of these, whose memory does not grow, is
compared with the faster of two steps on the same batches: mel's own with one chunk a width, and a plain one that
encodes every text once and keeps all states of all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from experiments.benchmarks import workload
from experiments.benchmarks.gradients import plain_loss
from experiments.benchmarks.harness import Target, in_turn, options, parser, publish, summary
from experiments.benchmarks.training_rivals import CLIP_NORM
from experiments.benchmarks.workload import LEARNING_RATE, WHOLE_GROUPS, Ours, Spec
from experiments.programs import launch

TARGET = Target(passes=1.40, stretch=1.30, at_least=False)
CHUNK_TOKENS = 2048


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = options(workload.add_flags(parser(__doc__), mentions=64), argv)
    spec = workload.spec_of(chosen)
    with workload.initial_weights(spec) as folder:
        sides = {
            "chunked": (workload.our_side, spec, folder, Ours(compute=(("kept_bytes", 0),))),
            "one chunk a width": (workload.our_side, spec, folder, Ours(chunk_tokens=WHOLE_GROUPS)),
            "plain": (plain_side, spec, folder),
        }
        runs = in_turn(sides, chosen.repeats)
    seconds = {side: [run.seconds for run in steps] for side, steps in runs.items()}
    faster, slower = sorted(["one chunk a width", "plain"], key=lambda side: summary(seconds[side])["median"])
    details = workload.facts(spec, runs) | {f"seconds of {slower}": seconds[slower]}
    compared = {side: seconds[side] for side in ("chunked", faster)}
    return publish("chunking", "chunked step ÷ unchunked", TARGET, compared, "s", chosen.results, details)


def plain_side(turn: Callable[..., None], spec: Spec, folder: str) -> None:
    """A side of `harness.child`: a step of training a turn, with nothing computed twice."""
    import jax
    import jax.numpy as jnp
    import optax

    from mel.encoder import pretrained
    from mel.encoder.transformer import BertEncoder

    encoder, params = pretrained.load(folder)
    model = BertEncoder(encoder, kept="all")
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP_NORM), optax.adamw(LEARNING_RATE, weight_decay=0.0))
    source = workload.source_of(workload.make_work(spec), spec, CHUNK_TOKENS)
    layouts = source.plan()

    def loss_of(params, batch):
        embeddings_ND = jnp.concatenate(
            [model.apply({"params": params}, group) for group in batch.tokens if len(group)]
        )
        mention_BD, candidate_CD = embeddings_ND[batch.mention_row_B], embeddings_ND[batch.candidate_row_C]
        return plain_loss(mention_BD, candidate_CD, batch.gold_column_B, workload.left_out(batch))

    def step(params, opt_state, batch):
        loss, gradients = jax.value_and_grad(loss_of)(params, batch)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    step = jax.jit(step, donate_argnums=(0, 1))
    params = jax.tree.map(jnp.asarray, params)
    opt_state = optimizer.init(params)
    for n in range(1_000_000):
        params, opt_state, loss = jax.block_until_ready(step(params, opt_state, source.batch_at(n, layouts)))
        turn(float(loss))


if __name__ == "__main__":
    launch(main)
