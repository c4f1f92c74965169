"""OLPEAT: an alias table that is searched by embeddings instead of by equality; no training, no context.

Two forms: as the thesis has it, in the mention's language, and over what all languages linked.

D. Farhan, Multilingual Entity Linking Using Dense Retrieval, arXiv 2406.16892.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
NEIGHBOURS_AT_ONCE = 2**22  # what a search holds in memory


def rank_by_olpeat(encoder: Encoder, tokenizer: Tokenizer, table: AliasTable, mentions: EvaluationSet) -> Ranking:
    """The entities of the nearest aliases of the mention's language.

    The encoder embeds every alias of the language without context, titles, labels and redirects among
    them, and every surface form alike. The aliases are read from the greatest cosine on, and the
    entities of each by falling count of its links in that language; an entity counts where it stands
    first. It is read on until 100 entities are found, or the language has no more. The score of an entity
    is the cosine of its alias, so the entities of one alias have equal scores.

    Args:
      encoder: usually the one before training.
      tokenizer: its tokenizer.
      table: the aliases, their counts, and the names.
      mentions: Q mentions.
    """
    ranking, languages_Q = Ranking.empty(len(mentions)), np.asarray(mentions.languages, np.str_)
    for language in np.unique(languages_Q):
        spoken = np.flatnonzero(languages_Q == language)
        entities_of = table.aliases_in(str(language))
        if entities_of:
            found = _rank(encoder, tokenizer, entities_of, [mentions.surface_forms[mention] for mention in spoken])
            ranking.entities_QK[spoken], ranking.scores_QK[spoken] = found.entities_QK, found.scores_QK
    return ranking


def rank_by_linked_aliases(
    encoder: Encoder, tokenizer: Tokenizer, table: AliasTable, mentions: EvaluationSet
) -> Ranking:
    """As `rank_by_olpeat`, with the surface forms that any language linked and no names, the 100 nearest at most."""
    entities_of = {form: [entity for entity, _ in table.candidates(form)] for form in table.surface_forms()}
    return _rank(encoder, tokenizer, entities_of, mentions.surface_forms, deepest=DEPTH)


def _rank(
    encoder: Encoder, tokenizer: Tokenizer, entities_of: Mapping[str, Sequence[int]], asked: Sequence[str],
    deepest: int | None = None,
) -> Ranking:  # fmt: skip
    """The entities of the nearest aliases of each string; `deepest` is how many aliases are read, None for all.

    Each alias's entities stand best first.
    """
    if not entities_of:  # where nothing was ever linked
        return Ranking.empty(len(asked))
    aliases, forms = list(entities_of), sorted(set(asked))
    index = ExactIndex(encoder.embed(_rows(tokenizer, aliases), "aliases"))
    queries_FD = encoder.embed(_rows(tokenizer, forms), "surface forms")
    ranking, waiting = Ranking.empty(len(forms)), np.arange(len(forms))
    deepest = min(deepest or len(aliases), len(aliases))
    depth = min(DEPTH, deepest)
    while len(waiting):
        short = []
        for some in np.array_split(waiting, -(-len(waiting) * depth // NEIGHBOURS_AT_ONCE)):
            aliases_fK, cosines_fK = index.search(queries_FD[some], depth)
            for form, aliases_K, cosines_K in zip(some.tolist(), aliases_fK.tolist(), cosines_fK.tolist(), strict=True):
                nearest: dict[int, float] = {}
                for alias, cosine in zip(aliases_K, cosines_K, strict=True):
                    for entity in entities_of[aliases[alias]]:
                        nearest.setdefault(entity, cosine)
                count = min(len(nearest), DEPTH)
                ranking.entities_QK[form, :count] = list(nearest)[:count]
                ranking.scores_QK[form, :count] = list(nearest.values())[:count]
                if count < DEPTH:
                    short.append(form)
        waiting = np.array(short if depth < deepest else [], np.int64)
        depth = min(2 * depth, deepest)
    return ranking[np.searchsorted(np.array(forms), np.array(asked))]


def _rows(tokenizer: Tokenizer, strings: list[str]) -> TokenRows:
    """Each string alone, the whole of it in focus."""
    marked = [MarkedText(string, Span(0, len(string))) for string in strings]
    return TokenRows.from_rows(tokenizer.rows(marked, ALIAS_TOKENS))
