"""Links as NIF 2.0 in Turtle; see `mel.linking.formats`, which loads this, and rdflib, where it is asked for."""

from __future__ import annotations

from urllib.parse import quote

from rdflib import Graph, Literal, Namespace, URIRef
from rdflib.namespace import RDF, XSD
from rdflib.term import Node

from mel.linking.formats import LinkedText, uri_of

TEXTS = "http://example.org/text/"  # RDF names a text by a URI, and ids are none
NIF = Namespace("http://persistence.uni-leipzig.org/nlp2rdf/ontologies/nif-core#")
ITSRDF = Namespace("http://www.w3.org/2005/11/its/rdf#")


def turtle(text: LinkedText) -> str:
    """The context of a text and a phrase for each of its spans."""
    graph = Graph(bind_namespaces="none")
    for prefix, namespace in (("nif", NIF), ("itsrdf", ITSRDF), ("xsd", XSD)):
        graph.bind(prefix, namespace)

    def add(start: int, end: int, kind: URIRef, *facts: tuple[URIRef, Node]) -> URIRef:
        node = URIRef(f"{TEXTS}{quote(str(text.text_id), safe='')}#char={start},{end}")
        offsets = (Literal(offset, datatype=XSD.nonNegativeInteger) for offset in (start, end))
        types = ((RDF.type, name) for name in (kind, NIF.RFC5147String))
        for name, value in (*types, *zip((NIF.beginIndex, NIF.endIndex), offsets, strict=True), *facts):
            graph.add((node, name, value))
        return node

    context = add(0, len(text.text), NIF.Context, (NIF.isString, Literal(text.text)))
    for link in text.links:
        facts = [(NIF.referenceContext, context), (NIF.anchorOf, Literal(link.surface_form))]
        if not link.is_nil:
            facts.append((ITSRDF.taIdentRef, URIRef(uri_of(link.id))))
        if not link.is_nil and link.probability is not None:
            facts.append((ITSRDF.taConfidence, Literal(f"{link.probability:.6f}", datatype=XSD.decimal)))
        add(link.start, link.end, NIF.Phrase, *facts)
    return graph.serialize(format="turtle")
