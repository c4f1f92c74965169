"""The softmax over a batch's candidates, with false negatives masked: all logits at once, or by tiles of mentions."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mel.types import MelError

EXACT = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """What the loss does beyond the plain softmax over candidates; by default nothing.

    Attributes:
      bidirectional: the mean of mention -> entity and entity -> mention (the symmetric loss of
        Radford et al., "Learning transferable visual models from natural language supervision",
        2021). In the second direction the gold column of each mention is ranked against the
        mentions of other QIDs; a column that is no mention's gold takes no part.
      multi_positive: what has the same QID as the gold is not masked but a positive too:
        `-log(sum_positives exp / sum_all exp)`, in either direction (Miech et al., "End-to-end
        learning of visual representations from uncurated instructional videos", MIL-NCE, 2020).
      log_q_correction: mention -> entity logits are lowered by log_q_C (Bengio & Senécal, "Adaptive
        importance sampling to accelerate training of a neural probabilistic language model", 2008;
        Yi et al., "Sampling-bias-corrected neural modeling", 2019).
      tile_rows: at most so many mentions' logits are held at a time, 0 for all of them; the result
        is the same up to rounding.
    """

    bidirectional: bool = False
    multi_positive: bool = False
    log_q_correction: bool = False
    tile_rows: int = 0

    def __post_init__(self):
        if self.tile_rows < 0:
            raise MelError(
                f"A tile of {self.tile_rows} mentions is not possible: give a positive number, or 0 for none."
            )


def softmax_loss(
    mention_BD: jax.Array,
    candidate_CD: jax.Array,
    gold_column_B: jax.Array,
    gold_B: jax.Array,
    entity_C: jax.Array,
    log_q_C: jax.Array | None,
    logit_scale: jax.Array | float,
    config: LossConfig = LossConfig(),
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean cross-entropy of each mention's gold among the batch's candidate entities.

    `-log(exp(s * m.g) / sum_c exp(s * m.c))` with unit-length embeddings and logit scale s (van den
    Oord et al., "Representation learning with contrastive predictive coding", 2018). A column whose
    QID is the mention's gold but which is not its gold column is a false negative: it is left out
    of the sum, as is every padding column (NIL).

    Args:
      mention_BD: unit-length embeddings of the mentions, float32.
      candidate_CD: unit-length embeddings of the candidate entities, float32.
      gold_column_B: the column of each mention's gold.
      gold_B: the entity that each mention means.
      entity_C: the entity of each column, NIL where it is padding.
      log_q_C: the logarithm of the probability that a batch has the column, no gradient flows into
        it; read only for the log-q correction.
      logit_scale: what the cosine is multiplied with.
      config: what is done beyond this.

    Returns:
      the loss, and {"loss", "accuracy"} where accuracy is the share of mentions whose gold scores
      highest, without log-q correction.
    """
    log_q_C = jax.lax.stop_gradient(log_q_C) if config.log_q_correction else None
    mentions = _Rows(mention_BD, gold_column_B, gold_B)
    loss_B, hit_B = _row_losses(mentions, _Columns(candidate_CD, entity_C, log_q_C), logit_scale, config)
    loss = jnp.mean(loss_B)
    if config.bidirectional:
        golds = _Rows(candidate_CD[gold_column_B], jnp.arange(len(gold_B)), gold_B)
        loss_B, _ = _row_losses(golds, _Columns(mention_BD, gold_B, None), logit_scale, config)
        loss = (loss + jnp.mean(loss_B)) / 2
    return loss, {"loss": loss, "accuracy": jnp.mean(hit_B)}


class _Rows(NamedTuple):
    """What is looked for: B vectors, the column that answers each, and the QID of that answer."""

    vector_BD: jax.Array
    gold_column_B: jax.Array
    qid_B: jax.Array


class _Columns(NamedTuple):
    """What is ranked: C vectors, their QIDs, and what their logits are lowered by."""

    vector_CD: jax.Array
    qid_C: jax.Array
    log_q_C: jax.Array | None


def _row_losses(rows: _Rows, columns: _Columns, logit_scale, config: LossConfig) -> tuple[jax.Array, jax.Array]:
    """The loss of each row [B], and whether what answers it scores highest [B]."""
    count = len(rows.qid_B)
    if not 0 < config.tile_rows < count:
        all_B, answer_B, hit_B = _log_sums(rows, columns, logit_scale, config.multi_positive)
        return all_B - answer_B, hit_B
    tiles = -(-count // config.tile_rows)
    rows_a_tile = -(-count // tiles)

    def cut(x_B):
        # A tile takes every tiles-th row: of rows split over devices, every device has its share of each tile.
        filled = jnp.pad(x_B, [(0, tiles * rows_a_tile - count)] + [(0, 0)] * (x_B.ndim - 1), mode="edge")
        return filled.reshape(rows_a_tile, tiles, *x_B.shape[1:]).swapaxes(0, 1)

    tiled = _tiled_losses(jax.tree.map(cut, rows), columns, jnp.asarray(logit_scale), config.multi_positive)
    return tuple(x_Tb.swapaxes(0, 1).reshape(-1)[:count] for x_Tb in tiled)


def _logits(rows: _Rows, columns: _Columns, logit_scale, multi_positive: bool):
    """logits_BC, -inf where masked, before and after log-q correction, and which columns answer a row, [B, C]."""
    logits_BC = logit_scale * jnp.matmul(rows.vector_BD, columns.vector_CD.T, precision=EXACT)
    is_gold_BC = jnp.arange(len(columns.qid_C))[None, :] == rows.gold_column_B[:, None]
    same_qid_BC = columns.qid_C[None, :] == rows.qid_B[:, None]
    padding_1C = (columns.qid_C == 0)[None, :]
    masked_BC = padding_1C if multi_positive else padding_1C | (same_qid_BC & ~is_gold_BC)
    logits_BC = jnp.where(masked_BC, -jnp.inf, logits_BC)
    corrected_BC = logits_BC if columns.log_q_C is None else logits_BC - columns.log_q_C[None, :]
    return logits_BC, corrected_BC, same_qid_BC if multi_positive else is_gold_BC


def _log_sums(rows: _Rows, columns: _Columns, logit_scale, multi_positive: bool):
    """The log-sum-exp over all columns [B] and over those that answer [B], and whether one of these scores highest."""
    logits_BC, corrected_BC, answers_BC = _logits(rows, columns, logit_scale, multi_positive)
    hit_B = jnp.max(jnp.where(answers_BC, logits_BC, -jnp.inf), axis=1) >= jnp.max(logits_BC, axis=1)
    if multi_positive:
        answer_B = jax.nn.logsumexp(jnp.where(answers_BC, corrected_BC, -jnp.inf), axis=1)
    else:
        answer_B = jnp.take_along_axis(corrected_BC, rows.gold_column_B[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(corrected_BC, axis=1), answer_B, hit_B


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _tiled_losses(rows_T: _Rows, columns: _Columns, logit_scale: jax.Array, multi_positive: bool):
    """`_row_losses` of T tiles of b rows, one tile after the other: losses [T, b] and hits [T, b]."""
    return _tiled_forward(rows_T, columns, logit_scale, multi_positive)[0]


def _tiled_forward(rows_T, columns, logit_scale, multi_positive):
    all_Tb, answer_Tb, hit_Tb = jax.lax.map(lambda rows: _log_sums(rows, columns, logit_scale, multi_positive), rows_T)
    return (all_Tb - answer_Tb, hit_Tb), (rows_T, columns, logit_scale, all_Tb, answer_Tb)


def _tiled_backward(multi_positive, kept, cotangents):
    """Softmax minus the answers' share of it, computed again tile by tile from the log-sums kept."""
    rows_T, columns, logit_scale, *log_sums_Tb = kept

    def add_tile(gradient_CD, tile):
        rows, all_b, answer_b, weight_b = tile
        _, corrected_bC, answers_bC = _logits(rows, columns, logit_scale, multi_positive)
        softmax_bC = jnp.exp(corrected_bC - all_b[:, None])
        answers_bC = jnp.where(answers_bC, jnp.exp(corrected_bC - answer_b[:, None]), 0)
        slope_bC = weight_b[:, None] * (softmax_bC - answers_bC)
        pull_bD = jnp.matmul(slope_bC, columns.vector_CD, precision=EXACT)
        gradient_CD += jnp.matmul(slope_bC.T, logit_scale * rows.vector_BD, precision=EXACT)
        return gradient_CD, (logit_scale * pull_bD, jnp.sum(pull_bD * rows.vector_BD))

    tiles = (rows_T, *log_sums_Tb, cotangents[0])
    gradient_CD, (gradient_TbD, gradient_T) = jax.lax.scan(add_tile, jnp.zeros_like(columns.vector_CD), tiles)
    return _Rows(gradient_TbD, None, None), _Columns(gradient_CD, None, None), jnp.sum(gradient_T)


_tiled_losses.defvjp(_tiled_forward, _tiled_backward)
