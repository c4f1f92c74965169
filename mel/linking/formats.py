"""Linked texts to the files that other tools of the field read, and back.

elevant  simple JSON lines of ELEVANT (github.com/ad-freiburg/elevant): a line of predictions for each line
         read, in their order and without ids, so one without any where a line could not be used; NIL is null.
nif      NLP Interchange Format 2.0, Turtle: a nif:Context for each text and a nif:Phrase for each span, with
         itsrdf:taIdentRef to Wikidata, none for NIL.
hipe     HIPE 2022 (github.com/hipe-eval/HIPE-2022-data): a line for each token. A token is a run of letters,
         digits, marks and underscores, or any other character but white space, and ends where a span starts
         or ends; its offsets are in MISC as Offset-START:END. The type of an entity is not known: "ent". Of
         overlapping spans the first and longest is kept; white space at the edges of a span is not.
tac      TAC KBP 2015 and later: run, mention, surface form, document:first-last, QID or NIL and a number,
         type (not known: NA), NAM, confidence. Each NIL is a cluster of its own.

Offsets are code points. `read` gives back what all of them hold.
"""

from __future__ import annotations

import itertools
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

import orjson
from rdflib import Graph, Namespace, URIRef
from rdflib import Literal as RdfLiteral
from rdflib.namespace import RDF, XSD

from mel.types import NIL, Link, MelError, Qid, Span, format_qid, parse_qid

Format = Literal["elevant", "nif", "hipe", "tac"]
WITHOUT_IDS = ("elevant",)  # the place of a line says which text it is about

WIKIDATA = "http://www.wikidata.org/entity/"
TEXTS = "http://example.org/text/"  # RDF names a text by a URI, and ids are none
NIF = Namespace("http://persistence.uni-leipzig.org/nlp2rdf/ontologies/nif-core#")
ITSRDF = Namespace("http://www.w3.org/2005/11/its/rdf#")
HIPE_COLUMNS = (
    "TOKEN", "NE-COARSE-LIT", "NE-COARSE-METO", "NE-FINE-LIT", "NE-FINE-METO", "NE-FINE-COMP", "NE-NESTED",
    "NEL-LIT", "NEL-METO", "MISC",
)  # fmt: skip
DOCUMENT = "# hipe2022:document_id = "


class Answer(NamedTuple):
    """A link and what is made of it.

    Attributes:
      link: the mention and its candidates.
      qid: the best candidate's, or NIL where there is none or it is withheld.
      probability: of the best candidate being right; None where the linker is not calibrated.
    """

    link: Link
    qid: Qid
    probability: float | None

    @property
    def span(self) -> Span:
        return self.link.mention.span


class LinkedText(NamedTuple):
    """A text and the answers for its spans, in the order of the input."""

    text_id: str | int
    language: str
    text: str
    answers: tuple[Answer, ...]


class Prediction(NamedTuple):
    """What a file says of one span; `text_id` is the number of the line, from 0, where a format has no ids."""

    text_id: str
    span: Span
    qid: Qid


def write(texts: Iterable[LinkedText], form: Format) -> Iterator[bytes]:
    """Yields a file in pieces."""
    match form:
        case "elevant":
            pieces = map(_elevant, texts)
        case "nif":
            pieces = map(_nif, texts)
        case "hipe":
            pieces = itertools.chain(["\t".join(HIPE_COLUMNS) + "\n"], map(_hipe, texts))
        case "tac":
            pieces = _tac(texts)
    return (piece.encode("utf-8") for piece in pieces)


def read(path: pathlib.Path, form: Format) -> list[Prediction]:
    """Reads what `write` wrote, in its order; NIF has none and is sorted by id and span.

    Raises:
      MelError: the file is not in this format.
    """
    content = path.read_bytes()
    try:
        match form:
            case "elevant":
                return list(_read_elevant(content))
            case "nif":
                return _read_nif(content)
            case "hipe":
                return list(_read_hipe(content.decode("utf-8")))
            case "tac":
                return [_read_tac(line) for line in content.decode("utf-8").split("\n") if line]
    except (ValueError, LookupError, SyntaxError, TypeError, MelError) as error:
        raise MelError(f"{path} cannot be read as {form}: {error}") from error


