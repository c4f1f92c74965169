"""Cuts windows out of a tokenised page.

A page is tokenised once, and the tokens before, in and after a focus are cut from its tokens by their
character offsets. The one rule for a boundary, of the focus or of the window, that does not keep to them:

  Where a boundary splits a word, the sides of that word that the window has are tokenised again, each as a
  text of its own, but at most `STRETCH` characters of a side; beyond them the tokens of the page stay.

A word is what the tokenizer itself cuts a text into before it looks for pieces: up to a space or a
punctuation mark, or whole sentences in scripts without spaces. So a window equals what its three
pieces of text give alone wherever words are at most `STRETCH` characters long: another program that is
given these pieces has the same tokens. A mention costs the same however long its page and its words are.

A space that belongs to a token ("▁Paris", "ĠParis") goes where the rest of the token goes, and one
that is a token of its own goes with what comes after it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tokenizers

from mel.types import Span

STRETCH = 100  # as long as a word may be that WordPiece looks for pieces in

Encode = Callable[[str, bool], tokenizers.Encoding]
"""The tokens of a piece of a page; the second argument says whether the page begins with it."""


class Piece(NamedTuple):
    """Consecutive tokens of a page.

    Attributes:
      ids_t: int32.
      begins_t, ends_t: the characters of each token, the space before it among them.
      opens_t: whether a word begins with the token.
    """

    ids_t: np.ndarray
    begins_t: np.ndarray
    ends_t: np.ndarray
    opens_t: np.ndarray

    @classmethod
    def of(cls, encoding: tokenizers.Encoding, start: int = 0) -> Piece:
        """The tokens of a text that begins with character `start` of the page."""
        # A normaliser may put combining marks into another order, and their offsets with them.
        flat = np.fromiter(itertools.chain.from_iterable(encoding.offsets), np.int64, 2 * len(encoding))
        offsets_t2 = np.maximum.accumulate(flat.reshape(-1, 2), axis=0)
        words_t = np.asarray(encoding.word_ids, np.int64)
        opens_t = np.diff(words_t, prepend=-1) != 0
        return cls(np.asarray(encoding.ids, np.int32), offsets_t2[:, 0] + start, offsets_t2[:, 1] + start, opens_t)

    @classmethod
    def joined(cls, pieces: list[Piece]) -> Piece:
        return pieces[0] if len(pieces) == 1 else cls(*map(np.concatenate, zip(*pieces, strict=True)))

    def __getitem__(self, tokens: slice) -> Piece:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Piece(self.ids_t[tokens], self.begins_t[tokens], self.ends_t[tokens], self.opens_t[tokens])


class Cut(NamedTuple):
    """What of a piece is in a window: its tokens, and the characters that they are of."""

    ids_t: np.ndarray
    start: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Stretch:
    """What is tokenised again around a boundary: characters start..end, instead of tokens first..last (exclusive).

    Of the word that is split, it has the beginning or has not.
    """

    start: int
    end: int
    first: int
    last: int
    opens: bool


class Page:
    """A tokenised text, or a part of it that has the tokens which the whole has there.

    Attributes:
      text: the whole text.
      tokens: of the part.
      starts_T: the first character of each token, without the space before it.
    """

    def __init__(self, text: str, encoding: tokenizers.Encoding, start: int = 0, end: int | None = None):
        """The part is `text[start:end]`, and `encoding` is of it."""
        self.text, self.tokens = text, Piece.of(encoding, start)
        self.starts_T = start + _after_space(text[start:end], self.tokens.begins_t - start, self.tokens.ends_t - start)
        self._has_start, self._has_end = start == 0, end is None or end == len(text)
        self._word_first = np.flatnonzero(self.tokens.opens_t)
        self._word_starts = self.starts_T[self._word_first]

    def pieces(self, focus: Span, room: int, encode: Encode) -> tuple[Piece, Piece, Piece]:
        """The tokens before, in and after the focus: the `room` nearest, and one more to see whether a word ends."""
        start, end = focus.start, focus.end
        first, last = (int(np.searchsorted(self.starts_T, position)) for position in (start, end))
        before, after = self._stretch(start), self._stretch(end)
        left, right = [self.tokens[max(first - room, 0) : first]], [self.tokens[last : last + room + 1]]
        if before:
            first = before.last
            left = [self.tokens[max(before.first - room, 0) : before.first]]
            left.append(self._part(before.start, start, before, encode))
            left[1].opens_t[:1] = before.opens
        if after:
            last = after.first
            right = [self._part(end, after.end, after, encode), self.tokens[after.last : after.last + room + 1]]
        whole = slice(first, min(last, first + room + 1))
        return Piece.joined(left), self._middle(focus, before, after, whole, encode), Piece.joined(right)

    def reaches(self, focus: Span, room: int) -> bool:
        """Whether a window of `room` tokens around the focus is that of the whole text."""
        if self._has_start and self._has_end:
            return True
        before, after = self._stretch(focus.start), self._stretch(focus.end)
        left = before.first if before else int(np.searchsorted(self.starts_T, focus.start))
        last = after.last if after else int(np.searchsorted(self.starts_T, focus.end))
        right = len(self.tokens.ids_t) - last
        # A side that is long enough for its half leaves the other one no more than its own half.
        halves = left > room // 2 and right > room - room // 2
        return (self._has_start or halves or left > room) and (self._has_end or halves or right > room)

    def last_of(self, piece: Piece, count: int, encode: Encode) -> Cut:
        """The last tokens of a piece, at most `count`."""
        total = len(piece.ids_t)
        for first in range(max(total - count, 0), total):
            start, end = int(piece.begins_t[first]), int(piece.ends_t[-1])
            if piece.opens_t[first]:
                return Cut(piece.ids_t[first:], start, end)
            # The rest of the word, up to the next one, but not beyond the stretch.
            word_end = first + 1 + _first_true(piece.opens_t[first + 1 :])
            last = max(int(np.searchsorted(piece.ends_t[:word_end], start + STRETCH, side="right")), first + 1)
            part = np.asarray(encode(self.text[start : piece.ends_t[last - 1]], True).ids, np.int32)
            if len(part) + total - last <= count:
                return Cut(np.concatenate([part, piece.ids_t[last:]]), start, end)
        end = int(piece.ends_t[-1]) if total else 0
        return Cut(piece.ids_t[:0], end, end)

    def first_of(self, piece: Piece, count: int, encode: Encode) -> Cut:
        """The first tokens of a piece, at most `count`; a piece that is longer has one token more to look at."""
        total = len(piece.ids_t)
        for last in range(min(count, total), 0, -1):
            start, end = int(piece.begins_t[0]), int(piece.ends_t[last - 1])
            if last == total or piece.opens_t[last]:
                return Cut(piece.ids_t[:last], start, end)
            # From the beginning of the word on, but not beyond the stretch.
            first = last - 1 - _first_true(piece.opens_t[last - 1 : 0 : -1])
            first = min(
                int(np.searchsorted(piece.begins_t[:last], max(piece.begins_t[first], end - STRETCH))), last - 1
            )
            part = encode(self.text[piece.begins_t[first] : end], bool(piece.begins_t[first] == 0))
            if first + len(part.ids) <= count:
                return Cut(np.concatenate([piece.ids_t[:first], np.asarray(part.ids, np.int32)]), start, end)
        start = int(piece.begins_t[0]) if total else 0
        return Cut(piece.ids_t[:0], start, start)

    def _middle(
        self, focus: Span, before: _Stretch | None, after: _Stretch | None, whole: slice, encode: Encode
    ) -> Piece:
        """The tokens of the focus, of which the tokens `whole` are in no stretch."""
        start, end = focus.start, focus.end
        if before and before.end >= (after.start if after else end):
            return self._part(start, end, before, encode)
        pieces = [self.tokens[whole]]
        if before:
            pieces.insert(0, self._part(start, before.end, before, encode))
        if after:
            pieces.append(self._part(after.start, end, after, encode))
        return Piece.joined(pieces)

    def _part(self, start: int, end: int, stretch: _Stretch, encode: Encode) -> Piece:
        begins_page = self._has_start and stretch.first == 0 and start == stretch.start
        return Piece.of(encode(self.text[start:end], begins_page), start)

    def _stretch(self, position: int) -> _Stretch | None:
        """What is tokenised again around a boundary, None where it splits no word."""
        word = int(np.searchsorted(self._word_starts, position)) - 1
        if word < 0:
            return None
        first = int(self._word_first[word])
        last = int(self._word_first[word + 1]) if word + 1 < len(self._word_first) else len(self.tokens.ids_t)
        start, end = int(self.tokens.begins_t[first]), int(self.tokens.ends_t[last - 1])
        if end <= position:
            return None
        opens = position - start <= STRETCH
        if position - start > STRETCH:
            # From the border of a token on, if there is one; else in the middle of the token, which stays.
            first = int(np.searchsorted(self.starts_T, position - STRETCH))
            start = int(self.tokens.begins_t[first]) if first < len(self.tokens.ids_t) else position
            start = start if start < position else position - STRETCH
        if end - position > STRETCH:
            last = int(np.searchsorted(self.tokens.ends_t, position + STRETCH, side="right"))
            end = int(self.tokens.ends_t[last - 1]) if last else position
            end = end if end > position else position + STRETCH
        return _Stretch(start, end, first, last, opens)


def _first_true(flags_n: np.ndarray) -> int:
    """The place of the first that is true, or how many there are."""
    return int(flags_n.argmax()) if flags_n.any() else len(flags_n)


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
