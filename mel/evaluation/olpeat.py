"""OLPEAT: an alias table that is searched by embeddings instead of by equality; no training, no context.

D. Farhan, Multilingual Entity Linking Using Dense Retrieval, arXiv 2406.16892.
"""

from __future__ import annotations

import numpy as np

from mel.corpora.alias_table import AliasTable
from mel.evaluation.questions import Questions
from mel.evaluation.recall import Ranking
from mel.evaluation.systems import CANDIDATES, embed, empty_ranking
from mel.retrieval.exact import ExactIndex
from mel.shards.rows import TokenRows
from mel.text.tokenizer import Tokenizer
from mel.training.checkpoint import Checkpoint
from mel.types import MarkedText, Span

ALIAS_TOKENS = 32  # hardly any alias is longer


def rank_by_olpeat(checkpoint: Checkpoint, tokenizer: Tokenizer, table: AliasTable, questions: Questions) -> Ranking:
    """The entities of the nearest aliases.

    The encoder embeds every distinct alias without context, and every surface form alike. The 100
    aliases of greatest cosine are read from the nearest on, and the entities of each by falling
    count of its links, the smaller QID first among equals; an entity counts where it stands first.
    Its score is the cosine of that alias, so the entities of one alias have equal scores.

    Args:
      checkpoint: the encoder, usually the one before training.
      tokenizer: its tokenizer.
      table: the aliases and their counts, over all languages.
      questions: Q mentions.
    """
    aliases, surface_forms = table.surface_forms(), sorted(set(questions.surface_forms))
    index = ExactIndex(embed(checkpoint, _rows(tokenizer, aliases), "aliases"))
    queries_ND = embed(checkpoint, _rows(tokenizer, surface_forms), "surface forms")
    aliases_NK, cosines_NK = index.search(queries_ND, CANDIDATES)
    entities = [[qid for qid, _ in table.candidates(alias)] for alias in aliases]

    answers = empty_ranking(len(surface_forms))
    for number, (aliases_K, cosines_K) in enumerate(zip(aliases_NK.tolist(), cosines_NK.tolist())):
        first: dict[int, float] = {}
        for alias, cosine in zip(aliases_K, cosines_K):
            for qid in entities[alias] if alias >= 0 else ():
                first.setdefault(qid, cosine)
        found = min(len(first), CANDIDATES)
        answers.qids_QK[number, :found] = list(first)[:found]
        answers.scores_QK[number, :found] = list(first.values())[:found]
    number_Q = np.searchsorted(np.array(surface_forms), np.array(questions.surface_forms))
    return Ranking(answers.qids_QK[number_Q], answers.scores_QK[number_Q])


def _rows(tokenizer: Tokenizer, strings: list[str]) -> TokenRows:
    """Each string alone, the whole of it in focus."""
    marked = [MarkedText(string, Span(0, len(string))) for string in strings]
    return TokenRows.from_rows(tokenizer.rows(marked, ALIAS_TOKENS))