def _elevant(text: LinkedText) -> str:
    predictions = [
        {
            "entity_reference": _uri(answer.qid) if answer.qid else None,
            "start_char": answer.span.start,
            "end_char": answer.span.end,
            "candidates": [_uri(candidate.qid) for candidate in answer.link.candidates],
        }
        for answer in text.answers
    ]
    return orjson.dumps({"predictions": predictions}, option=orjson.OPT_APPEND_NEWLINE).decode()


def _read_elevant(content: bytes) -> Iterator[Prediction]:
    for number, line in enumerate(content.splitlines()):
        for record in orjson.loads(line)["predictions"]:
            reference = record["entity_reference"]
            qid = parse_qid(reference.removeprefix(WIKIDATA)) if reference else NIL
            yield Prediction(str(number), Span(record["start_char"], record["end_char"]), qid)


def _nif(text: LinkedText) -> str:
    graph = Graph(bind_namespaces="none")
    for prefix, namespace in (("nif", NIF), ("itsrdf", ITSRDF), ("xsd", XSD)):
        graph.bind(prefix, namespace)

    def add(start: int, end: int, kind: URIRef, *facts: tuple[URIRef, URIRef | RdfLiteral]) -> URIRef:
        node = URIRef(f"{TEXTS}{quote(str(text.text_id), safe='')}#char={start},{end}")
        offsets = (RdfLiteral(offset, datatype=XSD.nonNegativeInteger) for offset in (start, end))
        types = ((RDF.type, name) for name in (kind, NIF.RFC5147String))
        for fact in (*types, *zip((NIF.beginIndex, NIF.endIndex), offsets), *facts):
            graph.add((node, *fact))
        return node

    context = add(0, len(text.text), NIF.Context, (NIF.isString, RdfLiteral(text.text)))
    for answer in text.answers:
        facts = [(NIF.referenceContext, context), (NIF.anchorOf, RdfLiteral(answer.link.mention.surface_form))]
        if answer.qid:
            facts.append((ITSRDF.taIdentRef, URIRef(_uri(answer.qid))))
        if answer.qid and answer.probability is not None:
            facts.append((ITSRDF.taConfidence, RdfLiteral(f"{answer.probability:.6f}", datatype=XSD.decimal)))
        add(answer.span.start, answer.span.end, NIF.Phrase, *facts)
    return graph.serialize(format="turtle")


def _read_nif(content: bytes) -> list[Prediction]:
    graph = Graph().parse(data=content, format="turtle")
    found = []
    for phrase in graph.subjects(RDF.type, NIF.Phrase):
        start, end = (int(graph.value(phrase, name)) for name in (NIF.beginIndex, NIF.endIndex))
        entity = graph.value(phrase, ITSRDF.taIdentRef)
        qid = parse_qid(str(entity).removeprefix(WIKIDATA)) if entity else NIL
        text_id, _, _ = str(phrase).removeprefix(TEXTS).partition("#")
        found.append(Prediction(unquote(text_id), Span(start, end), qid))
    return sorted(found, key=lambda prediction: (prediction.text_id, prediction.span.start, prediction.span.end))


