"""Batch n as a pure function of (seed, n): which mentions, which candidates, in which shapes.

The texts of a batch are grouped by width, each group with a fixed number of rows, so that all
batches of a round share one shape and one compiled step.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Sequence

import numpy as np

from mel.corpora.columns import advise_random
from mel.shards.datasets import RowSet
from mel.shards.negatives import Negatives
from mel.shards.rows import WIDTH_STEP
from mel.shards.selection import MentionOrder
from mel.types import Batch, MelError

MOST_WIDTHS = 6  # every width is compiled into the step
SAMPLED_BATCHES = 64
HEADROOM = 1.02  # over the largest need among the sampled batches
KEPT_PADDING = 0.05  # more than the best layout, at most, for one that is compiled already
STEPS_TO_COMPILE = 50  # what compiling one costs: from 15 steps on a CPU to 110 on a GPU


@dataclasses.dataclass(frozen=True)
class Layout:
    """The shape of a batch: how many texts of each width, and how many candidate columns."""

    widths: tuple[int, ...]
    texts: tuple[int, ...]
    candidates: int

    @property
    def tokens(self) -> int:
        """Of a batch, padding included."""
        return sum(map(operator.mul, self.widths, self.texts))


@dataclasses.dataclass(frozen=True, eq=False)
class BatchSource:
    """Everything that batch n depends on besides n.

    Attributes:
      mentions: training mentions.
      entities: one row an entity.
      negatives: the hard negatives of mentions; None for in-batch negatives only.
      batch_size: mentions a batch.
      seed: of the order of the mentions.
      chunk_tokens: the most tokens, padding included, to encode at once.
      devices: every leading axis of a batch is a multiple of their number.
      compact_id_V: what stands for each token id in a batch; None for the ids as they are.
      log_q: whether batches tell how likely their candidates are to be in one.
      chosen_n: the mentions to draw, rows of `mentions` whose gold the KB has; None for all of these.
      twin_E: the first entity row that reads like each; looked for where it is not given.
      from_disk: whether memory cannot hold the tokens of all rows: the system is told which ones a batch needs, reads
        these at the same time, and nothing beside them. Where memory can hold them, that would only cost time.
    """

    mentions: RowSet
    entities: RowSet
    negatives: Negatives | None
    batch_size: int
    seed: int
    chunk_tokens: int
    devices: int = 1
    compact_id_V: np.ndarray | None = None
    log_q: bool = False
    chosen_n: np.ndarray | None = None
    twin_E: np.ndarray | None = None
    from_disk: bool = False

    def __post_init__(self):
        if self.from_disk:
            for row_set in (self.mentions, self.entities):
                advise_random(row_set.rows.tokens_T)
        if self.order.batch_size % self.devices:
            raise MelError(
                f"--batch_size={self.batch_size} cannot be split over {self.devices} devices: make it a multiple."
            )

    def mention_rows(self, n: int) -> np.ndarray:
        """The mentions of batch n; see `MentionOrder`."""
        return self.order.batch(n)

    @functools.cached_property
    def order(self) -> MentionOrder:
        """Which mentions each batch draws."""
        chosen_n = self.chosen_n
        if chosen_n is None:
            chosen_n = np.flatnonzero(np.asarray(self.mentions.entity_rows_N) >= 0)
        return MentionOrder(chosen_n, self.batch_size, self.seed)

    @functools.cached_property
    def _all_drawn(self) -> bool:
        """Whether every batch can be asked for: where there are negatives, all mentions of the order have some."""
        known, mentions_n = self.negatives, self.order.mentions_n
        return known is None or (len(known) >= len(mentions_n) and not len(known.missing(mentions_n)))

    @functools.cached_property
    def _drawn(self) -> np.ndarray:
        """The mentions of the order that can be asked for."""
        mentions_n = self.order.mentions_n
        if self.negatives is None or self._all_drawn:
            return mentions_n
        return np.setdiff1d(mentions_n, self.negatives.missing(mentions_n), assume_unique=True)

    def entity_rows(self, mention_rows_B: np.ndarray) -> np.ndarray:
        """The distinct candidate entities of a batch: its golds and their hard negatives, sorted."""
        golds_B = self.mentions.entity_rows_N[mention_rows_B]
        negatives_BK = [] if self.negatives is None else self.negatives.of(mention_rows_B).reshape(-1)
        return np.unique(np.concatenate([golds_B, negatives_BK]).astype(np.int64))

    def batch_at(self, n: int, layouts: Sequence[Layout]) -> Batch:
        """Batch n in the first of the layouts that holds it; the last one must hold any."""
        mention_rows_B = self.mention_rows(n)
        entity_rows_c = self.entity_rows(mention_rows_B)
        lengths = self._lengths(mention_rows_B, entity_rows_c)
        if self.from_disk:
            self.mentions.rows.announce(mention_rows_B)
            self.entities.rows.announce(entity_rows_c)
        for layout in layouts:
            slots = _slots(layout, lengths)
            if slots is not None and len(entity_rows_c) <= layout.candidates:
                return self._fill(layout, mention_rows_B, entity_rows_c, slots)
        raise ValueError("the last layout must hold any batch")

    def plan(
        self, first: int = 0, last: int | None = None, most_widths: int = MOST_WIDTHS, before: Layout | None = None
    ) -> tuple[Layout, Layout]:
        """A layout for nearly every batch, measured on sampled ones, and one that holds any batch.

        Args:
          first, last: the batches that will be asked for are first .. last - 1. They are sampled where the mentions of
            others may have no negatives; else batches from 0 on are, whichever will be asked for.
          most_widths: of the texts; each is compiled into the step, and fewer mean more padding.
          before: the layout of the round before. It stays, so that its compiled step does, where it holds the sampled
            batches and pads little more than the best one, and all batches to come less than compiling that would cost.
        """
        kept_padding = min(KEPT_PADDING, STEPS_TO_COMPILE / (last - first)) if last is not None else KEPT_PADDING
        if self._all_drawn:
            first, last = 0, None
        sampled, candidates = [], []
        for n in range(first, first + SAMPLED_BATCHES if last is None else min(first + SAMPLED_BATCHES, last)):
            mention_rows_B = self.mention_rows(n)
            entity_rows_c = self.entity_rows(mention_rows_B)
            sampled.append(self._lengths(mention_rows_B, entity_rows_c))
            candidates.append(len(entity_rows_c))
        longest = max(int(rows.lengths_N.max()) for rows in (self.mentions.rows, self.entities.rows))
        widths = best_widths(np.concatenate(sampled), longest, most_widths)
        negatives = 0 if self.negatives is None else self.negatives.per_mention
        most = min(self.batch_size * (1 + negatives), len(self.entities))
        columns = min(most, int(max(candidates) * HEADROOM) + 1)
        worst = [0] * (len(widths) - 1) + [self._round_up(self.batch_size + most, widths[-1])]
        by_devices = [-(-count // self.devices) * self.devices for count in (columns, most)]
        best = Layout(widths, self._texts(sampled, widths), by_devices[0])
        if (
            before is not None
            and len(before.widths) <= most_widths
            and self._serves(before, best, 1 + kept_padding, sampled, candidates)
        ):
            best, worst = before, [0] * (len(before.widths) - 1) + worst[-1:]
        return best, Layout(best.widths, tuple(worst), by_devices[1])

    def _serves(
        self, before: Layout, best: Layout, most: float, sampled: Sequence[np.ndarray], candidates: Sequence[int]
    ) -> bool:
        """Whether an earlier layout holds these batches on these devices, and is no more than `most` times the best."""
        rounded = tuple(map(self._round_up, before.texts, before.widths)), before.candidates % self.devices
        return (
            rounded == (before.texts, 0)
            and before.widths[-1] == best.widths[-1]
            and all(_slots(before, lengths) is not None for lengths in sampled)
            and max(candidates) <= before.candidates <= best.candidates * most
            and before.tokens <= best.tokens * most
        )

    def _texts(self, sampled: Sequence[np.ndarray], widths: tuple[int, ...]) -> tuple[int, ...]:
        """How many texts of each width hold every sampled batch, with a little headroom.

        A text goes where there is room, into its own width or a larger one. So it is enough that for
        each width the texts that need it or more find as many slots of it or more.
        """
        needs = [np.bincount(np.searchsorted(widths, lengths), minlength=len(widths)) for lengths in sampled]
        from_here_on = np.max([np.cumsum(need[::-1])[::-1] for need in needs], axis=0)
        slots = np.ceil(from_here_on * HEADROOM).astype(int).tolist()
        counts = map(operator.sub, slots, [*slots[1:], 0])
        return tuple(self._round_up(count, width) for count, width in zip(counts, widths, strict=True))

    def _fill(self, layout: Layout, mention_rows_B, entity_rows_c, slots) -> Batch:
        count_b = len(mention_rows_B)
        tokens, first = [], 0
        for width, texts in zip(layout.widths, layout.texts, strict=True):
            group = np.zeros((texts, width), np.int32)
            for rows, row_ids, slot in (
                (self.mentions.rows, mention_rows_B, slots[:count_b]),
                (self.entities.rows, entity_rows_c, slots[count_b:]),
            ):
                inside = (slot >= first) & (slot < first + texts)
                group[slot[inside] - first] = rows.gather(row_ids[inside], width)
            tokens.append(group if self.compact_id_V is None else self.compact_id_V[group])
            first += texts
        padding = layout.candidates - len(entity_rows_c)
        return Batch(
            tokens=tuple(tokens),
            mention_row_B=slots[:count_b].astype(np.int32),
            candidate_row_C=np.pad(slots[count_b:], (0, padding)).astype(np.int32),
            gold_column_B=np.searchsorted(entity_rows_c, self.mentions.entity_rows_N[mention_rows_B]).astype(np.int32),
            gold_B=self.mentions.entities_N[mention_rows_B].astype(np.int32),
            entity_C=np.pad(self.entities.entities_N[entity_rows_c], (0, padding)).astype(np.int32),
            twin_C=np.pad(self._twin_E[entity_rows_c], (0, padding), constant_values=-1),
            log_q_C=np.pad(
                self._log_q_E[entity_rows_c] if self.log_q else np.zeros(len(entity_rows_c)), (0, padding)
            ).astype(np.float32),
        )

    @functools.cached_property
    def _twin_E(self) -> np.ndarray:
        return self.entities.rows.twins() if self.twin_E is None else self.twin_E

    @functools.cached_property
    def _log_q_E(self) -> np.ndarray:
        """The log-probability that an entity row is a candidate of a batch, as if draws were independent.

        An entity is drawn as a gold or as a hard negative; of all draws of an epoch its share is p,
        and of the n draws of a batch at least one is of it with probability 1 - (1 - p)^n. Mentions that have
        negatives stand for those that have none.
        """
        mentions_n, entities, draws_a_mention = self.order.mentions_n, len(self.entities), 1
        counts_E = np.bincount(self.mentions.entity_rows_N[mentions_n], minlength=entities)
        if self.negatives is not None:
            draws_a_mention += self.negatives.per_mention
            of_drawn_E = np.bincount(self.negatives.of(self._drawn).reshape(-1), minlength=entities)
            counts_E = counts_E + of_drawn_E * (len(mentions_n) / len(self._drawn))
        share_E = np.maximum(counts_E, 1) / (len(mentions_n) * draws_a_mention)
        draws_a_batch = self.batch_size * draws_a_mention
        return np.log(-np.expm1(draws_a_batch * np.log1p(-np.minimum(share_E, 1 - 1e-12))))

    def _lengths(self, mention_rows_B: np.ndarray, entity_rows_c: np.ndarray) -> np.ndarray:
        pairs = ((self.mentions.rows, mention_rows_B), (self.entities.rows, entity_rows_c))
        return np.concatenate([rows.offsets_N1[ids + 1] - rows.offsets_N1[ids] for rows, ids in pairs])

    def _round_up(self, texts: int, width: int) -> int:
        """As many texts or a few more, the same number for each device and each of its chunks."""
        on_a_device = -(-texts // self.devices)
        chunks = chunk_count(on_a_device, width, self.chunk_tokens)
        return -(-on_a_device // max(chunks, 1)) * chunks * self.devices


def chunk_count(texts: int, width: int, chunk_tokens: int) -> int:
    """In how many equal chunks so many texts of one width are encoded.

    Raises:
      MelError: a chunk does not hold even one.
    """
    if width > chunk_tokens:
        raise MelError(f"A chunk of {chunk_tokens} tokens cannot hold one row of {width}.")
    return -(-texts // (chunk_tokens // width))


def best_widths(lengths: np.ndarray, longest: int, most: int = MOST_WIDTHS) -> tuple[int, ...]:
    """The multiples of WIDTH_STEP, `most` of them at most, that pad these lengths the least.

    The last one holds a row of `longest` tokens.
    """
    ends = list(range(WIDTH_STEP, longest + WIDTH_STEP, WIDTH_STEP))
    shorter = [0, *np.searchsorted(np.sort(lengths), ends, side="right").tolist()]  # texts up to each end

    @functools.cache
    def cheapest(last: int, count: int) -> tuple[int, tuple[int, ...]]:
        """The tokens of all texts up to ends[last], and the widths that take so many, at most `count` of them."""
        choices: list[tuple[int, tuple[int, ...]]] = [(shorter[last + 1] * ends[last], (ends[last],))]
        for below in range(last if count > 1 else 0):
            tokens, widths = cheapest(below, count - 1)
            tokens += (shorter[last + 1] - shorter[below + 1]) * ends[last]
            choices.append((tokens, (*widths, ends[last])))
        return min(choices, key=lambda choice: (choice[0], len(choice[1]), choice[1]))

    return cheapest(len(ends) - 1, most)[1]


def _slots(layout: Layout, lengths: np.ndarray) -> np.ndarray | None:
    """A text slot for every length, wide enough, as narrow as there is room; None where there is none."""
    needed = np.searchsorted(layout.widths, lengths)
    slots = np.empty(len(lengths), np.int64)
    waiting, first = np.zeros(0, np.int64), 0
    for group, texts in enumerate(layout.texts):
        waiting = np.concatenate([waiting, np.flatnonzero(needed == group)])
        placed = waiting[:texts]
        slots[placed] = first + np.arange(len(placed))
        waiting, first = waiting[texts:], first + texts
    return None if len(waiting) else slots
