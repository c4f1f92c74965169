"""The nouns of entity linking, and the two pytrees that training passes around.

Every value is checked where it is made, so that nothing downstream has to ask again.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal, NamedTuple

import numpy as np

EntityId = str
"""The name of an entity at the rims: in archives, mentions, reports, links. Inside, entities are numbered."""

Role = Literal["mention", "entity"]

NIL_ID: EntityId = "NIL"
NIL = 0  # the number of no entity
OUTSIDE = -1  # the number of an entity that the knowledge base does not know

MAX_ID_CHARACTERS = 1000

_QID = re.compile(r"Q0*([1-9][0-9]{0,17})")


class MelError(Exception):
    """Something a user can cause: one sentence with the offending value and the way out.

    The launcher prints it without a traceback and exits with status 1.
    """


def parse_qid(text: str) -> EntityId:
    """A QID without leading zeros: "Q042" is "Q42".

    Raises:
      MelError: the text is not "Q" followed by a positive decimal number of at most 18 digits.
    """
    match = _QID.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        shown = repr(text) if len(repr(text)) <= 50 else f"{repr(text)[:50]}… ({len(repr(text))} characters)"
        raise MelError(f"{shown} is not a QID: expected 'Q' and a positive number, as in 'Q42'.")
    return f"Q{match[1]}"


def parse_id(text: str) -> EntityId:
    """An id from outside, of whatever kind: white space around it goes, and the leading zeros of a QID.

    Raises:
      MelError: nothing is left, or it is longer than `MAX_ID_CHARACTERS`.
    """
    text = text.strip()
    if not text or len(text) > MAX_ID_CHARACTERS:
        raise MelError(f"{text[:50]!r} of {len(text)} characters is no id: 1 to {MAX_ID_CHARACTERS} are expected.")
    match = _QID.fullmatch(text)
    return f"Q{match[1]}" if match else text


def is_qid(entity_id: EntityId) -> bool:
    """Whether an id is one of Wikidata's."""
    return _QID.fullmatch(entity_id) is not None


def id_order(entity_id: EntityId) -> tuple[int, int, str]:
    """Sorts ids: QIDs by their number, then all others by their letters."""
    match = _QID.fullmatch(entity_id)
    return (0, int(match[1]), "") if match else (1, 0, entity_id)


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of code points, `0 <= start < end`."""

    start: int
    end: int

    def __post_init__(self):
        if not 0 <= self.start < self.end:
            raise MelError(f"Span {self.start}:{self.end} is empty or negative: 0 <= start < end is needed.")

    def of(self, text: str) -> str:
        """The text that the span covers.

        Raises:
          MelError: the span ends after the text.
        """
        if self.end > len(text):
            raise MelError(f"Span {self.start}:{self.end} leaves its text of {len(text)} characters.")
        return text[self.start : self.end]


@dataclasses.dataclass(frozen=True, slots=True)
class Mention:
    """A span of a context in some language, and the entity it means (NIL_ID where unknown).

    `document` names the text that the context comes from; mentions of one document belong together.
    `cluster` is what documents share that are translations of one another, "" where nobody knows.
    `title` is the title of the page the context comes from, "" where there is none.
    `frequency_bin` is Mewsli-9's `freq_bin` (0..5), -1 where a corpus does not tell.
    `in_references` is its `qid_in_refs`, None where a corpus does not tell.
    `lemma` is the lemma of the surface form, "" where a corpus does not tell.
    """

    mention_id: str
    language: str
    context: str
    span: Span
    gold: EntityId
    document: str = ""
    title: str = ""
    frequency_bin: int = -1
    in_references: bool | None = None
    lemma: str = ""
    cluster: str = ""

    def __post_init__(self):
        self.span.of(self.context)

    @property
    def surface_form(self) -> str:
        return self.span.of(self.context)


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """What one language says about one entity."""

    entity_id: EntityId
    language: str
    title: str
    description: str


@dataclasses.dataclass(frozen=True, slots=True)
class MarkedText:
    """A text with a marked focus: the only thing the tokenizer accepts.

    A mention is its page with the surface form as focus; an entity is its title and
    description with the title as focus. `header` is kept whatever window is cut. `role` says
    which of the two it is, for encoders that were trained with a prefix for each.
    """

    text: str
    focus: Span
    header: str = ""
    role: Role = "mention"

    def __post_init__(self):
        self.focus.of(self.text)


class Candidate(NamedTuple):
    """An entity, by its number, scored for a mention; a higher score is better."""

    entity: int
    score: float


class NamedCandidate(NamedTuple):
    """A candidate as a reader sees it: its id, and what the KB says of it in the language of the mention."""

    id: EntityId
    title: str
    description: str
    score: float


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """The answer for one span of a text.

    Attributes:
      start, end, surface_form: the span, half-open, in code points, and what it covers.
      id, title, description: the entity; NIL_ID and "" where there is none or it is withheld.
      score: of the best candidate, comparable with those of its rivals only; -inf where there is none.
      probability: of the best candidate being right, None where nobody knows.
      candidates: distinct ones, best first.
    """

    start: int
    end: int
    surface_form: str
    id: EntityId
    title: str
    description: str
    score: float
    probability: float | None
    candidates: tuple[NamedCandidate, ...]

    @classmethod
    def of(
        cls, span: Span, surface_form: str, candidates: tuple[NamedCandidate, ...], probability: float | None = None,
        withheld: bool = False,
    ) -> Link:  # fmt: skip
        """The link to the best of some candidates, or to none."""
        best = candidates[0] if candidates else NamedCandidate(NIL_ID, "", "", float("-inf"))
        name = NamedCandidate(NIL_ID, "", "", best.score) if withheld else best
        return cls(span.start, span.end, surface_form, *name, probability, candidates)

    @property
    def is_nil(self) -> bool:
        """Whether the span means no entity of the KB, as far as the linker knows."""
        return self.id == NIL_ID


class Batch(NamedTuple):
    """One training batch: texts grouped by width, and where each mention and candidate sits.

    The embeddings of all groups, concatenated in order, are N rows; B mentions and C distinct
    candidate rows point into them. Padding texts are all zeros and nothing points at them; padding
    columns have the entity NIL, which no mention may choose.

    Attributes:
      tokens: one int32 [N_w, w] array a width, 0 where padded.
      mention_row_B: int32, the text of each mention.
      candidate_row_C: int32, the text of each candidate entity.
      gold_column_B: int32, the column of each mention's gold.
      gold_B: int32, the entity that each mention means.
      entity_C: int32, the entity of each candidate, NIL for a padding column.
      twin_C: int32, equal for columns whose texts are equal token by token, -1 for a padding column.
      log_q_C: float32, the log-probability that a batch has the candidate; 0 where nobody asks.
    """

    tokens: tuple[np.ndarray, ...]
    mention_row_B: np.ndarray
    candidate_row_C: np.ndarray
    gold_column_B: np.ndarray
    gold_B: np.ndarray
    entity_C: np.ndarray
    twin_C: np.ndarray
    log_q_C: np.ndarray


class TrainState(NamedTuple):
    """What a checkpoint holds, and nothing else."""

    step: Any
    params: Any
    opt_state: Any
