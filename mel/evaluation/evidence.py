"""All that speaks for an entity, put together: the one way from mentions' embeddings to a ranking.

An evaluation and a linker ask it alike, so they answer alike.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from mel.corpora.alias_table import AliasTable
from mel.corpora.kb import KnowledgeBase
from mel.corpora.similarity import Prior, similarity_prior
from mel.evaluation.contexts import Contexts, add_contexts
from mel.evaluation.fusion import Pool, pool_candidates
from mel.evaluation.nearest import rank_by_embeddings
from mel.evaluation.ranking import DEPTH, Ranking
from mel.retrieval.index import Index
from mel.types import MelError


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of the entities of a knowledge base.

    Attributes:
      kb: the entities.
      embeddings_ED: of its rows, float32; a memory map will do.
      index: over them.
      contexts: training mentions; None where they are not heard.
      table: the alias table with the titles of `kb`; None where nothing is known before the context is read.
    """

    kb: KnowledgeBase
    embeddings_ED: np.ndarray
    index: Index
    contexts: Contexts | None = None
    table: AliasTable | None = None

    def ranking(self, queries_QD: np.ndarray, what: str = "", depth: int = DEPTH) -> Ranking:
        """The best candidates by descriptions, and contexts where they are heard.

        Args:
          queries_QD: the embeddings of Q mentions.
          what: names the mentions in lines of progress; none where empty.
          depth: how many candidates, where descriptions alone are heard.
        """
        ranking = rank_by_embeddings(queries_QD, self.index, self.kb.entities_E, what, depth)
        if self.contexts is None:
            return ranking
        return add_contexts(ranking, queries_QD, self.contexts, self.embeddings_ED, self.kb, what)

    def pool(
        self, queries_QD: np.ndarray, ranking: Ranking, lookups: Sequence[tuple[str, str, str]], what: str = ""
    ) -> Pool:
        """The candidates of `ranking` and those that the prior knows, to be fused.

        Args:
          queries_QD: the embeddings of Q mentions.
          ranking: their best candidates.
          lookups: surface form, language and lemma of each.
          what: names the mentions in lines of progress; none where empty.

        Raises:
          MelError: there is no alias table.
        """
        return pool_candidates(lookups, ranking, self.prior(lookups, what), queries_QD, self.embeddings_ED, self.kb)

    def prior(self, lookups: Sequence[tuple[str, str, str]], what: str = "") -> Prior:
        """How probable entities are before the context is read.

        Args:
          lookups: surface form, language and lemma of all that it will be asked for.
          what: names the mentions in a line of progress; none where empty.

        Raises:
          MelError: there is no alias table.
        """
        if self.table is None:
            raise MelError("Nothing is known before the context is read: there is no alias table to fuse with.")
        return similarity_prior(self.table, lookups, self.outside, what)

    @functools.cached_property
    def outside(self) -> float:
        """The probability of an entity before any evidence."""
        return 1 / self.kb.entity_rows.count()
