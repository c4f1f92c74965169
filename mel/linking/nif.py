"""Texts and links as NIF 2.0 in Turtle; see `mel.linking.formats`, which loads this, and rdflib, where it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from rdflib import Graph, Literal, Namespace, URIRef
from rdflib.namespace import RDF, XSD
from rdflib.term import Node

from mel.corpora.names import shown
from mel.faults import first_line
from mel.linking.formats import LinkedText, uri_of
from mel.linking.linker import Text
from mel.types import Link, MelError, Span

TEXTS = "http://example.org/text/"  # RDF names a text by a URI, and ids are none
NIF = Namespace("http://persistence.uni-leipzig.org/nlp2rdf/ontologies/nif-core#")
ITSRDF = Namespace("http://www.w3.org/2005/11/its/rdf#")


def turtle(text: LinkedText) -> str:
    """The context of a text and a phrase for each of its spans."""
    graph = _graph()
    uri = URIRef(f"{TEXTS}{quote(str(text.text_id), safe='')}#char=0,{len(text.text)}")
    _add_text(graph, uri, text.text, text.links)
    return graph.serialize(format="turtle")


def _graph() -> Graph:
    graph = Graph(bind_namespaces="none")
    for prefix, namespace in (("nif", NIF), ("itsrdf", ITSRDF), ("xsd", XSD)):
        graph.bind(prefix, namespace)
    return graph


def _add_text(graph: Graph, context: URIRef, text: str, links: Sequence[Link], phrases: Sequence[URIRef] = ()) -> None:
    """Adds a context and its phrases; those that have no name yet are named after the context."""

    def add(node: URIRef, start: int, end: int, kind: URIRef, *facts: tuple[URIRef, Node]) -> None:
        offsets = (Literal(offset, datatype=XSD.nonNegativeInteger) for offset in (start, end))
        types = ((RDF.type, name) for name in (kind, NIF.RFC5147String))
        for name, value in (*types, *zip((NIF.beginIndex, NIF.endIndex), offsets, strict=True), *facts):
            graph.add((node, name, value))

    add(context, 0, len(text), NIF.Context, (NIF.isString, Literal(text)))
    base = str(context).partition("#")[0]
    names = phrases or [URIRef(f"{base}#char={link.start},{link.end}") for link in links]
    for name, link in zip(names, links, strict=True):
        facts = [(NIF.referenceContext, context), (NIF.anchorOf, Literal(link.surface_form))]
        if not link.is_nil:
            facts.append((ITSRDF.taIdentRef, URIRef(uri_of(link.id))))
        if not link.is_nil and link.probability is not None:
            facts.append((ITSRDF.taConfidence, Literal(f"{link.probability:.6f}", datatype=XSD.decimal)))
        add(name, link.start, link.end, NIF.Phrase, *facts)


class Context(NamedTuple):
    """A text that somebody asks about.

    Attributes:
      uri: what it is called there.
      text: itself; its spans are the phrases, None where there are none.
      phrases: what these are called, in the order of the spans.
    """

    uri: URIRef
    text: Text
    phrases: tuple[URIRef, ...] = ()


def read(turtle_or_utf8: bytes) -> list[Context]:
    """The contexts of a document, by their URIs.

    Raises:
      MelError: it is no Turtle, or no NIF: it has no context, or one whose text or offsets are missing or wrong.
    """
    graph = Graph(bind_namespaces="none")
    try:
        graph.parse(data=turtle_or_utf8, format="turtle")
    except Exception as error:  # rdflib's parser raises whatever comes
        raise MelError(f"The body is no NIF in Turtle ({first_line(error)}).") from None
    contexts = sorted(set(graph.subjects(NIF.isString, None)), key=str)
    if not contexts:
        raise MelError("The body has no text: a nif:Context with a nif:isString is expected.")
    return [_context(graph, context) for context in contexts]


def annotated(contexts: Sequence[Context], links: Sequence[Sequence[Link]]) -> bytes:
    """The same contexts with the links of each, in Turtle; phrases that were given keep their names."""
    graph = _graph()
    for context, of_context in zip(contexts, links, strict=True):
        _add_text(graph, context.uri, context.text.text, of_context, context.phrases)
    return graph.serialize(format="turtle", encoding="utf-8")


def _context(graph: Graph, uri: Node) -> Context:
    text = graph.value(uri, NIF.isString)
    if not isinstance(text, Literal) or not isinstance(uri, URIRef):
        raise MelError(f"The nif:isString of {shown(str(uri))} is no text of a context with a name.")
    spans, phrases = [], []
    for phrase in graph.subjects(NIF.referenceContext, uri):
        if phrase != uri and isinstance(phrase, URIRef):
            spans.append(_span(graph, phrase, str(text)))
            phrases.append(phrase)
    order = sorted(range(len(spans)), key=lambda place: (spans[place].start, spans[place].end, phrases[place]))
    found = [spans[place] for place in order] or None
    return Context(uri, Text(str(text), found, text.language), tuple(phrases[place] for place in order))


def _span(graph: Graph, phrase: URIRef, text: str) -> Span:
    try:
        start, end = (int(str(graph.value(phrase, name))) for name in (NIF.beginIndex, NIF.endIndex))
    except ValueError:
        raise MelError(f"{shown(str(phrase))} has no nif:beginIndex and nif:endIndex that are whole numbers.") from None
    span = Span(start, end)
    span.of(text)
    return span
