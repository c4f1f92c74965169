"""Texts to blocks that are linked at once: bounded by their mentions and by what their texts take of memory.

A text with more mentions than a block holds is in several blocks, a piece in each, so that one long page takes no more
than its own text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mel.linking.linker import Linker, Text, check_text
from mel.shards.rows import TokenRows
from mel.types import Mention, Span

MENTIONS_AT_ONCE, MENTIONS_A_PIECE = 4096, 1024
MENTIONS_AT_FIRST = 512  # and then twice as many each time, so that the stages that follow need not wait for long
BYTES_AT_ONCE = 8 << 20  # of the texts of a block, beside the last one


class NamedText(NamedTuple):
    """A text of a file, and what it is called there."""

    text_id: str | int
    text: Text


class Piece(NamedTuple):
    """Mentions of a text that follow one another.

    Attributes:
      named: the text.
      mentions: some of it; those of other pieces overlap none of these where they were detected.
      surely: how probable it is that each is a mention; None where spans were given.
      begins, ends: whether it is the text's first piece, and whether it is the last.
    """

    named: NamedText
    mentions: list[Mention]
    surely: list[float] | None
    begins: bool
    ends: bool


class Block(NamedTuple):
    """Pieces of one or several texts, their mentions, and what the encoder reads of these."""

    pieces: list[Piece]
    mentions: list[Mention]
    rows: TokenRows


def blocks(linker: Linker, texts: Iterable[NamedText], detection_precision: float | None = None) -> Iterator[Block]:
    """The texts, in order.

    Raises:
      MelError: a text is none, or there is nothing to detect spans with.
    """
    waiting: list[Piece] = []
    mentions = taken = 0
    wanted = min(MENTIONS_AT_FIRST, MENTIONS_AT_ONCE)
    for named in texts:
        for piece in pieces(linker, named, detection_precision):
            waiting.append(piece)
            mentions += len(piece.mentions)
            taken += sys.getsizeof(named.text.text) if piece.begins else 0
            if mentions >= wanted or taken >= BYTES_AT_ONCE:
                yield _block(linker, waiting)
                waiting, mentions, taken = [], 0, 0
                wanted = min(2 * wanted, MENTIONS_AT_ONCE)
    if waiting:
        yield _block(linker, waiting)


def pieces(linker: Linker, named: NamedText, detection_precision: float | None = None) -> Iterator[Piece]:
    """A text in one piece or several; see `blocks`."""
    check_text(named.text)
    groups = _groups(linker, named.text, detection_precision)
    group, begins = next(groups, None), True
    while group is not None:
        following = next(groups, None)
        spans, surely = group
        yield Piece(named, linker.mentions(named.text._replace(spans=spans)), surely, begins, following is None)
        group, begins = following, False


def _groups(
    linker: Linker, text: Text, detection_precision: float | None
) -> Iterator[tuple[Sequence[Span | tuple[int, int]], list[float] | None]]:
    """The spans of each piece of a text, one piece at least, and how probable it is that they are mentions."""
    if text.spans is not None:
        for start in range(0, max(len(text.spans), 1), MENTIONS_A_PIECE):
            yield text.spans[start : start + MENTIONS_A_PIECE], None
        return
    threshold = linker.detection_threshold(detection_precision)
    assert linker.bundle.detector is not None
    nothing = True
    for found in linker.bundle.detector.groups(text.text, text.language, threshold):
        yield [span for span, _ in found], [probability for _, probability in found]
        nothing = False
    if nothing:
        yield [], []


def _block(linker: Linker, of_block: list[Piece]) -> Block:
    mentions = [mention for piece in of_block for mention in piece.mentions]
    return Block(of_block, mentions, linker.rows(mentions))
