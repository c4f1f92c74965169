"""The nearest entities to a mention's embedding, and how near any entity is."""

from __future__ import annotations

import numpy as np

from mel.corpora.columns import announce
from mel.corpora.kb import KnowledgeBase
from mel.evaluation.ranking import DEPTH, Ranking
from mel.progress import Progress
from mel.retrieval.index import Index, search_distinct

MENTIONS_AT_ONCE = 4096
PAIRS_AT_ONCE = 2**18


def rank_by_embeddings(
    queries_QD: np.ndarray, index: Index, entities_E: np.ndarray, what: str = "", depth: int = DEPTH
) -> Ranking:
    """The entities nearest to each of Q mentions.

    Args:
      queries_QD: their embeddings.
      index: over the embeddings of E rows.
      entities_E: the entity of each row.
      what: names the mentions in a line of progress; none where empty.
      depth: how many of them.
    """
    ranking = Ranking.empty(len(queries_QD), depth)
    progress = Progress(f"searching {what}", len(queries_QD), "mentions") if what else None
    for start in range(0, len(queries_QD), MENTIONS_AT_ONCE):
        block = slice(start, start + MENTIONS_AT_ONCE)
        nearest = search_distinct(index, queries_QD[block], entities_E, depth)
        ranking.entities_QK[block], ranking.scores_QK[block], _ = nearest
        if progress:
            progress.add(len(queries_QD[block]))
    if progress:
        progress.close()
    return ranking


def best_cosines(
    queries_QD: np.ndarray, mention_P: np.ndarray, entity_P: np.ndarray, embeddings_ED: np.ndarray, kb: KnowledgeBase
) -> np.ndarray:
    """The cosine of P pairs of a mention and an entity: the greatest over the entity's rows, -inf where it has none."""
    first_P, end_P = kb.entity_rows.ranges(entity_P)
    cosines_P = np.full(len(entity_P), -np.inf, np.float32)
    for offset in range(int((end_P - first_P).max(initial=0))):  # an entity has a row in each of its languages
        pairs = np.flatnonzero(first_P + offset < end_P)
        for pair_p in np.array_split(pairs, -(-len(pairs) // PAIRS_AT_ONCE)):
            rows_p = kb.entity_rows.order_E[first_P[pair_p] + offset].astype(np.int64)
            if isinstance(embeddings_ED, np.memmap):
                width = embeddings_ED.shape[1]
                announce(embeddings_ED.reshape(-1), rows_p * width, (rows_p + 1) * width)
            rows_pD = embeddings_ED[rows_p]
            cosines_p = np.einsum("pd,pd->p", queries_QD[mention_P[pair_p]], rows_pD)
            cosines_P[pair_p] = np.maximum(cosines_P[pair_p], cosines_p)
    return cosines_P
