"""Reads the files that `mel.linking.formats` writes, as the tools that they are for do."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote

import orjson
from rdflib import Graph
from rdflib.namespace import RDF

from mel.linking.formats import DOCUMENT, ELSEWHERE, HIPE_COLUMNS, WIKIDATA, Format
from mel.linking.nif import ITSRDF, NIF, TEXTS
from mel.types import NIL_ID, EntityId, Span


class Prediction(NamedTuple):
    """What a file says of one span; `text_id` is the number of the line, from 0, where a format has no ids."""

    text_id: str
    span: Span
    entity_id: EntityId


def read(path: pathlib.Path, file_format: Format) -> list[Prediction]:
    """Reads a file in its order; NIF has none and is sorted by id and span."""
    content = path.read_bytes()
    match file_format:
        case "elevant":
            return list(_read_elevant(content))
        case "nif":
            return _read_nif(content)
        case "hipe":
            return list(_read_hipe(content.decode("utf-8")))
        case "tac":
            return [_read_tac(line) for line in content.decode("utf-8").split("\n") if line]


def _id_of(uri: str) -> EntityId:
    for place in (WIKIDATA, ELSEWHERE):
        if uri.startswith(place):
            return unquote(uri.removeprefix(place))
    return uri


def _read_elevant(content: bytes) -> Iterator[Prediction]:
    for number, line in enumerate(content.splitlines()):
        for record in orjson.loads(line)["predictions"]:
            reference = record["entity_reference"]
            name = _id_of(reference) if reference else NIL_ID
            yield Prediction(str(number), Span(record["start_char"], record["end_char"]), name)


def _read_nif(content: bytes) -> list[Prediction]:
    graph = Graph().parse(data=content, format="turtle")
    found = []
    for phrase in graph.subjects(RDF.type, NIF.Phrase):
        start, end = (int(graph.value(phrase, name)) for name in (NIF.beginIndex, NIF.endIndex))
        entity = graph.value(phrase, ITSRDF.taIdentRef)
        name = _id_of(str(entity)) if entity else NIL_ID
        text_id, _, _ = str(phrase).removeprefix(TEXTS).partition("#")
        found.append(Prediction(unquote(text_id), Span(start, end), name))
    return sorted(found, key=lambda prediction: (prediction.text_id, prediction.span.start, prediction.span.end))


def _read_hipe(content: str) -> Iterator[Prediction]:
    text_id, answer = "", None
    for line in content.split("\n")[1:]:
        if line.startswith(DOCUMENT):
            text_id = unquote(line.removeprefix(DOCUMENT))
        if line and not line.startswith("# "):  # the token "#" has a tab after it
            columns = dict(zip(HIPE_COLUMNS, line.split("\t"), strict=True))
            start, end = map(int, re.search(r"Offset-(\d+):(\d+)", columns["MISC"]).groups())
            if answer and not columns["NE-COARSE-LIT"].startswith("I-"):
                yield answer
                answer = None
            if columns["NE-COARSE-LIT"] != "O":
                answer = Prediction(text_id, Span(answer.span.start if answer else start, end), columns["NEL-LIT"])
        elif answer:
            yield answer
            answer = None


def _read_tac(line: str) -> Prediction:
    _, _, _, place, entity, *_ = line.split("\t")
    text_id, _, offsets = place.rpartition(":")
    first, last = map(int, offsets.split("-"))
    return Prediction(unquote(text_id), Span(first, last + 1), NIL_ID if entity.startswith("NIL") else entity)
