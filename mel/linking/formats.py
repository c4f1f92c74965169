"""Linked texts to the files that other tools of the field read, and back.

elevant  simple JSON lines of ELEVANT (github.com/ad-freiburg/elevant): a line of predictions for each line
         read, in their order and without ids, so one without any where a line could not be used; NIL is null.
nif      NLP Interchange Format 2.0, Turtle: a nif:Context for each text and a nif:Phrase for each span, with
         itsrdf:taIdentRef to Wikidata, or to what an id of one's own names; none for NIL.
hipe     HIPE 2022 (github.com/hipe-eval/HIPE-2022-data): a line for each token. A token is a run of letters,
         digits, marks and underscores, or any other character but white space, and ends where a span starts
         or ends; its offsets are in MISC as Offset-START:END. The type of an entity is not known: "ent". Of
         overlapping spans the first and longest is kept; white space at the edges of a span is not.
tac      TAC KBP 2015 and later: run, mention, surface form, document:first-last, QID or NIL and a number,
         type (not known: NA), NAM, confidence. Each NIL is a cluster of its own.

Offsets are code points.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple
from urllib.parse import quote

import orjson

from mel.types import EntityId, Link, Span, is_qid

Format = Literal["elevant", "nif", "hipe", "tac"]
WITHOUT_IDS = ("elevant",)  # the place of a line says which text it is about

WIKIDATA = "http://www.wikidata.org/entity/"
ELSEWHERE = "http://example.org/entity/"
_URL = re.compile(r"https?://[^\s<>\"{}|\\^`]+")  # without what no URI may hold
HIPE_COLUMNS = (
    "TOKEN", "NE-COARSE-LIT", "NE-COARSE-METO", "NE-FINE-LIT", "NE-FINE-METO", "NE-FINE-COMP", "NE-NESTED",
    "NEL-LIT", "NEL-METO", "MISC",
)  # fmt: skip
DOCUMENT = "# hipe2022:document_id = "


class LinkedText(NamedTuple):
    """A text and the links of its spans, in the order of the input."""

    text_id: str | int
    language: str
    text: str
    links: tuple[Link, ...]


def write(texts: Iterable[LinkedText], file_format: Format) -> Iterator[bytes]:
    """Yields a file in pieces."""
    match file_format:
        case "elevant":
            pieces = map(_elevant, texts)
        case "nif":
            from mel.linking import nif  # here, so that rdflib is loaded where it is asked for only

            pieces = map(nif.turtle, texts)
        case "hipe":
            pieces = itertools.chain(["\t".join(HIPE_COLUMNS) + "\n"], map(_hipe, texts))
        case "tac":
            pieces = _tac(texts)
    return (piece.encode("utf-8") for piece in pieces)


def _elevant(text: LinkedText) -> str:
    predictions = [
        {
            "entity_reference": None if link.is_nil else uri_of(link.id),
            "start_char": link.start,
            "end_char": link.end,
            "candidates": [uri_of(candidate.id) for candidate in link.candidates],
        }
        for link in text.links
    ]
    return orjson.dumps({"predictions": predictions}, option=orjson.OPT_APPEND_NEWLINE).decode()


def _hipe(text: LinkedText) -> str:
    links = list(_without_overlaps(text.links))
    cuts = {position for link in links for position in (link.start, link.end)}
    tokens = list(_tokens(text.text, cuts))
    lines = [
        f"{DOCUMENT}{_without_space(str(text.text_id))}",
        f"# hipe2022:language = {_without_space(text.language)}",
        "# hipe2022:applicable_columns = TOKEN NE-COARSE-LIT NEL-LIT MISC",
    ]
    covering = {position: link for link in links for position in range(link.start, link.end)}
    before = None
    for token, following in itertools.zip_longest(tokens, tokens[1:]):
        tag, entity, link = "O", "_", covering.get(token.start)
        if link:
            tag, entity = "I-ent" if link is before else "B-ent", _without_space(link.id)
        before = link
        space = text.text[token.end : following.start if following else len(text.text)]
        flags = ["EndOfLine"] * ("\n" in space) + ["NoSpaceAfter"] * (not space) + [f"Offset-{token.start}:{token.end}"]
        columns = {"TOKEN": token.of(text.text), "NE-COARSE-LIT": tag, "NEL-LIT": entity, "MISC": "|".join(flags)}
        lines.append("\t".join((dict.fromkeys(HIPE_COLUMNS, "_") | columns).values()))
    return "\n".join(lines) + "\n\n"


def _without_overlaps(links: Iterable[Link]) -> Iterator[Link]:
    taken = 0
    for link in sorted(links, key=lambda link: (link.start, -link.end)):
        if link.start >= taken:
            taken = link.end
            yield link


def _tokens(text: str, cuts: set[int]) -> Iterator[Span]:
    start = None
    for position, character in enumerate(text):
        in_word = character == "_" or character.isalnum() or unicodedata.category(character).startswith("M")
        if start is not None and (not in_word or position in cuts):
            yield Span(start, position)
            start = None
        if in_word:
            start = position if start is None else start
        elif not character.isspace():
            yield Span(position, position + 1)
    if start is not None:
        yield Span(start, len(text))


def _tac(texts: Iterable[LinkedText]) -> Iterator[str]:
    links = ((text, link) for text in texts for link in text.links)
    nils = itertools.count(1)
    for number, (text, link) in enumerate(links, 1):
        span = f"{_without_space(str(text.text_id))}:{link.start}-{link.end - 1}"
        surface_form = " ".join(link.surface_form.split())
        entity = f"NIL{next(nils):05d}" if link.is_nil else _without_space(link.id)
        confidence = max(_confidence(link), 1e-6)
        columns = "mel", f"mel-{number:07d}", surface_form, span, entity, "NA", "NAM", f"{confidence:.6f}"
        yield "\t".join(columns) + "\n"


def _confidence(link: Link) -> float:
    """The probability that the answer is right, or else 1: a score is none."""
    if link.probability is None:
        return 1.0
    return 1 - link.probability if link.is_nil else link.probability


def uri_of(entity_id: EntityId) -> str:
    """An entity of Wikidata where Wikidata has it, a URL as it is, and any other id where nobody else has any."""
    if _URL.fullmatch(entity_id):
        return entity_id
    return f"{WIKIDATA if is_qid(entity_id) else ELSEWHERE}{quote(entity_id, safe='')}"


def _without_space(name: str) -> str:
    """A name with white space, control characters and "%" percent-encoded, for files of columns and lines."""
    return re.sub(r"[\s%\x00-\x1f\x7f]", lambda match: quote(match[0]), name)
