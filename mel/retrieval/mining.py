"""Neighbours to hard negatives: for each training mention, entity rows that are near and wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mel.artifacts import Artifact, open_artifact, publish
from mel.retrieval.index import Index, first_of_each, keep_first, search_distinct
from mel.types import MelError

KIND = "negatives"
NEGATIVES = "negatives.npy"
MENTIONS_AT_ONCE = 8192


def mine(
    index: Index,
    queries_QD: np.ndarray,
    gold_qid_Q: np.ndarray,
    qids_E: np.ndarray,
    negatives_per_mention: int,
    pool: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
    block: int = MENTIONS_AT_ONCE,
) -> np.ndarray:
    """Draws hard negatives from the nearest wrong entities of each mention.

    No row with the mention's gold QID is ever chosen, and no QID twice for one mention.

    Args:
      index: over the E entity rows.
      queries_QD: the embeddings of the mentions.
      gold_qid_Q: their gold QIDs.
      qids_E: the QID of each entity row.
      negatives_per_mention: how many are drawn (K).
      pool: from how many of the nearest wrong QIDs, without replacement; equal to
        `negatives_per_mention` it takes the nearest.
      seed: of the draw.
      progress: told how many more mentions are done.
      block: mentions searched at once; the result does not depend on it.

    Returns:
      int32 [Q, K], the nearest first.

    Raises:
      MelError: the pool is smaller than what is drawn from it, or the KB has too few wrong entities.
    """
    if pool < negatives_per_mention:
        raise MelError(f"A pool of {pool} is too small to draw {negatives_per_mention} negatives from: widen it.")
    generator = np.random.default_rng(seed)
    rows_QK = np.empty((len(queries_QD), negatives_per_mention), np.int32)
    for start in range(0, len(queries_QD), block):
        mentions = slice(start, min(start + block, len(queries_QD)))
        # A gold takes up at most one of the distinct QIDs, so one more than the pool is enough.
        qids_qk, _, neighbours_qk = search_distinct(index, queries_QD[mentions], qids_E, pool + 1)
        wrong_qk = (neighbours_qk >= 0) & (qids_qk != gold_qid_Q[mentions, None])
        pool_qp = keep_first(wrong_qk, neighbours_qk, pool, -1)
        _check_enough(pool_qp, negatives_per_mention, start)
        # Drawn line by line from one stream, whatever the size of a block.
        ticket_qp = np.where(pool_qp < 0, np.inf, generator.random(pool_qp.shape))
        drawn_qK = np.sort(np.argsort(ticket_qp, axis=1, kind="stable")[:, :negatives_per_mention], axis=1)
        rows_QK[mentions] = np.take_along_axis(pool_qp, drawn_qK, axis=1)
        if progress:
            progress(mentions.stop - start)
    return rows_QK


def random_negatives(gold_qid_Q: np.ndarray, qids_E: np.ndarray, negatives_per_mention: int, seed: int) -> np.ndarray:
    """Draws entity rows uniformly, never a gold, no QID twice for one mention.

    Returns:
      int32 [Q, K].

    Raises:
      MelError: the KB has too few wrong entities.
    """
    distinct = len(np.unique(qids_E))
    if distinct < negatives_per_mention + 1:
        raise MelError(_too_small(distinct - 1, negatives_per_mention))
    generator = np.random.default_rng(seed)
    rows_QK = np.full((len(gold_qid_Q), negatives_per_mention), -1, np.int32)
    waiting = np.arange(len(gold_qid_Q))
    while len(waiting):
        rows_qK = rows_QK[waiting]
        empty_qK = rows_qK < 0
        rows_qK[empty_qK] = generator.integers(len(qids_E), size=np.count_nonzero(empty_qK))
        qids_qK = qids_E[rows_qK]
        rejected_qK = ~first_of_each(qids_qK) | (qids_qK == gold_qid_Q[waiting, None])
        rows_QK[waiting] = np.where(rejected_qK, -1, rows_qK)
        waiting = waiting[rejected_qK.any(axis=1)]
    return rows_QK


def publish_negatives(
    path: str | os.PathLike, rows_NK: np.ndarray, inputs: Mapping[str, Artifact], facts: Mapping[str, Any]
) -> Artifact:
    """Publishes the hard negatives of N training mentions as entity rows.

    Args:
      path: where.
      rows_NK: int32.
      inputs: what they were made from; "mention_tokens" must be among them, for `open_negatives`.
      facts: how they were made.
    """
    with publish(path, KIND) as draft:
        for name, artifact in inputs.items():
            draft.reads(name, artifact)
        draft.facts = {**facts, "mentions": rows_NK.shape[0], "negatives_per_mention": rows_NK.shape[1]}
        np.save(draft / NEGATIVES, np.asarray(rows_NK, np.int32))
    return open_artifact(path, KIND)


def open_negatives(path: str | os.PathLike, mention_tokens: Artifact) -> np.ndarray:
    """Maps the published hard negatives into memory: int32 [N, K], line i for row i of `mention_tokens`.

    Raises:
      MelError: there are none, or they were made for other mention tokens.
    """
    return np.load(open_artifact(path, KIND, {"mention_tokens": mention_tokens}) / NEGATIVES, mmap_mode="r")


def _check_enough(pool_qp: np.ndarray, negatives_per_mention: int, first_mention: int) -> None:
    wrong_q = np.count_nonzero(pool_qp >= 0, axis=1)
    if len(wrong_q) and wrong_q.min() < negatives_per_mention:
        mention = first_mention + int(wrong_q.argmin())
        raise MelError(_too_small(int(wrong_q.min()), negatives_per_mention, f" for mention {mention}"))


def _too_small(wrong: int, negatives_per_mention: int, whom: str = "") -> str:
    return (
        f"The KB has only {wrong} wrong entities{whom}, and {negatives_per_mention} negatives are wanted: "
        "prepare a larger KB, or ask for fewer."
    )