def _hipe(text: LinkedText) -> str:
    answers = list(_without_overlaps(text.answers))
    cuts = {place for answer in answers for place in (answer.span.start, answer.span.end)}
    tokens = list(_tokens(text.text, cuts))
    lines = [
        f"{DOCUMENT}{_without_space(str(text.text_id))}",
        f"# hipe2022:language = {_without_space(text.language)}",
        "# hipe2022:applicable_columns = TOKEN NE-COARSE-LIT NEL-LIT MISC",
    ]
    covering = {place: answer for answer in answers for place in range(answer.span.start, answer.span.end)}
    before = None
    for token, behind in itertools.zip_longest(tokens, tokens[1:]):
        tag, entity, answer = "O", "_", covering.get(token.start)
        if answer:
            tag, entity = "I-ent" if answer is before else "B-ent", format_qid(answer.qid)
        before = answer
        space = text.text[token.end : behind.start if behind else len(text.text)]
        flags = ["EndOfLine"] * ("\n" in space) + ["NoSpaceAfter"] * (not space) + [f"Offset-{token.start}:{token.end}"]
        columns = {"TOKEN": token.of(text.text), "NE-COARSE-LIT": tag, "NEL-LIT": entity, "MISC": "|".join(flags)}
        lines.append("\t".join((dict.fromkeys(HIPE_COLUMNS, "_") | columns).values()))
    return "\n".join(lines) + "\n\n"


def _without_overlaps(answers: Iterable[Answer]) -> Iterator[Answer]:
    taken = 0
    for answer in sorted(answers, key=lambda answer: (answer.span.start, -answer.span.end)):
        if answer.span.start >= taken:
            taken = answer.span.end
            yield answer


def _tokens(text: str, cuts: set[int]) -> Iterator[Span]:
    start = None
    for place, character in enumerate(text):
        in_word = character == "_" or character.isalnum() or unicodedata.category(character).startswith("M")
        if start is not None and (not in_word or place in cuts):
            yield Span(start, place)
            start = None
        if in_word:
            start = place if start is None else start
        elif not character.isspace():
            yield Span(place, place + 1)
    if start is not None:
        yield Span(start, len(text))


def _read_hipe(content: str) -> Iterator[Prediction]:
    text_id, answer = "", None
    for line in content.split("\n")[1:]:
        if line.startswith(DOCUMENT):
            text_id = unquote(line.removeprefix(DOCUMENT))
        if line and not line.startswith("# "):  # the token "#" has a tab behind it
            columns = dict(zip(HIPE_COLUMNS, line.split("\t"), strict=True))
            start, end = map(int, re.search(r"Offset-(\d+):(\d+)", columns["MISC"]).groups())
            if answer and not columns["NE-COARSE-LIT"].startswith("I-"):
                yield answer
                answer = None
            if columns["NE-COARSE-LIT"] != "O":
                qid = NIL if columns["NEL-LIT"] == "NIL" else parse_qid(columns["NEL-LIT"])
                answer = Prediction(text_id, Span(answer.span.start if answer else start, end), qid)
        elif answer:
            yield answer
            answer = None


def _tac(texts: Iterable[LinkedText]) -> Iterator[str]:
    answers = ((text, answer) for text in texts for answer in text.answers)
    nils = itertools.count(1)
    for number, (text, answer) in enumerate(answers, 1):
        place = f"{_without_space(str(text.text_id))}:{answer.span.start}-{answer.span.end - 1}"
        surface_form = " ".join(answer.link.mention.surface_form.split())
        entity = format_qid(answer.qid) if answer.qid else f"NIL{next(nils):05d}"
        confidence = max(_confidence(answer), 1e-6)
        columns = "mel", f"mel-{number:07d}", surface_form, place, entity, "NA", "NAM", f"{confidence:.6f}"
        yield "\t".join(columns) + "\n"


def _confidence(answer: Answer) -> float:
    """The probability that the answer is right, or else 1: a score is none."""
    if answer.probability is None:
        return 1.0
    return answer.probability if answer.qid else 1 - answer.probability


def _read_tac(line: str) -> Prediction:
    _, _, _, place, entity, *_ = line.split("\t")
    text_id, _, offsets = place.rpartition(":")
    first, last = map(int, offsets.split("-"))
    return Prediction(unquote(text_id), Span(first, last + 1), NIL if entity.startswith("NIL") else parse_qid(entity))


def _uri(qid: Qid) -> str:
    return f"{WIKIDATA}{format_qid(qid)}"


def _without_space(name: str) -> str:
    """A name with white space, control characters and "%" percent-encoded, for files of columns and lines."""
    return re.sub(r"[\s%\x00-\x1f\x7f]", lambda match: quote(match[0]), name)
