"""The softmax over a batch's candidates, with false negatives masked."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def softmax_loss(mention_BD, candidate_CD, gold_column_B, mention_qid_B, candidate_qid_C, logit_scale):
    """Mean cross-entropy of each mention's gold among the batch's candidate entities.

    `-log(exp(s * m.g) / sum_c exp(s * m.c))` with unit-length embeddings and logit scale s (van den
    Oord et al., "Representation learning with contrastive predictive coding", 2018). A column whose
    QID is the mention's gold but which is not its gold column is a false negative: it is left out
    of the sum, as is every padding column (QID 0).

    Args:
      mention_BD: unit-length embeddings of the mentions, float32.
      candidate_CD: unit-length embeddings of the candidate entities, float32.
      gold_column_B: the column of each mention's gold.
      mention_qid_B: the gold QID of each mention.
      candidate_qid_C: the QID of each column, 0 where it is padding.
      logit_scale: what the cosine is multiplied with.

    Returns:
      the loss, and {"loss", "accuracy"} where accuracy is the share of mentions whose gold scores highest.
    """
    logits_BC = logit_scale * jnp.matmul(mention_BD, candidate_CD.T, precision=jax.lax.Precision.HIGHEST)
    is_gold_BC = jnp.arange(candidate_CD.shape[0])[None, :] == gold_column_B[:, None]
    false_negative_BC = (candidate_qid_C[None, :] == mention_qid_B[:, None]) & ~is_gold_BC
    logits_BC = jnp.where(false_negative_BC | (candidate_qid_C == 0)[None, :], -jnp.inf, logits_BC)
    gold_logit_B = jnp.take_along_axis(logits_BC, gold_column_B[:, None], axis=1)[:, 0]
    loss = jnp.mean(jax.nn.logsumexp(logits_BC, axis=1) - gold_logit_B)
    accuracy = jnp.mean(gold_logit_B >= jnp.max(logits_BC, axis=1))
    return loss, {"loss": loss, "accuracy": accuracy}
