"""The folded form of a text: what is compared when surface forms are looked for in it, whatever their case and width.

Folded is NFKC, then Unicode's case folding ("Straße" is "strasse", "ＰＡＲＩＳ" is "paris"), without characters that
only format (soft hyphens, joiners, direction marks), and with each white space character a plain space. Each place in a
folded text leads back to one in the text that it was made from.

A word of a script that separates words is found from its beginning to its end only. Scripts that do not separate them
(Han, kana, Thai, Lao, Khmer, Myanmar, Tibetan) have a boundary at each character. Hangul is separated, but particles
follow a word without a space: what is found begins where a word begins, and may end inside it.
"""

from __future__ import annotations

import bisect
import functools
import re
import unicodedata
from collections.abc import Iterator
from typing import Literal, NamedTuple

from mel.types import Span

Kind = Literal["space", "sign", "word", "hangul", "unspaced"]

_SPACE = re.compile(r"\s")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ASCII = re.compile(r"[\x00-\x7f]*")
# Half-width voicing marks and the vowels and finals of Hangul syllables join what is before them, though they are no
# marks themselves.
_JOINING = re.compile("[\u1160-\u11ff\ud7b0-\ud7fb\uff9e\uff9f]")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u30ff"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff\uffa0-\uffdc]")


class Folded(NamedTuple):
    """A folded text.

    Attributes:
      text: itself.
      places: where each of its characters begins in the original, and last where that ends; None where all are alike.
    """

    text: str
    places: list[int] | None = None

    def span(self, start: int, end: int) -> Span:
        """The characters of the original that became `text[start:end]`."""
        if self.places is None:
            return Span(start, end)
        return Span(self.places[start], self._end(end))

    def starts(self) -> Iterator[int]:
        """Where something that is looked for may begin."""
        before: Kind = "space"
        for place, character in enumerate(self.text):
            kind = _kind(character)
            if kind != "space" and (kind != before or kind in ("sign", "unspaced")):
                yield place
            before = kind

    def ends_at(self, place: int) -> bool:
        """Whether something that is looked for may end before the character at `place`."""
        if place == len(self.text):
            return True
        last = _kind(self.text[place - 1])
        return last != "word" or _kind(self.text[place]) != "word"

    def _end(self, end: int) -> int:
        """Where the last of the characters that became one or several ends."""
        assert self.places is not None
        return self.places[bisect.bisect_right(self.places, self.places[end - 1])]


def fold(text: str) -> str:
    """The folded form of a text."""
    return folded(text).text


def folded(text: str) -> Folded:
    """The folded form of a text, which leads back to it."""
    text = _SPACE.sub(" ", text)
    if _ASCII.fullmatch(text):
        return Folded(text.lower())
    text = _SURROGATE.sub("\ufffd", text)
    if unicodedata.is_normalized("NFKC", text) and not _has_formats(text):
        pieces, starts = list(map(str.casefold, text)), range(len(text))
        if sum(map(len, pieces)) == len(text):  # each character has become one
            return Folded("".join(pieces))
    else:
        segments = list(_segments(text))
        pieces, starts = [_fold_segment(text[start:end]) for start, end in segments], [start for start, _ in segments]
    places = [start for start, piece in zip(starts, pieces, strict=True) for _ in piece]
    return Folded("".join(pieces), [*places, len(text)])


def _segments(text: str) -> Iterator[tuple[int, int]]:
    """The ranges of characters that Unicode may join into one."""
    start = 0
    for place in range(1, len(text)):
        if not _joins(text[place]):
            yield start, place
            start = place
    if text:
        yield start, len(text)


def _fold_segment(segment: str) -> str:
    kept = "".join(character for character in segment if not _is_format(character))
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", kept).casefold())


@functools.lru_cache(1 << 16)
def _joins(character: str) -> bool:
    return unicodedata.category(character).startswith("M") or _JOINING.match(character) is not None


@functools.lru_cache(1 << 16)
def _is_format(character: str) -> bool:
    """Also variation selectors, which are marks."""
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


def _has_formats(text: str) -> bool:
    return any(map(_is_format, set(text)))


@functools.lru_cache(1 << 16)
def _kind(character: str) -> Kind:
    if character.isspace():
        return "space"
    if _UNSPACED.match(character):
        return "unspaced"
    if _HANGUL.match(character):
        return "hangul"
    in_word = character == "_" or character.isalnum() or unicodedata.category(character).startswith("M")
    return "word" if in_word else "sign"
