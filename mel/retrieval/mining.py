"""Negatives of training mentions: entity rows that are wrong, mined among the nearest or drawn without an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from mel.corpora.kb import KnowledgeBase
from mel.retrieval.index import Index, first_of_each, keep_first, search_distinct
from mel.shards.permutation import uniform
from mel.types import NIL, MelError

MENTIONS_AT_ONCE = 8192
MOST_TWINS = 64
Negatives = Literal["hard", "random", "by_frequency", "same_surface"]
NUMBER_BITS = 31  # an entity number is below 2**31, so that a surface form's number and it make one int64


class Twins(NamedTuple):
    """Rows that read alike, token by token, whatever their entities: no encoder can tell them apart.

    Attributes:
      first_E: the first row that reads like each row.
      gold_rows_Q: the row of each mention's gold, -1 where the KB lacks it.
      counted: what `most` says, where somebody has counted.
    """

    first_E: np.ndarray
    gold_rows_Q: np.ndarray
    counted: int | None = None

    @property
    def most(self) -> int:
        """How many other rows a row reads like, at most; of a crowd, as many as are worth searching past."""
        if self.counted is not None:
            return self.counted
        return min(int(np.bincount(self.first_E).max(initial=1)) - 1, MOST_TWINS)

    def of(self, mentions: slice) -> np.ndarray:
        """The first row that reads like each gold, -1 where there is no gold."""
        rows_q = np.asarray(self.gold_rows_Q[mentions])
        return np.where(rows_q < 0, -1, self.first_E[rows_q])


def require_entities(kb: KnowledgeBase, negatives_per_mention: int) -> None:
    """Refuses a knowledge base that cannot hold so many wrong entities of a mention, before anything is embedded.

    Raises:
      MelError: it has too few entities.
    """
    distinct = kb.entity_rows.count()
    if distinct <= negatives_per_mention:
        raise MelError(
            f"The KB has {distinct} entities, and --negatives_per_mention={negatives_per_mention} wrong ones of each "
            f"mention are wanted: ask for {distinct - 1} at most, or prepare a larger KB."
        )


def mine(
    index: Index,
    queries_QD: np.ndarray,
    gold_Q: np.ndarray,
    entities_E: np.ndarray,
    negatives_per_mention: int,
    pool: int,
    seed: int,
    stream: int = 0,
    twins: Twins | None = None,
    mentions_Q: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
    block: int = MENTIONS_AT_ONCE,
) -> np.ndarray:
    """Draws hard negatives from the nearest wrong entities of each mention.

    No row of the mention's gold is ever chosen, none that reads like it, and no entity twice for one mention.

    Args:
      index: over the E entity rows.
      queries_QD: the embeddings of the mentions.
      gold_Q: their golds.
      entities_E: the entity of each entity row.
      negatives_per_mention: how many are drawn (K).
      pool: from how many of the nearest wrong entities, without replacement; equal to
        `negatives_per_mention` it takes the nearest.
      seed: of the draw.
      stream: the round: another one draws anew, so that in time a mention meets all of its pool.
      twins: which rows read alike; none do where it is not given.
      mentions_Q: a number of each mention, with which its draw is folded, so that it is the same whatever other
        mentions there are; 0 .. Q - 1 where they are not given.
      progress: told how many more mentions are done.
      block: mentions searched at once; the result does not depend on it.

    Returns:
      int32 [Q, K], the nearest first.

    Raises:
      MelError: the pool is smaller than what is drawn from it, or the KB has too few wrong entities.
    """
    if pool < negatives_per_mention:
        raise MelError(f"A pool of {pool} is too small to draw {negatives_per_mention} negatives from: widen it.")
    pool = min(pool, max(len(entities_E), negatives_per_mention))
    rows_QK = np.empty((len(queries_QD), negatives_per_mention), np.int32)
    numbers_Q = np.arange(len(queries_QD)) if mentions_Q is None else mentions_Q
    for start in range(0, len(queries_QD), block):
        mentions = slice(start, min(start + block, len(queries_QD)))
        depth = deepest(pool, twins)
        entities_qk, _, neighbours_qk = search_distinct(index, queries_QD[mentions], entities_E, depth)
        wrong_qk = (neighbours_qk >= 0) & (entities_qk != gold_Q[mentions, None])
        if twins:
            wrong_qk &= twins.first_E[neighbours_qk] != twins.of(mentions)[:, None]
        pool_qp = keep_first(wrong_qk, neighbours_qk, pool, -1)
        _check_enough(pool_qp, negatives_per_mention, numbers_Q[mentions])
        ticket_qp = uniform(numbers_Q[mentions], pool, seed, stream)
        ticket_qp = np.where(pool_qp < 0, np.inf, ticket_qp)
        drawn_qK = np.sort(np.argsort(ticket_qp, axis=1, kind="stable")[:, :negatives_per_mention], axis=1)
        rows_QK[mentions] = np.take_along_axis(pool_qp, drawn_qK, axis=1)
        if progress:
            progress(mentions.stop - start)
    return rows_QK


def deepest(pool: int, twins: Twins | None) -> int:
    """How many distinct entities are looked for, so that a pool of wrong ones is among them."""
    # A gold takes up at most one of them, so one more than the pool, and its twins, are enough.
    return pool + 1 + (twins.most if twins else 0)


def random_negatives(gold_Q: np.ndarray, entities_E: np.ndarray, negatives_per_mention: int, seed: int) -> np.ndarray:
    """Draws entity rows uniformly, never a gold, no entity twice for one mention.

    Returns:
      int32 [Q, K].

    Raises:
      MelError: the KB has too few wrong entities.
    """
    rows_QK = np.full((len(gold_Q), negatives_per_mention), -1, np.int32)
    return _fill_up(rows_QK, gold_Q, np.arange(len(entities_E)), entities_E, np.random.default_rng(seed))


def negatives_by_frequency(
    gold_Q: np.ndarray, gold_rows_Q: np.ndarray, entities_E: np.ndarray, negatives_per_mention: int, seed: int
) -> np.ndarray:
    """Draws the gold rows of random mentions, and so each entity as often as it is gold.

    Never a gold of the mention itself, no entity twice for one mention.

    Args:
      gold_Q: the golds of the mentions.
      gold_rows_Q: the rows of their golds, -1 where the KB lacks them.
      entities_E: the entity of each entity row.
      negatives_per_mention: how many are drawn (K).
      seed: of the draw.

    Returns:
      int32 [Q, K].

    Raises:
      MelError: the mentions have too few different golds.
    """
    rows_QK = np.full((len(gold_Q), negatives_per_mention), -1, np.int32)
    drawn_from = np.asarray(gold_rows_Q)[np.asarray(gold_rows_Q) >= 0]
    return _fill_up(rows_QK, gold_Q, drawn_from, entities_E, np.random.default_rng(seed))


def same_surface_negatives(
    surface_forms: Iterable[str],
    gold_Q: np.ndarray,
    languages_Q: np.ndarray | Sequence[str],
    kb: KnowledgeBase,
    negatives_per_mention: int,
    seed: int,
    block: int = MENTIONS_AT_ONCE,
) -> np.ndarray:
    """Draws wrong entities that the mention's surface form means elsewhere, each in the mention's language.

    First come entities that some mention with the same surface form is linked to, then those where
    it is the same lower-cased only; each group in random order. What is missing then is drawn
    uniformly. Never a gold, no entity twice for one mention.

    Args:
      surface_forms: of the Q mentions.
      gold_Q: their golds.
      languages_Q: their languages.
      kb: of the entity rows; golds that it lacks are no candidates.
      negatives_per_mention: how many are drawn (K).
      seed: of the draw.
      block: mentions drawn for at once; the result does not depend on it.

    Returns:
      int32 [Q, K].

    Raises:
      MelError: the KB has too few wrong entities.
    """
    generator = np.random.default_rng(seed)
    form_Q, lower_Q = _numbered(surface_forms)
    known_Q = kb.rows_of(gold_Q, kb.languages[0]) >= 0
    exact, lower = (np.unique(_key(number_Q, gold_Q)[known_Q]) for number_Q in (form_Q, lower_Q))
    entities_QK = np.full((len(gold_Q), negatives_per_mention), NIL, np.int64)
    for start in range(0, len(gold_Q), block):
        mentions = slice(start, start + block)
        keys_p, mention_p = _ranges(lower, _key(lower_Q[mentions], 0), _key(lower_Q[mentions] + 1, 0))
        entity_p = keys_p & (2**NUMBER_BITS - 1)
        inexact_p = ~_holds(exact, _key(form_Q[mentions][mention_p], entity_p))
        order_p = np.lexsort((generator.random(len(entity_p)), inexact_p, mention_p))
        order_p = order_p[entity_p[order_p] != gold_Q[mentions][mention_p[order_p]]]
        mention_p, entity_p = mention_p[order_p], entity_p[order_p]
        place_p = np.arange(len(entity_p)) - np.searchsorted(mention_p, mention_p)
        drawn_p = place_p < negatives_per_mention
        entities_QK[start + mention_p[drawn_p], place_p[drawn_p]] = entity_p[drawn_p]
    rows_QK = np.full(entities_QK.shape, -1, np.int32)
    for language in np.unique(languages_Q).tolist():
        spoken_Q = np.asarray(languages_Q) == language
        rows_QK[spoken_Q] = kb.rows_of(entities_QK[spoken_Q], language)
    return _fill_up(rows_QK, gold_Q, np.arange(len(kb.entities_E)), kb.entities_E, generator)


def _fill_up(
    rows_QK: np.ndarray,
    gold_Q: np.ndarray,
    drawn_from: np.ndarray,
    entities_E: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Replaces -1 by rows drawn uniformly from `drawn_from`, until each line holds K distinct wrong entities."""
    negatives_per_mention = rows_QK.shape[1]
    distinct = len(np.unique(entities_E[drawn_from]))
    if distinct < negatives_per_mention + 1:
        raise MelError(_too_small(distinct - 1, negatives_per_mention))
    waiting = np.flatnonzero((rows_QK < 0).any(axis=1))
    while len(waiting):
        rows_qK = rows_QK[waiting]
        empty_qK = rows_qK < 0
        rows_qK[empty_qK] = drawn_from[generator.integers(len(drawn_from), size=np.count_nonzero(empty_qK))]
        entities_qK = entities_E[rows_qK]
        rejected_qK = ~first_of_each(entities_qK) | (entities_qK == gold_Q[waiting, None])
        rows_QK[waiting] = np.where(rejected_qK, -1, rows_qK)
        waiting = waiting[rejected_qK.any(axis=1)]
    return rows_QK


