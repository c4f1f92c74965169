"""OLPEAT: an alias table that is searched by embeddings instead of by equality; no training, no context.

D. Farhan, Multilingual Entity Linking Using Dense Retrieval, arXiv 2406.16892.
"""

from __future__ import annotations

import numpy as np

from mel.corpora.alias_table import AliasTable
from mel.encoder.embed import Encoder
from mel.evaluation.evaluation_set import EvaluationSet
from mel.evaluation.ranking import DEPTH, Ranking
from mel.retrieval.exact import ExactIndex
from mel.shards.rows import TokenRows
from mel.text.tokenizer import Tokenizer
from mel.types import MarkedText, Span

ALIAS_TOKENS = 32  # hardly any alias is longer


def rank_by_olpeat(encoder: Encoder, tokenizer: Tokenizer, table: AliasTable, mentions: EvaluationSet) -> Ranking:
    """The entities of the nearest aliases.

    The encoder embeds every distinct alias without context, and every surface form alike. The 100
    aliases of greatest cosine are read from the nearest on, and the entities of each by falling
    count of its links, the smaller number first among equals; an entity counts where it stands first.
    Its score is the cosine of that alias, so the entities of one alias have equal scores.

    Args:
      encoder: usually the one before training.
      tokenizer: its tokenizer.
      table: the aliases and their counts, over all languages.
      mentions: Q mentions.
    """
    aliases, surface_forms = table.surface_forms(), sorted(set(mentions.surface_forms))
    index = ExactIndex(encoder.embed(_rows(tokenizer, aliases), "aliases"))
    queries_ND = encoder.embed(_rows(tokenizer, surface_forms), "surface forms")
    aliases_NK, cosines_NK = index.search(queries_ND, DEPTH)
    entities_of = [[candidate.entity for candidate in table.candidates(alias)] for alias in aliases]

    ranking = Ranking.empty(len(surface_forms))
    for form, (aliases_K, cosines_K) in enumerate(zip(aliases_NK.tolist(), cosines_NK.tolist(), strict=True)):
        nearest: dict[int, float] = {}
        for alias, cosine in zip(aliases_K, cosines_K, strict=True):
            for entity in entities_of[alias] if alias >= 0 else ():
                nearest.setdefault(entity, cosine)
        count = min(len(nearest), DEPTH)
        ranking.entities_QK[form, :count] = list(nearest)[:count]
        ranking.scores_QK[form, :count] = list(nearest.values())[:count]
    return ranking[np.searchsorted(np.array(surface_forms), np.array(mentions.surface_forms))]


def _rows(tokenizer: Tokenizer, strings: list[str]) -> TokenRows:
    """Each string alone, the whole of it in focus."""
    marked = [MarkedText(string, Span(0, len(string))) for string in strings]
    return TokenRows.from_rows(tokenizer.rows(marked, ALIAS_TOKENS))
