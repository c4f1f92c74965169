"""The nouns of entity linking, and the two pytrees that training passes around.

Every value is checked where it is made, so that nothing downstream has to ask again.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Literal, NamedTuple, NewType

import numpy as np

Qid = NewType("Qid", int)
NIL = Qid(0)
Role = Literal["mention", "entity"]

_PLACE = re.compile(r":\d+:\d+$|-\d+$")  # the rest of an id: position and length, or a link's number


class MelError(Exception):
    """Something a user can cause: one sentence with the offending value and the way out.

    The launcher prints it without a traceback and exits with status 1.
    """


def parse_qid(text: str) -> Qid:
    """Turns "Q42" into 42.

    Raises:
      MelError: the text is not "Q" followed by a positive decimal number below 2**31.
    """
    prefix, number = (text[:1], text[1:]) if isinstance(text, str) else ("", "")
    if not (prefix == "Q" and number.isascii() and number.isdigit() and 0 < int(number) < 2**31):
        raise MelError(f"{text!r} is not a QID: expected 'Q' and a positive number, as in 'Q42'.")
    return Qid(int(number))


def format_qid(qid: Qid) -> str:
    """Turns 42 into "Q42", and NIL into "NIL"."""
    return f"Q{qid}" if qid else "NIL"


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
          MelError: the span ends behind the text.
        """
        if self.end > len(text):
            raise MelError(f"Span {self.start}:{self.end} leaves its text of {len(text)} characters.")
        return text[self.start : self.end]


@dataclasses.dataclass(frozen=True, slots=True)
class Mention:
    """A span of a context in some language, and the entity it means (NIL where unknown).

    `title` is the title of the page the context comes from, "" where there is none.
    `frequency_bin` is Mewsli-9's `freq_bin` (0..5), -1 where a corpus does not tell.
    `in_references` is its `qid_in_refs`, None where a corpus does not tell.
    `lemma` is the lemma of the surface form, "" where a corpus does not tell.
    """

    mention_id: str
    language: str
    context: str
    span: Span
    gold: Qid
    title: str = ""
    frequency_bin: int = -1
    in_references: bool | None = None
    lemma: str = ""

    def __post_init__(self):
        self.span.of(self.context)

    @property
    def surface_form(self) -> str:
        return self.span.of(self.context)

    @property
    def document(self) -> str:
        return document_of(self.mention_id)


def document_of(mention_id: str) -> str:
    """The id of a mention's document: "en-Q42-7" -> "en-Q42", "n-5:30:4" -> "n-5"."""
    return _PLACE.sub("", mention_id)


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """What one language says about one QID."""

    qid: Qid
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
    """An entity scored for a mention; a higher score is better."""

    qid: Qid
    score: float


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """The answer for one mention: candidates with distinct QIDs, best first."""

    mention: Mention
    candidates: tuple[Candidate, ...]


class Batch(NamedTuple):
    """One training batch: texts grouped by width, and where each mention and candidate sits.

    The embeddings of all groups, concatenated in order, are N rows; B mentions and C distinct
    candidate entities point into them. Padding texts are all zeros and nothing points at them;
    padding columns have candidate QID 0, which no mention may choose.

    Attributes:
      tokens: one int32 [N_w, w] array a width, 0 where padded.
      mention_row_B: int32, the text of each mention.
      candidate_row_C: int32, the text of each candidate entity.
      gold_column_B: int32, the column of each mention's gold.
      mention_qid_B: int32, the gold QID of each mention.
      candidate_qid_C: int32, the QID of each candidate, 0 for a padding column.
      log_q_C: float32, the log-probability that a batch has the candidate; 0 where nobody asks.
    """

    tokens: tuple[np.ndarray, ...]
    mention_row_B: np.ndarray
    candidate_row_C: np.ndarray
    gold_column_B: np.ndarray
    mention_qid_B: np.ndarray
    candidate_qid_C: np.ndarray
    log_q_C: np.ndarray


class TrainState(NamedTuple):
    """What a checkpoint holds, and nothing else."""

    step: Any
    params: Any
    opt_state: Any
