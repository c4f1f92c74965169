"""How exact a step is: its gradients with everything on, against a naive one in float32, on 1 and on 8 devices.

    python -m experiments.benchmarks.gradients

Everything on: texts sorted into widths, distinct entities once, chunks encoded twice, the loss by tiles, the
token rows in use only, the batch split over devices (of a CPU, made up). Naive: all texts padded to one width,
each entity as often as it occurs, all logits at once, the full table. The error is the norm of the difference
by the norm of the naive gradients, over all parameters; the worse of the two counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.benchmarks import workload
from experiments.benchmarks.harness import Target, child, options, parser, publish
from experiments.benchmarks.workload import LOGIT_SCALE, LONGEST, Ours, Spec, Work
from experiments.programs import launch

TARGET = Target(passes=1e-5, stretch=1e-6, at_least=False)
DEVICES = (1, 8)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = options(workload.add_flags(parser(__doc__, repeats=1), mentions=32), argv)
    spec = workload.spec_of(chosen)
    with workload.initial_weights(spec) as folder:
        errors = {count: _error(count, spec, folder) for count in DEVICES}
    details = workload.facts(spec) | {"error_by_devices": errors}
    measure = "gradients of a step with everything on, relative error against naive float32"
    return publish("gradients", measure, TARGET, {"worst": [max(errors.values())]}, "", chosen.results, details)


def _error(devices: int, spec: Spec, folder: str) -> float:
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    with child(error_side, spec, folder, environment=flags) as run:
        return run().value


def error_side(turn, spec: Spec, folder: str) -> None:
    """A side of `harness.child`: tells the relative error of the gradients of batch 0."""
    import jax

    work = workload.make_work(spec)
    tile_rows = spec.batch_size // 2
    chunk_tokens = 4 * LONGEST  # small, so that every width has several chunks
    everything = Ours(compact=True, chunk_tokens=chunk_tokens, tile_rows=tile_rows, keep_gradients=True)
    state, step, batches = workload.our_step(work, spec, folder, everything)
    ours = jax.device_get(step(state, next(batches))[0].opt_state.trace)
    naive = jax.device_get(naive_gradients(work, spec, folder))
    turn(relative_error(_with_full_table(ours, work), naive))


def naive_gradients(work: Work, spec: Spec, folder: str):
    """The gradients of batch 0 by the definition of the loss."""
    import jax
    import jax.numpy as jnp

    from mel.encoder import pretrained
    from mel.encoder.transformer import BertEncoder

    encoder, params = pretrained.load(folder)
    mention_rows_B = workload.source_of(work, spec, LONGEST).mention_rows(0)
    # The golds first: column b is that of mention b.
    entity_rows_C = workload.text_rows(work, mention_rows_B).T.reshape(-1)
    texts = (work.mentions.rows, mention_rows_B), (work.entities.rows, entity_rows_C)
    tokens_NL = np.concatenate([rows.gather(row_ids, LONGEST) for rows, row_ids in texts])
    entity_C, twin_C = work.entities.entities_N[entity_rows_C], work.entities.rows.twins()[entity_rows_C]
    left_out_BC = left_out(work.mentions.entities_N[mention_rows_B], entity_C, twin_C, entity_rows_C)

    def loss(params):
        embeddings_ND = BertEncoder(encoder).apply({"params": params}, tokens_NL)
        mention_BD, candidate_CD = jnp.split(embeddings_ND, [spec.batch_size])
        return plain_loss(mention_BD, candidate_CD, jnp.arange(spec.batch_size), left_out_BC)

    return jax.jit(jax.grad(loss))(params)


def left_out(gold_B: np.ndarray, entity_C: np.ndarray, twin_C: np.ndarray, entity_rows_C: np.ndarray) -> np.ndarray:
    """Columns in no mention's sum: repeated entities, and other columns with the gold's entity or text; bool [B, C].

    Column b is the gold of mention b and stays in its sum, repeated or not.
    """
    repeated_C = np.ones(len(entity_rows_C), bool)
    repeated_C[np.unique(entity_rows_C, return_index=True)[1]] = False
    is_gold_BC = np.arange(len(entity_C)) == np.arange(len(gold_B))[:, None]
    same_text_BC = twin_C == twin_C[: len(gold_B), None]
    return (repeated_C | same_text_BC | (entity_C == gold_B[:, None])) & ~is_gold_BC


def plain_loss(mention_BD, candidate_CD, gold_column_B, left_out_BC):
    """Mean cross-entropy of each mention's gold among the columns that are not left out."""
    import jax
    import jax.numpy as jnp

    logits_BC = LOGIT_SCALE * jnp.matmul(mention_BD, candidate_CD.T, precision=jax.lax.Precision.HIGHEST)
    log_share_BC = jax.nn.log_softmax(jnp.where(left_out_BC, -jnp.inf, logits_BC))
    return -jnp.take_along_axis(log_share_BC, gold_column_B[:, None], axis=1).mean()


def relative_error(ours, naive) -> float:
    """The norm of the difference of two trees of arrays, by the norm of the second; in float64."""
    import jax

    def norm(tree) -> float:
        return float(np.sqrt(sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in jax.tree.leaves(tree))))

    return norm(jax.tree.map(lambda a, b: np.asarray(a, np.float64) - b, ours, naive)) / norm(naive)


def _with_full_table(gradients, work: Work):
    """Gradients of the compacted table at the places of its rows in the full one, 0 elsewhere."""
    used = [np.zeros(1, np.int32), work.mentions.rows.tokens_T, work.entities.rows.tokens_T]
    table_vD = gradients["embeddings"]["word"]["embedding"]
    table_VD = np.zeros((work.encoder.vocab_size, table_vD.shape[1]), table_vD.dtype)
    table_VD[np.unique(np.concatenate(used))] = table_vD
    return gradients | {"embeddings": gradients["embeddings"] | {"word": {"embedding": table_VD}}}


if __name__ == "__main__":
    launch(main)
