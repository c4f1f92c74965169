"""What entities of a ranking are called, for whoever reads the language of the mention."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mel.evaluation.ranking import Ranking
from mel.linking.bundle import Bundle
from mel.types import NIL, EntityId, Mention, NamedCandidate


def named_candidates(
    bundle: Bundle, mentions: Sequence[Mention], ranking: Ranking, top_k: int
) -> Iterator[tuple[NamedCandidate, ...]]:
    """The best candidates of each mention, with titles in its language or else in the first that has one."""
    entities_Qk, languages_Q = ranking.entities_QK[:, :top_k], np.array([each.language for each in mentions], np.str_)
    rows_Qk = np.empty(entities_Qk.shape, np.int32)
    for language in np.unique(languages_Q).tolist():
        spoken_Q = languages_Q == language
        rows_Qk[spoken_Q] = bundle.kb.rows_of(entities_Qk[spoken_Q].reshape(-1), language).reshape(-1, top_k)

    @functools.cache
    def names(entity: int, row: int) -> tuple[EntityId, str, str]:
        return bundle.kb.ids[entity], bundle.kb.titles[row], bundle.descriptions[row]

    columns: list[Any] = [each.tolist() for each in (entities_Qk, rows_Qk, ranking.scores_QK[:, :top_k])]
    for entities_k, rows_k, scores_k in zip(*columns, strict=True):
        candidates = zip(entities_k, rows_k, scores_k, strict=True)
        yield tuple(NamedCandidate(*names(entity, row), score) for entity, row, score in candidates if entity != NIL)
