"""A checkpoint as a system: the nearest entities to a mention's embedding."""

from __future__ import annotations

import numpy as np

from mel.encoder.backend import tokens_at_once
from mel.encoder.embed import embed_rows
from mel.evaluation.questions import Questions
from mel.evaluation.recall import Ranking
from mel.progress import Progress
from mel.retrieval.index import Index, search_distinct
from mel.shards.rows import TokenRows
from mel.training.checkpoint import Checkpoint

CANDIDATES = 100  # the deepest place that a metric looks at
QUESTIONS_AT_ONCE = 4096
PAIRS_AT_ONCE = 2**18


def rank_by_checkpoint(checkpoint: Checkpoint, questions: Questions, index: Index, qids_E: np.ndarray) -> Ranking:
    """A checkpoint's answers: the entities whose embeddings are nearest to the mention's.

    Args:
      checkpoint: the encoder.
      questions: Q mentions.
      index: over the embeddings of E entity rows by the same encoder.
      qids_E: the QID of each row.
    """
    return rank_by_embeddings(embed(checkpoint, questions.rows, "mentions"), index, qids_E)


def embed(checkpoint: Checkpoint, rows: TokenRows, what: str) -> np.ndarray:
    """The embeddings of N rows of tokens, float32 [N, D]; `what` names them in the log."""
    out_ND = np.empty((len(rows), checkpoint.encoder_config.hidden_size), np.float32)
    progress = Progress(f"embedding {what}", len(rows), what)
    embed_rows(checkpoint.encoder_config, checkpoint.params, rows.by_width(tokens_at_once()), out_ND, progress.add)
    progress.close()
    return out_ND


def rank_by_embeddings(queries_QD: np.ndarray, index: Index, qids_E: np.ndarray) -> Ranking:
    """The entities nearest to each of Q mentions; `qids_E` are the QIDs of the index's rows."""
    ranking = empty_ranking(len(queries_QD))
    progress = Progress("searching", len(queries_QD), "mentions")
    for start in range(0, len(queries_QD), QUESTIONS_AT_ONCE):
        some = slice(start, start + QUESTIONS_AT_ONCE)
        ranking.qids_QK[some], ranking.scores_QK[some], _ = search_distinct(index, queries_QD[some], qids_E, CANDIDATES)
        progress.add(len(queries_QD[some]))
    progress.close()
    return ranking


def empty_ranking(questions: int) -> Ranking:
    """A ranking to be filled in."""
    shape = questions, CANDIDATES
    return Ranking(np.zeros(shape, np.int64), np.full(shape, -np.inf, np.float32))


def best_cosines(
    queries_QD: np.ndarray, question_P: np.ndarray, qids_P: np.ndarray, embeddings_ED: np.ndarray, qids_E: np.ndarray
) -> np.ndarray:
    """The cosine of P pairs of a mention and a QID: the greatest over the rows of the QID, -inf where it has none."""
    order_E = np.argsort(qids_E, kind="stable")
    sorted_E = qids_E[order_E]
    first_P, behind_P = (np.searchsorted(sorted_E, qids_P, side) for side in ("left", "right"))
    cosines_P = np.full(len(qids_P), -np.inf, np.float32)
    for place in range(int((behind_P - first_P).max(initial=0))):  # a QID has a row in each of its languages
        pairs = np.flatnonzero(first_P + place < behind_P)
        for some in np.array_split(pairs, -(-len(pairs) // PAIRS_AT_ONCE)):
            rows_pD = embeddings_ED[order_E[first_P[some] + place]]
            cosines_p = np.einsum("pd,pd->p", queries_QD[question_P[some]], rows_pD)
            cosines_P[some] = np.maximum(cosines_P[some], cosines_p)
    return cosines_P
