"""Every format: lines worked by hand, and all that it holds read back from texts that are hard to hold."""

import csv
import dataclasses
import io
import json
import urllib.parse

import pytest
import rdflib

from mel.linking import formats, nif
from mel.linking.formats import LinkedText, uri_of
from mel.types import NIL, NIL_ID, Link, NamedCandidate, Span
from tests.linking.formats_reader import Prediction, read

FORMS = ("elevant", "nif", "hipe", "tac")


def name(number):
    return f"Q{number}" if number else NIL_ID


def link(text, start, end, number, probability=None):
    candidates = NamedCandidate(name(number or 5), "", "", 0.9), NamedCandidate("Q7", "", "", 0.5)
    return Link.of(Span(start, end), text[start:end], candidates, probability, withheld=not number)


def linked(text_id, text, *links, language="en"):
    return LinkedText(text_id, language, text, tuple(link(text, *each) for each in links))


def written(form, *texts):
    return b"".join(formats.write(texts, form)).decode("utf-8")


def read_back(tmp_path, form, *texts):
    (tmp_path / "links").write_bytes(b"".join(formats.write(texts, form)))
    return read(tmp_path / "links", form)


def expected(form, *texts):
    """What `read` must give back of texts."""
    found = [
        Prediction(str(number if form == "elevant" else text.text_id), Span(each.start, each.end), each.id)
        for number, text in enumerate(texts)
        for each in text.links
    ]
    return sorted(found, key=lambda one: (one.text_id, one.span.start, one.span.end)) if form == "nif" else found


PARIS = linked("d 1", "Paris is in\nTexas.", (0, 5, 830149, 0.75), (12, 17, NIL, 0.25))


def test_elevant_by_hand():
    (line,) = written("elevant", PARIS).splitlines()
    first, second = json.loads(line)["predictions"]
    assert first == {
        "entity_reference": "http://www.wikidata.org/entity/Q830149", "start_char": 0, "end_char": 5,
        "candidates": ["http://www.wikidata.org/entity/Q830149", "http://www.wikidata.org/entity/Q7"],
    }  # fmt: skip
    assert second["entity_reference"] is None and second["start_char"] == 12


def test_a_text_without_spans_has_a_line_in_elevant_and_a_context_in_nif():
    assert written("elevant", linked(1, "a"), PARIS).splitlines()[0] == '{"predictions":[]}'
    assert "nif:isString" in written("nif", linked(1, "a"))


def test_hipe_by_hand():
    assert written("hipe", PARIS).split("\n") == [
        "TOKEN\tNE-COARSE-LIT\tNE-COARSE-METO\tNE-FINE-LIT\tNE-FINE-METO\tNE-FINE-COMP\tNE-NESTED\tNEL-LIT\tNEL-METO\tMISC",
        "# hipe2022:document_id = d%201",
        "# hipe2022:language = en",
        "# hipe2022:applicable_columns = TOKEN NE-COARSE-LIT NEL-LIT MISC",
        "Paris\tB-ent\t_\t_\t_\t_\t_\tQ830149\t_\tOffset-0:5",
        "is\tO\t_\t_\t_\t_\t_\t_\t_\tOffset-6:8",
        "in\tO\t_\t_\t_\t_\t_\t_\t_\tEndOfLine|Offset-9:11",
        "Texas\tB-ent\t_\t_\t_\t_\t_\tNIL\t_\tNoSpaceAfter|Offset-12:17",
        ".\tO\t_\t_\t_\t_\t_\t_\t_\tNoSpaceAfter|Offset-17:18",
        "",
        "",
    ]


def test_hipe_tells_neighbours_with_one_entity_apart_and_continues_long_ones():
    rows = written("hipe", linked(1, "New York New York", (0, 8, 60), (9, 17, 60))).split("\n")[4:8]
    assert [row.split("\t")[1] for row in rows] == ["B-ent", "I-ent", "B-ent", "I-ent"]


def test_tac_by_hand():
    assert written("tac", PARIS, linked(2, "a\tb", (0, 3, NIL))).splitlines() == [
        "mel\tmel-0000001\tParis\td%201:0-4\tQ830149\tNA\tNAM\t0.750000",
        "mel\tmel-0000002\tTexas\td%201:12-16\tNIL00001\tNA\tNAM\t0.750000",
        "mel\tmel-0000003\ta b\t2:0-2\tNIL00002\tNA\tNAM\t1.000000",
    ]


def test_nif_by_hand():
    graph = rdflib.Graph().parse(data=written("nif", PARIS), format="turtle")
    query = """
        PREFIX nif: <http://persistence.uni-leipzig.org/nlp2rdf/ontologies/nif-core#>
        PREFIX itsrdf: <http://www.w3.org/2005/11/its/rdf#>
        SELECT ?phrase ?surface ?start ?end ?text ?entity ?confidence WHERE {
          ?phrase a nif:Phrase, nif:RFC5147String ; nif:anchorOf ?surface ; nif:beginIndex ?start ; nif:endIndex ?end ;
            nif:referenceContext ?context . ?context a nif:Context ; nif:isString ?text .
          OPTIONAL { ?phrase itsrdf:taIdentRef ?entity ; itsrdf:taConfidence ?confidence } } ORDER BY ?start"""
    first, second = ([None if value is None else str(value) for value in row] for row in graph.query(query))
    assert first == [
        "http://example.org/text/d%201#char=0,5", "Paris", "0", "5", "Paris is in\nTexas.",
        "http://www.wikidata.org/entity/Q830149", "0.750000",
    ]  # fmt: skip
    assert second[1:4] == ["Texas", "12", "17"] and second[5:] == [None, None]
    assert "nonNegativeInteger" in graph.value(rdflib.URIRef(first[0]), nif.NIF.beginIndex).datatype