def _numbered(surface_forms: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """A number for each mention's surface form, and one for it lower-cased."""
    forms: dict[str, int] = {}
    form_Q = np.fromiter((forms.setdefault(form, len(forms)) for form in surface_forms), np.int64)
    lowered: dict[str, int] = {}
    lower_F = np.fromiter((lowered.setdefault(form.lower(), len(lowered)) for form in forms), np.int64)
    return form_Q, lower_F[form_Q]


def _key(number_Q: np.ndarray, entity_Q: np.ndarray | int) -> np.ndarray:
    return (number_Q << NUMBER_BITS) + entity_Q


def _ranges(keys: np.ndarray, low_q: np.ndarray, high_q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a sorted key and a q with `low_q <= key < high_q`: the keys and the q, q ascending."""
    first_q, last_q = np.searchsorted(keys, low_q), np.searchsorted(keys, high_q)
    counts_q = last_q - first_q
    within = np.arange(counts_q.sum()) - np.repeat(np.cumsum(counts_q) - counts_q, counts_q)
    return keys[np.repeat(first_q, counts_q) + within], np.repeat(np.arange(len(low_q)), counts_q)


def _holds(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether each wanted key is among the sorted keys."""
    return keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted


def _check_enough(pool_qp: np.ndarray, negatives_per_mention: int, numbers_q: np.ndarray) -> None:
    wrong_q = np.count_nonzero(pool_qp >= 0, axis=1)
    if len(wrong_q) and wrong_q.min() < negatives_per_mention:
        mention = numbers_q[wrong_q.argmin()]
        raise MelError(_too_small(int(wrong_q.min()), negatives_per_mention, f" for mention {mention}"))


def _too_small(wrong: int, negatives_per_mention: int, whom: str = "") -> str:
    return (
        f"The KB has only {wrong} wrong entities{whom}, and {negatives_per_mention} negatives are wanted: "
        "prepare a larger KB, or ask for fewer."
    )
