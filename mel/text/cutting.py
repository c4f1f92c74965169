"""Which parts of a page are tokenised: the stretches around its mentions, not all of a page longer than its windows.

A page is cut where nothing that its tokenizer does can reach across, so that its parts have the tokens that the whole
has there: before a space or a line end between two letters or digits; for BERT's words also between two ideographs.
There a normaliser composes, reorders and strips nothing, a word ends and the next one begins, and pieces are looked
for in words one by one. This holds for the components that are named below; a tokenizer with any other, or with a
vocabulary of names that hold white space, has its pages whole.

`mel.text.windows.Page` says whether a part was long enough for a window; where words are very long it is not.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mel.text.canonical import State, parts_of
from mel.types import Span

# A letter or digit that joins neither what is before it nor what is after it: not Malayalam's dot reph, nor half-width
# voicing marks; of the rarer scripts none.
_LETTER = r"[^\W_\u0d4e\u0e33\u0eb3\u1100-\u11ff\ud7b0-\ud7fb\uff9e\uff9f\U00010000-\U0010ffff]"
_IDEOGRAPH = r"[\u3400-\u4dbf\u4e00-\u9fff]"
# Before what this finds nothing of a text joins what follows, whatever is made of it letter by letter.
PLAIN_BORDER = re.compile(f"(?<={_LETTER})[ \n](?={_LETTER})|(?<={_IDEOGRAPH})(?={_IDEOGRAPH})")
_LETTERWISE = {"BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "Precompiled"}
_SPACES_TO_ONE = ({"Regex": r"\s+"}, {"Regex": " {2,}"})
_MODELS = {"WordPiece", "WordLevel", "BPE", "Unigram"}
_WORDS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Metaspace", "ByteLevel"}
_FURTHER = {"Punctuation", "Digits"}

CHARACTERS_A_TOKEN = 8  # of nearly all texts fewer
SPARE = 200  # characters for words at the rims; gaps that are no longer are not worth a cut
LONGEST_PART = 1 << 16  # and then another one begins
LOOK_BACK = 64
# Both bound memory: the offsets of tokens are Python tuples until they become arrays.
PARTS_AT_ONCE, CHARACTERS_AT_ONCE = 64, 1 << 18


@dataclasses.dataclass
class Part:
    """A part of a text, and which of its mentions are cut from it."""

    start: int
    end: int
    places: list[int]


class Cutter:
    """Cuts the pages of a tokenizer.

    Args:
      state: the tokenizer, in canonical form.
      normalize: what its normaliser makes of a text.
    """

    def __init__(self, state: State, normalize: Callable[[str], str]):
        self._border = _border(state, normalize) if _is_local(state) else None

    def parts(self, text: str, focuses: Sequence[Span], tokens: int) -> list[Part]:
        """The parts of a text around some focuses, by their starts.

        Args:
          text: a page.
          focuses: spans of it.
          tokens: how many are wanted on each side of a focus.
        """
        reach = CHARACTERS_A_TOKEN * tokens + SPARE
        if self._border is None or len(text) <= 2 * reach:
            return [Part(0, len(text), list(range(len(focuses))))]
        parts: list[Part] = []
        for place in sorted(range(len(focuses)), key=lambda place: focuses[place].start):
            low, high = focuses[place].start - reach, focuses[place].end + reach
            last = parts[-1] if parts else Part(0, 0, [])
            if parts and high <= last.end:
                last.places.append(place)
                continue
            is_near = low <= last.end + SPARE and last.end - last.start < LONGEST_PART
            start = last.start if is_near else self._before(text, low, last.start)
            if parts and start == last.start:  # it is near, or there is no place to cut
                last.places.append(place)
                last.end = max(last.end, self._after(text, high))
            else:
                parts.append(Part(start, self._after(text, high), [place]))
        return parts

    def around(self, text: str, focus: Span, tokens: int) -> Part:
        """The part around one focus."""
        (part,) = self.parts(text, [focus], tokens)
        return part

    def _before(self, text: str, position: int, least: int) -> int:
        """The last place, at most `position`, where a text can be cut; `least` where there is none after that."""
        assert self._border is not None
        end, width = min(position, len(text)), LOOK_BACK
        while end > least:
            start = max(end - width, least + 1)
            found = [match.start() for match in self._border.finditer(text, start, end + 2)]
            if found := [place for place in found if place <= position]:
                return found[-1]
            end, width = start - 1, 2 * width
        return least

    def _after(self, text: str, position: int) -> int:
        """The first place, at least `position`, where a text can be cut; its end where there is none."""
        assert self._border is not None
        match = self._border.search(text, position) if position < len(text) else None
        return match.start() if match else len(text)


def grouped(parts: Iterable[tuple[str, Part]]) -> Iterator[list[tuple[str, Part]]]:
    """Groups of parts that are small enough, or of one."""
    group: list[tuple[str, Part]] = []
    characters = 0
    for each in parts:
        characters += each[1].end - each[1].start
        if group and (len(group) == PARTS_AT_ONCE or characters > CHARACTERS_AT_ONCE):
            yield group
            group, characters = [], each[1].end - each[1].start
        group.append(each)
    if group:
        yield group


def _is_local(state: Mapping[str, Any]) -> bool:
    """Whether a tokenizer has none but the components of which it is known how far they reach."""
    model, normalizers, words = state["model"], list(parts_of(state["normalizer"])), parts_of(state["pre_tokenizer"])
    names = [token["content"] for token in state["added_tokens"]]
    splitters = list(words)
    return (
        all(map(_reaches_no_further, normalizers))
        and bool(splitters)
        and splitters[0]["type"] in _WORDS
        and splitters[0].get("split") is not False
        and splitters[0].get("use_regex") is not False
        and all(part["type"] in _FURTHER for part in splitters[1:])
        and model["type"] in _MODELS
        and not model.get("dropout")
        and all(token["special"] for token in state["added_tokens"])
        and not any(character.isspace() for name in names for character in name)
    )


def _reaches_no_further(part: Mapping[str, Any]) -> bool:
    match part["type"]:
        case "Strip":
            return not part["strip_left"]
        case "Replace":
            return part["pattern"] in _SPACES_TO_ONE or _is_one_sign(part["pattern"].get("String", ""), part["content"])
        case "Prepend":
            return True  # no part but the first begins with it
        case name:
            return name in _LETTERWISE


def _is_one_sign(pattern: str, content: str) -> bool:
    """Whether one character is replaced by something, and no white space is in it."""
    return len(pattern) == 1 and not any(character.isspace() for character in pattern + content)


def _border(state: Mapping[str, Any], normalize: Callable[[str], str]) -> re.Pattern[str]:
    """Matches where a page can be cut: before what the pattern finds."""
    words, *_ = parts_of(state["pre_tokenizer"])
    ends_words = words["type"] != "Metaspace" or normalize("a\nb") == "a b"
    border = f"(?<={_LETTER})[ {chr(10) if ends_words else ''}](?={_LETTER})"
    berts = [part for part in parts_of(state["normalizer"]) if part["type"] == "BertNormalizer"]
    if any(part.get("handle_chinese_chars") for part in berts):
        border += f"|(?<={_IDEOGRAPH})(?={_IDEOGRAPH})"
    return re.compile(border)