HARD = {
    "astral": linked("🦊", "🦊🦊 Миль 🦊", (0, 1, 1), (3, 7, 2), (8, 9, NIL)),
    "right to left": linked("عربي", "ولد في القاهرة، مصر.", (7, 14, 85), (16, 19, 79), language="ar"),
    "marks": linked("hi", "नमस्ते दिल्ली", (7, 13, 1353), language="hi"),
    "no white space": linked("ja", "東京都の東京駅", (0, 2, 1490), (4, 6, 1490), (6, 7, NIL), language="ja"),
    "quotes": linked('"q"', 'a "b" \\ \'c\' """d""" # e', (3, 4, 1), (15, 16, 2), (20, 21, 3)),
    "lines": linked("a\tb\n%20", "one\r\ntwo\tthree\u2028four \x85 five\n", (0, 3, 1), (5, 14, 2), (15, 19, NIL)),
    "control characters": linked("c", "a\x00b \x1f c\x7f", (0, 3, 1), (6, 8, 2)),
    "inside a word": linked("w", "Donaudampfschiff", (0, 5, 1), (5, 10, 1)),
    "all of the text": linked("t", "C#", (0, 2, 2370)),
    "number as id": linked(7, "C# 3.0", (0, 2, 2370)),
    "like a comment": linked("# x", "# hipe2022 = no", (0, 1, 4), (2, 10, 5)),
    "like Turtle": linked("http://a/?b#c=1,2", "@prefix x: <y> .\n\n<z> a <w> .", (12, 13, 3)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", HARD.values(), ids=HARD.keys())
def test_round_trip(tmp_path, form, text):
    assert read_back(tmp_path, form, text) == expected(form, text)


@pytest.mark.parametrize("form", FORMS)
def test_round_trip_of_all_texts_in_one_file(tmp_path, form):
    texts = [*HARD.values(), linked("empty", ""), linked("no spans", "x y")]
    assert read_back(tmp_path, form, *texts) == expected(form, *texts)


@pytest.mark.parametrize("form", FORMS)
def test_no_texts(tmp_path, form):
    assert read_back(tmp_path, form) == []


@pytest.mark.parametrize("text", HARD.values(), ids=HARD.keys())
def test_nif_keeps_the_text_and_the_surface_forms(text):
    graph = rdflib.Graph().parse(data=written("nif", text), format="turtle")
    (found,) = graph.objects(None, nif.NIF.isString)
    assert str(found) == text.text
    surface_forms = {str(surface_form) for surface_form in graph.objects(None, nif.NIF.anchorOf)}
    assert surface_forms == {each.surface_form for each in text.links}


@pytest.mark.parametrize("text", HARD.values(), ids=HARD.keys())
def test_hipe_loses_nothing_but_white_space(text):
    lines = written("hipe", text).split("\n")[4:]
    rows = [line.split("\t") for line in lines if line]
    offsets = [tuple(map(int, row[-1].rpartition("Offset-")[2].split(":"))) for row in rows]
    assert [text.text[start:end] for start, end in offsets] == [row[0] for row in rows]
    between = zip([0, *(end for _, end in offsets)], [*(start for start, _ in offsets), len(text.text)])
    assert not "".join(text.text[start:end] for start, end in between).strip()


def test_hipe_keeps_the_first_and_longest_of_overlapping_spans(tmp_path):
    text = linked("o", "the University of New York", (4, 14, 1), (4, 26, 2), (18, 26, 60), (0, 3, 3))
    assert read_back(tmp_path, "hipe", text) == [
        Prediction("o", Span(0, 3), "Q3"),
        Prediction("o", Span(4, 26), "Q2"),
    ]


def test_hipe_keeps_the_marks_of_a_word_with_it():
    rows = written("hipe", linked(1, "नमस्ते, C_3!")).split("\n")[4:]
    assert [row.split("\t")[0] for row in rows if row] == ["नमस्ते", ",", "C_3", "!"]


def test_hipe_trims_white_space_at_the_edges_of_a_span(tmp_path):
    text = linked("s", " a b ", (0, 5, 1))
    assert read_back(tmp_path, "hipe", text) == [Prediction("s", Span(1, 4), "Q1")]
    assert read_back(tmp_path, "hipe", linked("s", "a  b", (1, 3, 1))) == []


def test_tac_has_eight_columns_whatever_the_text():
    rows = list(csv.reader(io.StringIO(written("tac", *HARD.values())), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert {len(row) for row in rows} == {8}
    assert all(0 < float(row[7]) <= 1 for row in rows)
    assert len({row[1] for row in rows}) == len(rows)


def test_an_id_is_a_uri_of_wikidata_only_if_it_is_one_of_its_ids():
    assert [uri_of(name) for name in ("Q42", "MESH:D1", "http://x/1?a=b#c", "http://x/a b", "Q0")] == [
        "http://www.wikidata.org/entity/Q42", "http://example.org/entity/MESH%3AD1", "http://x/1?a=b#c",
        "http://example.org/entity/http%3A%2F%2Fx%2Fa%20b", "http://example.org/entity/Q0",
    ]  # fmt: skip


@pytest.mark.parametrize("own", ["MESH:D 001/ä", "https://x.org/D?a=1#b"])
@pytest.mark.parametrize("form", FORMS)
def test_ids_of_ones_own_survive_every_format(tmp_path, form, own):
    text = linked("m", "Fever", (0, 5, 1))
    text = text._replace(links=tuple(dataclasses.replace(each, id=own) for each in text.links))
    assert [urllib.parse.unquote(found.entity_id) for found in read_back(tmp_path, form, text)] == [own]
