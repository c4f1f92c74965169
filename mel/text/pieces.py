"""Tokens back to text, about: what was before the focus, in it and after it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

CONTINUES = "##"  # WordPiece's mark of a piece that continues a word


def spell(tokens: Sequence[Sequence[str]], decoder: Any) -> tuple[str, str, str]:
    """Three texts that join without a gap, from three lists of tokens.

    Args:
      tokens: those before, in and after a focus.
      decoder: the tokenizer's own; WordPiece's pieces hold no spaces, which `_gap` guesses better than it.
    """
    if decoder is None or type(decoder).__name__ == "WordPiece":
        return _spell_words(tokens)
    before, focus, after = tokens
    left = decoder.decode(list(before))
    until_end = decoder.decode([*before, *focus])
    whole = decoder.decode([*before, *focus, *after])
    inside = until_end[len(left) :]
    space = len(inside) - len(inside.lstrip())
    return left + inside[:space], inside[space:], whole[len(until_end) :]


def _spell_words(tokens: Sequence[Sequence[str]]) -> tuple[str, str, str]:
    texts, previous = ["", "", ""], ""
    for place, piece in enumerate(tokens):
        for token in piece:
            gap = "" if token.startswith(CONTINUES) else _gap(previous[-1:], token[:1])
            texts[0 if place == 1 and not texts[1] else place] += gap  # never in the focus, at its rims
            texts[place] += token.removeprefix(CONTINUES)
            previous = token
    return texts[0], texts[1], texts[2]


def _gap(left: str, right: str) -> str:
    """What stands between two words, by the character before and the one after."""
    joined = "'’-_/"
    touching = left in "([{«¿¡" + joined or right in ")]}»,.;:!?%،؟" + joined  # nothing is in every string
    return "" if touching or (_is_cjk(left) and _is_cjk(right)) else " "


def _is_cjk(character: str) -> bool:
    """Whether a script without spaces writes it: Korean, as wide as its neighbours, has spaces."""
    return unicodedata.east_asian_width(character) in "WF" and not "가" <= character <= "힣"
