"""The softmax over a batch's candidates, with false negatives masked: all logits at once, or by tiles of mentions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mel.config import flag
from mel.types import NIL, Batch, MelError

Array = jax.Array | np.ndarray
EXACT = jax.lax.Precision.HIGHEST
MOST_LOGITS = 2**20  # of a tile: 4 MB, several times

Loss = Callable[[jax.Array, Batch], tuple[jax.Array, dict[str, jax.Array]]]
"""`loss, metrics = loss(embeddings_ND, batch)`, of the embeddings of all texts of a batch."""


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """What is minimised: by default the plain softmax over candidates.

    Attributes:
      logit_scale: what cosines are multiplied with.
      bidirectional: the mean of mention -> entity and entity -> mention (the symmetric loss of
        Radford et al., "Learning transferable visual models from natural language supervision",
        2021). In the second direction the gold column of each mention is ranked against the
        mentions of other entities; a column that is no mention's gold takes no part.
      multi_positive: every row of the gold's entity is not masked but a positive too:
        `-log(sum_positives exp / sum_all exp)`, in either direction (Miech et al., "End-to-end
        learning of visual representations from uncurated instructional videos", MIL-NCE, 2020).
      log_q_correction: mention -> entity logits are lowered by log_q_C (Bengio & Senécal, "Adaptive
        importance sampling to accelerate training of a neural probabilistic language model", 2008;
        Yi et al., "Sampling-bias-corrected neural modeling", 2019).
      loss_tile_rows: at most so many mentions' logits are held at a time; 0 for all of them up to
        `MOST_LOGITS`, and for tiles of that many where there are more. The result is the same up to
        rounding.
    """

    logit_scale: float = flag(20.0, "What cosines are multiplied with; 20 is a temperature of 0.05.")
    bidirectional: bool = flag(False, "Average with the loss of finding an entity's mention among the batch's.")
    multi_positive: bool = flag(False, "Take every entity row of the gold as right, instead of masking it.")
    log_q_correction: bool = flag(False, "Lower an entity's score by the log-probability that a batch has it.")
    loss_tile_rows: int = flag(0, "Hold the scores of so many mentions at once; 0 for as many as fit.")

    def __post_init__(self):
        if not self.logit_scale > 0:
            raise MelError(f"--logit_scale={self.logit_scale} must be above 0.")
        if self.loss_tile_rows < 0:
            raise MelError(f"--loss_tile_rows={self.loss_tile_rows} must not be below 0.")


def batch_loss(config: LossConfig) -> Loss:
    """The softmax loss as a step takes it."""

    def loss(embeddings_ND: jax.Array, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        return softmax_loss(
            embeddings_ND[batch.mention_row_B], embeddings_ND[batch.candidate_row_C],
            batch.gold_column_B, batch.gold_B, batch.entity_C, batch.log_q_C, config, batch.twin_C,
        )  # fmt: skip

    return loss


def softmax_loss(
    mention_BD: jax.Array,
    candidate_CD: jax.Array,
    gold_column_B: Array,
    gold_B: Array,
    entity_C: Array,
    log_q_C: Array | None,
    config: LossConfig = LossConfig(),
    twin_C: Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean cross-entropy of each mention's gold among the batch's candidate entities.

    `-log(exp(s * m.g) / sum_c exp(s * m.c))` with unit-length embeddings and logit scale s (van den
    Oord et al., "Representation learning with contrastive predictive coding", 2018). A column whose
    entity is the mention's gold but which is not its gold column is a false negative: it is left out
    of the sum, as is every padding column (NIL), and a twin, whose text is that of the gold column:
    no encoder can tell them apart.

    Args:
      mention_BD: unit-length embeddings of the mentions, float32.
      candidate_CD: unit-length embeddings of the candidate entities, float32.
      gold_column_B: the column of each mention's gold.
      gold_B: the entity that each mention means.
      entity_C: the entity of each column, NIL where it is padding.
      log_q_C: the logarithm of the probability that a batch has the column, no gradient flows into
        it; read only for the log-q correction.
      config: the logit scale, and what is done beyond this.
      twin_C: equal where the texts of two columns are equal; None where no two are.

    Returns:
      the loss, and {"loss", "accuracy", "candidate_cosine"}: accuracy is the share of mentions whose gold scores
      highest, without log-q correction, and candidate_cosine the mean cosine of two candidates, near 1 where the
      encoder gives all of them the same embedding.
    """
    log_q_C = jax.lax.stop_gradient(log_q_C) if config.log_q_correction else None
    twin_C = jnp.arange(len(entity_C)) if twin_C is None else twin_C
    twin_B = twin_C[gold_column_B]
    mentions = _Rows(mention_BD, gold_column_B, gold_B, twin_B)
    loss_B, hit_B = _row_losses(mentions, _Columns(candidate_CD, entity_C, twin_C, log_q_C), config)
    loss = jnp.mean(loss_B)
    if config.bidirectional:
        golds = _Rows(candidate_CD[gold_column_B], jnp.arange(len(gold_B)), gold_B, twin_B)
        loss_B, _ = _row_losses(golds, _Columns(mention_BD, gold_B, twin_B, None), config)
        loss = (loss + jnp.mean(loss_B)) / 2
    metrics = {"accuracy": jnp.mean(hit_B), "candidate_cosine": _mean_cosine(candidate_CD, entity_C != NIL)}
    return loss, {"loss": loss, **metrics}


def _mean_cosine(vector_CD: jax.Array, real_C: jax.Array) -> jax.Array:
    """Of two different columns, padding left out: (|sum of v|² - n) / n (n - 1), the vectors being of length 1."""
    vector_CD = jax.lax.stop_gradient(jnp.where(real_C[:, None], vector_CD, 0))
    sum_D, count = jnp.sum(vector_CD, axis=0), jnp.count_nonzero(real_C)
    return (sum_D @ sum_D - jnp.sum(vector_CD * vector_CD)) / jnp.maximum(count * (count - 1), 1)


class _Rows(NamedTuple):
    """What is looked for: B vectors, the column that answers each, and the entity and the twins of that answer."""

    vector_BD: Any
    gold_column_B: Any
    entity_B: Any
    twin_B: Any


class _Columns(NamedTuple):
    """What is ranked: C vectors, their entities and twins, and what their logits are lowered by."""

    vector_CD: Any
    entity_C: Any
    twin_C: Any
    log_q_C: Any


def _row_losses(rows: _Rows, columns: _Columns, config: LossConfig) -> tuple[jax.Array, jax.Array]:
    """The loss of each row [B], and whether what answers it scores highest [B]."""
    count = len(rows.entity_B)
    tile_rows = config.loss_tile_rows or max(1, MOST_LOGITS // len(columns.entity_C))
    if tile_rows >= count:
        all_B, answer_B, hit_B = _log_sums(rows, columns, config)
        return all_B - answer_B, hit_B
    tiles = -(-count // tile_rows)
    rows_a_tile = -(-count // tiles)

    def cut(x_B):
        # A tile takes every tiles-th row: of rows split over devices, every device has its share of each tile.
        filled = jnp.pad(x_B, [(0, tiles * rows_a_tile - count)] + [(0, 0)] * (x_B.ndim - 1), mode="edge")
        return filled.reshape(rows_a_tile, tiles, *x_B.shape[1:]).swapaxes(0, 1)

    tiled: Any = _tiled_losses(jax.tree.map(cut, rows), columns, config)
    loss_B, hit_B = (x_Tb.swapaxes(0, 1).reshape(-1)[:count] for x_Tb in tiled)
    return loss_B, hit_B


def _logits(rows: _Rows, columns: _Columns, config: LossConfig):
    """logits_BC, -inf where masked, before and after log-q correction, and which columns answer a row, [B, C]."""
    logits_BC = config.logit_scale * jnp.matmul(rows.vector_BD, columns.vector_CD.T, precision=EXACT)
    is_gold_BC = jnp.arange(len(columns.entity_C))[None, :] == rows.gold_column_B[:, None]
    same_entity_BC = columns.entity_C[None, :] == rows.entity_B[:, None]
    padding_1C = (columns.entity_C == NIL)[None, :]
    same_text_BC = columns.twin_C[None, :] == rows.twin_B[:, None]
    spared_BC = same_text_BC & ~same_entity_BC
    if not config.multi_positive:
        spared_BC |= same_entity_BC & ~is_gold_BC
    masked_BC = padding_1C | spared_BC
    logits_BC = jnp.where(masked_BC, -jnp.inf, logits_BC)
    corrected_BC = logits_BC if columns.log_q_C is None else logits_BC - columns.log_q_C[None, :]
    return logits_BC, corrected_BC, same_entity_BC if config.multi_positive else is_gold_BC


def _log_sums(rows: _Rows, columns: _Columns, config: LossConfig):
    """The log-sum-exp over all columns [B] and over those that answer [B], and whether one of these scores highest."""
    logits_BC, corrected_BC, answers_BC = _logits(rows, columns, config)
    hit_B = jnp.max(jnp.where(answers_BC, logits_BC, -jnp.inf), axis=1) >= jnp.max(logits_BC, axis=1)
    if config.multi_positive:
        answer_B = jax.nn.logsumexp(jnp.where(answers_BC, corrected_BC, -jnp.inf), axis=1)
    else:
        answer_B = jnp.take_along_axis(corrected_BC, rows.gold_column_B[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(corrected_BC, axis=1), answer_B, hit_B


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _tiled_losses(rows_T: _Rows, columns: _Columns, config: LossConfig):
    """`_row_losses` of T tiles of b rows, one tile after the other: losses [T, b] and hits [T, b]."""
    return _tiled_forward(rows_T, columns, config)[0]


def _tiled_forward(rows_T, columns, config):
    all_Tb, answer_Tb, hit_Tb = jax.lax.map(lambda rows: _log_sums(rows, columns, config), rows_T)
    return (all_Tb - answer_Tb, hit_Tb), (rows_T, columns, all_Tb, answer_Tb)


def _tiled_backward(config, kept, cotangents):
    """Softmax minus the answers' share of it, computed again tile by tile from the log-sums kept."""
    rows_T, columns, *log_sums_Tb = kept

    def add_tile(gradient_CD, tile):
        rows, all_b, answer_b, weight_b = tile
        _, corrected_bC, answers_bC = _logits(rows, columns, config)
        softmax_bC = jnp.exp(corrected_bC - all_b[:, None])
        answers_bC = jnp.where(answers_bC, jnp.exp(corrected_bC - answer_b[:, None]), 0)
        slope_bC = weight_b[:, None] * (softmax_bC - answers_bC)
        pull_bD = jnp.matmul(slope_bC, columns.vector_CD, precision=EXACT)
        gradient_CD += jnp.matmul(slope_bC.T, config.logit_scale * rows.vector_BD, precision=EXACT)
        return gradient_CD, config.logit_scale * pull_bD

    tiles = (rows_T, *log_sums_Tb, cotangents[0])
    gradient_CD, gradient_TbD = jax.lax.scan(add_tile, jnp.zeros_like(columns.vector_CD), tiles)
    return _Rows(gradient_TbD, None, None, None), _Columns(gradient_CD, None, None, None)


_tiled_losses.defvjp(_tiled_forward, _tiled_backward)
