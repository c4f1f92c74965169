"""Files of texts to files of links: what mel-link reads and writes."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Literal

import orjson

from mel.checks import CHECKS
from mel.corpora.lines import read_lines
from mel.corpora.malformed import MAX_SHARE, Malformed
from mel.corpora.names import shown
from mel.corpora.records import open_decompressed
from mel.linking import formats
from mel.linking.blocks import Block, NamedText, Piece, blocks
from mel.linking.detection import surest
from mel.linking.formats import LinkedText
from mel.linking.linker import NO_DETECTOR, Linker, Nearest, Text, check_top_k
from mel.linking.stages import ahead, behind, short_turns
from mel.locks import claim
from mel.progress import Progress
from mel.types import Link, MelError, NamedCandidate, Span

SCORE_DIGITS = 6
MAX_ID_CHARACTERS = 1000
Format = Literal["jsonl", formats.Format]
KINDS = {"id": (str, int), "language": str, "text": str, "spans": list, "title": str}


@dataclasses.dataclass(frozen=True)
class Answers:
    """How spans are answered: see `Linker.link`."""

    top_k: int = 10
    nil_precision: float = 0.0
    min_probability: float = 0.0
    detection_precision: float = 0.0


def link_file(
    linker: Linker,
    source: pathlib.Path,
    target: pathlib.Path,
    answers: Answers = Answers(),
    file_format: Format = "jsonl",
    max_malformed: int = 0,
    max_malformed_share: float = MAX_SHARE,
) -> tuple[int, Malformed]:
    """Links a file of JSON lines into another file, which appears when it is whole.

    Args:
      linker: with a bundle.
      source: lines {"id", "language", "text", "spans": [[start, end], ...]} and, where known, "title"; a text without
        spans, or with null, is one whose mentions the bundle's detector finds.
      target: the links of each text, in the same order.
      answers: how spans are answered.
      file_format: of the target; "jsonl" is our own.
      max_malformed: most lines and spans to skip as unusable.
      max_malformed_share: the same as a share of all lines and spans.

    Returns:
      How many mentions were linked, and what was skipped.

    Raises:
      MelError: `source` cannot be read, too much of it is malformed, or `target` cannot be written.
    """
    check_top_k(answers.top_k)
    threshold = linker.threshold(answers.nil_precision, answers.min_probability)
    malformed, progress = Malformed(max_malformed, max_malformed_share), Progress("linking", 0, "mentions")
    keep_places, detects = file_format in formats.WITHOUT_IDS, linker.bundle.detector is not None
    texts = read_texts(source, malformed, keep_places, detects)
    linked = 0

    def linked_pieces(searched: Iterable[tuple[Block, Nearest]]) -> Iterator[tuple[Piece, list[Link]]]:
        nonlocal linked
        for block, nearest in searched:
            ranking = linker.fused(block.mentions, nearest)
            links = iter(linker.links(block.mentions, ranking, answers.top_k, threshold))
            for piece in block.pieces:
                kept = surest(list(itertools.islice(links, len(piece.mentions))), piece.surely)
                linked += len(kept)
                progress.add(len(kept))
                yield piece, kept

    with _whole_file(target) as file, short_turns():

        def write(searched: Iterable[tuple[Block, Nearest]]) -> None:
            pieces = linked_pieces(searched)
            lines = _json(pieces) if file_format == "jsonl" else formats.write(_whole_texts(pieces), file_format)
            file.writelines(lines)

        # While this thread encodes and searches, one reads and tokenises what comes next, and one joins what was known
        # before and writes.
        with ahead(blocks(linker, texts, answers.detection_precision)) as made, behind(write) as give:
            for block in made:
                give((block, linker.nearest(block.rows, answers.top_k)))
    progress.close()
    return linked, malformed


def read_texts(
    path: pathlib.Path, malformed: Malformed, keep_places: bool = False, detects: bool = False
) -> Iterator[NamedText]:
    """Yields the usable texts of a file of JSON lines, each with its usable spans; see `link_file`.

    Args:
      path: the file.
      malformed: where lines and spans that cannot be used are reported.
      keep_places: yields a text without anything for each line that is blank or cannot be used, so
        that the n-th text is that of the n-th line.
      detects: whether a text may come without spans.

    Raises:
      MelError: it cannot be read, or too many of its lines and spans are malformed.
    """
    place, nothing = str(path), [NamedText("", Text("", ()))] if keep_places else []
    with open_decompressed(path) as file:
        for number, line in read_lines(file, place, lambda line, reason: malformed.add(place, line, reason)):
            if not line.strip():
                yield from nothing
                continue
            try:
                text = _text(orjson.loads(line), lambda reason: malformed.add(place, number, reason), detects)
            except ValueError as error:  # orjson's errors are ValueErrors too
                malformed.add(place, number, str(error))
                yield from nothing
            else:
                malformed.well_formed += 1 + len(text.text.spans or ())
                yield text
    malformed.finish(place)


def _text(record: Any, skip: Callable[[str], None], detects: bool) -> NamedText:
    """Raises ValueError if the record cannot be used; calls `skip` with the reason for each span that cannot."""
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    record = {"title": "", **record}
    is_plain = record.get("spans") is None
    if is_plain and not detects:
        raise ValueError(f"spans is missing, and the bundle has {NO_DETECTOR}")
    for name, kind in KINDS.items():
        if name == "spans" and is_plain:
            continue
        if not isinstance(record.get(name), kind):
            raise ValueError(f"{name} is {'of the wrong type' if name in record else 'missing'}")
    text_id, language, text, title = (record[name] for name in ("id", "language", "text", "title"))
    if len(str(text_id)) > MAX_ID_CHARACTERS or len(language) > MAX_ID_CHARACTERS:
        raise ValueError(f"its id {shown(str(text_id))} or its language {shown(language)} is too long")
    if is_plain:
        return NamedText(text_id, Text(text, None, language, title))
    spans = []
    for span in record["spans"]:
        try:
            start, end = span
            if type(start) is not int or type(end) is not int:
                raise ValueError
            Span(start, end).of(text)
            spans.append(Span(start, end))
        except MelError as error:
            skip(str(error))
        except (TypeError, ValueError):
            skip(f"span {span!r} is no pair of whole numbers")
    return NamedText(text_id, Text(text, spans, language, title))


def _whole_texts(pieces: Iterable[tuple[Piece, list[Link]]]) -> Iterator[LinkedText]:
    """The texts with the links of all their pieces."""
    links: list[Link] = []
    for piece, of_piece in pieces:
        links += of_piece
        if piece.ends:
            yield LinkedText(piece.named.text_id, piece.named.text.language or "", piece.named.text.text, tuple(links))
            links = []


def _json(pieces: Iterable[tuple[Piece, list[Link]]]) -> Iterator[bytes]:
    """A line of JSON for each text; no text's links are ever held together."""
    empty = True
    for piece, links in pieces:
        if piece.begins:
            head = {"id": piece.named.text_id, "language": piece.named.text.language or "", "links": []}
            yield orjson.dumps(head).removesuffix(b"]}")
            empty = True
        if links:
            yield (b"" if empty else b",") + b",".join(orjson.dumps(_record(link)) for link in links)
            empty = False
        if piece.ends:
            yield b"]}\n"


def _record(link: Link) -> dict[str, Any]:
    record = {"start": link.start, "end": link.end, "surface_form": link.surface_form}
    record |= _named(link)
    if link.probability is not None:
        record["probability"] = round(link.probability, SCORE_DIGITS)
    return record | {"candidates": [_named(candidate) for candidate in link.candidates]}


def _named(link: Link | NamedCandidate) -> dict[str, Any]:
    return {"id": link.id, "title": link.title, "score": round(link.score, SCORE_DIGITS)}


@contextlib.contextmanager
def _whole_file(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A draft beside `path` that takes its place when the block ends without error.

    What a link leads to is replaced, and not the link; a device or pipe is refused, of which nothing would be left.
    """
    if path.exists() and not path.is_file():
        raise MelError(f"--output={path} is a device or pipe, which a file would replace: name a file.")
    path = path.resolve()
    draft = path.with_name(f".draft-{path.name}")
    try:
        with claim(path):
            try:
                with open(draft, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                CHECKS.settle()  # nobody sees what was made from a damaged bundle
                os.replace(draft, path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
    except OSError as error:
        full = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise MelError(f"--output={path} cannot be written: {full}; nothing of it was kept.") from error
