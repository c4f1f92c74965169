"""Cuts windows out of a tokenised page.

A page is tokenised once, and the tokens before, in and after a focus are cut from its tokens by their
character offsets. The one rule for a focus that does not keep to them, the same for all tokenizers:

  Where a boundary of the focus splits a word, both sides of that word are tokenised again, each as a
  text of its own, but at most `STRETCH` characters of a side; beyond them the tokens of the page stay.

A word is what the tokenizer itself cuts a text into before it looks for pieces: up to a space or a
punctuation mark, or whole sentences in scripts without spaces. So a window equals what its three
pieces give alone wherever words are at most `STRETCH` characters long, and a mention costs the same
however long its page and its words are.

A space that belongs to a token ("▁Paris", "ĠParis") goes where the rest of the token goes, and one
that is a token of its own goes with what comes after it.
"""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from collections.abc import Callable

import numpy as np
import tokenizers

from mel.types import Span

STRETCH = 100  # as long as a word may be that WordPiece looks for pieces in

Encode = Callable[[str, bool], np.ndarray]
"""The ids of a piece of a page; the second argument says whether the page begins with it."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Stretch:
    """What is tokenised again around a boundary: characters start..end, instead of tokens first..last (exclusive)."""

    start: int
    end: int
    first: int
    last: int


class Page:
    """A tokenised text.

    Attributes:
      text: the text.
      ids_T: its tokens.
      starts_T, ends_T: the characters of each token, without the space before it.
    """

    def __init__(self, text: str, encoding: tokenizers.Encoding):
        offsets_T2 = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
        self.text, self.ids_T = text, np.asarray(encoding.ids, np.int32)
        # A normaliser may put combining marks into another order, and their offsets with them.
        self._begins_T, self.ends_T = np.maximum.accumulate(offsets_T2, axis=0).T
        self.starts_T = _after_space(text, self._begins_T, self.ends_T)
        self._word_first = np.flatnonzero(np.diff(np.asarray(encoding.word_ids, np.int64), prepend=-1))
        self._word_starts = self.starts_T[self._word_first]

    def cut(self, focus: Span, room: int, encode: Encode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The last `room` tokens before the focus, at least the first `room` in it, and the first `room` after it."""
        start, end = focus.start, focus.end
        first, last = (int(np.searchsorted(self.starts_T, position)) for position in (start, end))
        before, after = self._stretch(start), self._stretch(end)
        left, right = self.ids_T[max(first - room, 0) : first], self.ids_T[last : last + room]
        if before:
            first = before.last
            kept = self.ids_T[max(before.first - room, 0) : before.first]
            left = np.concatenate([kept, self._part(before.start, start, before, encode)])[-room:]
        if after:
            last = after.first
            right = self._part(end, after.end, after, encode)
            right = np.concatenate([right, self.ids_T[after.last : after.last + room]])
        return left, self._middle(focus, before, after, slice(first, min(last, first + room)), encode), right

    def _middle(
        self, focus: Span, before: _Stretch | None, after: _Stretch | None, whole: slice, encode: Encode
    ) -> np.ndarray:
        """The tokens of the focus, of which the tokens `whole` are in no stretch."""
        start, end = focus.start, focus.end
        if before and before.end >= (after.start if after else end):
            return self._part(start, end, before, encode)
        pieces = [self.ids_T[whole]]
        if before:
            pieces.insert(0, self._part(start, before.end, before, encode))
        if after:
            pieces.append(self._part(after.start, end, after, encode))
        return np.concatenate(pieces)

    def _part(self, start: int, end: int, stretch: _Stretch, encode: Encode) -> np.ndarray:
        begins_page = stretch.first == 0 and start == stretch.start
        return encode(self.text[start:end], begins_page)

    def _stretch(self, position: int) -> _Stretch | None:
        """What is tokenised again around a boundary, None where it splits no word."""
        word = int(np.searchsorted(self._word_starts, position)) - 1
        if word < 0:
            return None
        first = int(self._word_first[word])
        last = int(self._word_first[word + 1]) if word + 1 < len(self._word_first) else len(self.ids_T)
        start, end = int(self._begins_T[first]), int(self.ends_T[last - 1])
        if end <= position:
            return None
        if position - start > STRETCH:
            # From the border of a token on, if there is one; else in the middle of the token, which stays.
            first = int(np.searchsorted(self.starts_T, position - STRETCH))
            start = int(self._begins_T[first]) if first < len(self.ids_T) else position
            start = start if start < position else position - STRETCH
        if end - position > STRETCH:
            last = int(np.searchsorted(self.ends_T, position + STRETCH, side="right"))
            end = int(self.ends_T[last - 1]) if last else position
            end = end if end > position else position + STRETCH
        return _Stretch(start, end, first, last)


def _after_space(text: str, begins_T: np.ndarray, ends_T: np.ndarray) -> np.ndarray:
    """The first character of each token that can be seen, or its end."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    starts_T, blank = begins_T.copy(), _blank_characters()
    while True:
        inside = np.flatnonzero(starts_T < ends_T)
        inside = inside[blank[np.minimum(codes[starts_T[inside]], len(blank) - 1)]]
        if not len(inside):
            return np.maximum.accumulate(starts_T)
        starts_T[inside] += 1


@functools.cache
def _blank_characters() -> np.ndarray:
    """Which code points are spaces or cannot be seen: normalisers make spaces of them, or nothing."""
    categories = [unicodedata.category(chr(code)) for code in range(0x10000)]
    return np.array([category[0] == "Z" or category in ("Cc", "Cf") for category in categories] + [False])
