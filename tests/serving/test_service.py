"""The service in process: its answers, what it refuses and how, and what it counts."""

import asyncio
import threading
import time

import pytest
from rdflib import Graph
from rdflib.namespace import RDF
from starlette.testclient import TestClient

import mel
from mel.linking.nif import ITSRDF, NIF
from mel.serving import service as services
from mel.serving.service import LimitsConfig, application
from mel.types import MelError

TEXT = "Paris liegt an der Seine."
NIF_HEAD = """
@prefix nif: <http://persistence.uni-leipzig.org/nlp2rdf/ontologies/nif-core#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
<http://gerbil/doc1#char=0,25> a nif:Context ; nif:isString "Paris liegt an der Seine."@de .
"""
PHRASE = """
<http://gerbil/doc1#char=0,5> a nif:Phrase ; nif:referenceContext <http://gerbil/doc1#char=0,25> ;
  nif:beginIndex "0"^^xsd:nonNegativeInteger ; nif:endIndex "5"^^xsd:nonNegativeInteger ; nif:anchorOf "Paris" .
"""


def ask(client, **question):
    return client.post("/link", json={"text": TEXT, **question})


def test_links_as_json(client):
    answer = ask(client, spans=[[0, 5]], top_k=2, language="de", title="Paris")
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "links": [
            {
                "start": 0, "end": 5, "surface_form": "Paris", "id": "Q1", "title": "Title 1 <b>",
                "description": "what 1 is", "score": 1.0, "probability": 0.75, "is_nil": False,
                "candidates": [
                    {"id": "Q1", "title": "Title 1 <b>", "description": "what 1 is", "score": 1.0},
                    {"id": "Q2", "title": "Title 2 <b>", "description": "what 2 is", "score": 0.5},
                ],
            }
        ]
    }  # fmt: skip


def test_spans_are_detected_where_they_are_missing_or_null(client):
    for question in ({}, {"spans": None}):
        assert [link["surface_form"] for link in ask(client, **question).json()["links"]] == ["Paris", "Seine."]
    assert ask(client, spans=[]).json() == {"links": []}


def test_offsets_count_code_points(client):
    (link,) = client.post("/link", json={"text": "\U0001f600 NIL", "spans": [[2, 5]]}).json()["links"]
    assert link["surface_form"] == "NIL" and link["is_nil"] and (link["id"], link["title"]) == ("NIL", "")


@pytest.mark.parametrize(
    "question, sentence",
    [
        ({"spans": [[0, 99]]}, "Span 0:99 leaves its text of 25 characters."),
        ({"spans": [[3, 3]]}, "Span 3:3 is empty or negative"),
        ({"spans": [[0, 5], [4, 9]]}, "Spans 0:5 and 4:9 overlap"),
        ({"spans": [[0, 5.5]]}, "is no pair of whole numbers"),
        ({"spans": [["0", 5]]}, "is no pair of whole numbers"),
        ({"spans": [[True, 5]]}, "is no pair of whole numbers"),
        ({"spans": [[0, 1]] * 21}, "more than 20 spans"),
        ({"spans": "0-5"}, "spans is not a list."),
        ({"text": 5}, "text is not a string."),
        ({"text": None}, 'The request has no "text".'),
        ({"text": "a" * 2001}, "2,001 characters, more than 2,000"),
        ({"top_k": 0}, "ask for 1 to 10 candidates"),
        ({"top_k": 11}, "ask for 1 to 10 candidates"),
        ({"top_k": 2.0}, "top_k is not a whole number."),
        ({"nil_precision": 1.5}, "nil_precision=1.5 is no share"),
        ({"min_probability": "high"}, "min_probability is not a number."),
        ({"language": "x" * 1001}, "language has more than 1000 characters."),
        ({"langauge": "de"}, "'langauge' is no field of a request: there are text, language"),
        ({"text": "unlucky"}, "This text is unlucky."),
    ],
)
def test_a_wrong_question_is_refused_in_a_sentence(client, question, sentence):
    answer = ask(client, **question)
    assert answer.status_code == 400 and list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"] and "\n" not in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"text"', b"[" * 5000, b'{"text": NaN}'])
def test_what_is_no_question_is_refused(client, body):
    answer = client.post("/link", content=body)
    assert answer.status_code == 400 and answer.json()["error"].startswith("The body is not")


def test_bodies_are_utf_8_with_or_without_a_mark(client):
    body = '{"text": "Café Paris", "spans": [[5, 10]]}'
    answers = [client.post("/link", content=body.encode(encoding)) for encoding in ("utf-8", "utf-8-sig")]
    assert [answer.json()["links"][0]["surface_form"] for answer in answers] == ["Paris"] * 2
    refused = [client.post("/link", content=body.encode(encoding)) for encoding in ("latin-1", "utf-16", "utf-16-be")]
    assert [answer.status_code for answer in refused] == [400] * 3
    assert refused[0].json()["error"] == "The body is not UTF-8: send it so."
    assert all("The body is UTF-16: convert it to UTF-8" in answer.json()["error"] for answer in refused[1:])


def test_a_large_body_is_refused(client):
    answer = client.post("/link", content=b'{"text": "' + b"a" * 10_000_000 + b'"}')
    assert answer.status_code == 413 and "more than 10,000 bytes" in answer.json()["error"]
    assert ask(client).status_code == 200


def test_a_body_that_does_not_come_is_given_up(service, monkeypatch):
    monkeypatch.setattr(services, "BODY_SECONDS", 0.01)
    sent = []

    async def receive():
        await asyncio.sleep(30)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/link", "headers": [], "query_string": b""}
    asyncio.run(application(service)(scope, receive, send))
    assert sent[0]["status"] == 408 and b"did not come within 0.01 seconds" in sent[1]["body"]


def test_the_service_goes_on_after_a_fault_of_its_own(client):
    answer = ask(client, text="broken")
    assert answer.status_code == 500 and answer.json() == {"error": "The service failed to answer; its log says why."}
    assert ask(client).status_code == 200


@pytest.mark.parametrize("path, method, status", [("/nothing", "GET", 404), ("/link", "GET", 405), ("/", "POST", 405)])
def test_other_paths_and_methods_are_told_in_json(client, path, method, status):
    answer = client.request(method, path)
    assert answer.status_code == status and path in answer.json()["error"]


def test_nif_without_phrases_is_detected_and_named_after_its_context(client):
    answer = client.post("/nif", content=NIF_HEAD, headers={"Content-Type": "application/x-turtle"})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/turtle")
    graph = Graph().parse(data=answer.content, format="turtle")
    (context,) = graph.subjects(RDF.type, NIF.Context)
    assert str(context) == "http://gerbil/doc1#char=0,25" and str(graph.value(context, NIF.isString)) == TEXT
    phrases = {str(graph.value(phrase, NIF.anchorOf)): phrase for phrase in graph.subjects(RDF.type, NIF.Phrase)}
    assert {name: str(phrase) for name, phrase in phrases.items()} == {
        "Paris": "http://gerbil/doc1#char=0,5", "Seine.": "http://gerbil/doc1#char=19,25",
    }  # fmt: skip
    assert str(graph.value(phrases["Paris"], ITSRDF.taIdentRef)) == "http://www.wikidata.org/entity/Q1"
    assert all(graph.value(phrase, NIF.referenceContext) == context for phrase in phrases.values())


def test_nif_of_many_texts_takes_one_place_in_the_line(client):
    many = NIF_HEAD + "".join(
        f'<http://gerbil/doc{n}#char=0,5> a nif:Context ; nif:isString "Paris" .\n' for n in range(2, 12)
    )
    answer = client.post("/nif", content=many)
    graph = Graph().parse(data=answer.content, format="turtle")
    assert answer.status_code == 200 and len(list(graph.subjects(RDF.type, NIF.Context))) == 11


def test_nif_with_phrases_links_just_these(client):
    named = PHRASE.replace("<http://gerbil/doc1#char=0,5> a", "<http://gerbil/gold/7> a")
    graph = Graph().parse(data=client.post("/nif", content=NIF_HEAD + named).content, format="turtle")
    (phrase,) = graph.subjects(RDF.type, NIF.Phrase)
    assert str(phrase) == "http://gerbil/gold/7" and str(graph.value(phrase, NIF.anchorOf)) == "Paris"


@pytest.mark.parametrize(
    "body, sentence",
    [
        ("no turtle", "The body is no NIF in Turtle"),
        ("", "The body has no text"),
        ("@prefix a: <b> . a:c a a:d .", "The body has no text"),
        (NIF_HEAD + PHRASE.replace('nif:endIndex "5"', 'nif:endIndex "99"'), "Span 0:99 leaves its text"),
        (NIF_HEAD + PHRASE.replace('nif:endIndex "5"', 'nif:endIndex "x"'), "that are whole numbers"),
    ],
)
def test_wrong_nif_is_refused_in_a_sentence(client, body, sentence):
    answer = client.post("/nif", content=body)
    assert answer.status_code == 400 and sentence in answer.json()["error"]


def test_health_and_metrics(client):
    about = client.get("/health").json()
    assert about == {
        "status": "ok", "version": mel.__version__, "languages": ["en", "de", "ar"], "detects": True,
        "calibrated": True,
    }  # fmt: skip
    ask(client, spans=[[0, 5], [19, 24]])
    ask(client, top_k=0)
    lines = client.get("/metrics").text.splitlines()
    assert 'mel_requests_total{path="/link",status="200"} 1.0' in lines
    assert 'mel_requests_total{path="/link",status="400"} 1.0' in lines
    assert "mel_mentions_total 2.0" in lines and "mel_waiting_requests 0.0" in lines
    assert 'mel_batch_mentions_bucket{le="4.0"} 1.0' in lines
    assert 'mel_request_seconds_count{path="/health"} 1.0' in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)


def test_requests_at_the_same_time_are_linked_together_and_too_many_sent_away(service, linker):
    statuses, answers = [], []

    def one(client):
        answer = ask(client, spans=[[0, 5]])
        statuses.append(answer.status_code)
        answers.append(answer)

    with TestClient(application(service)) as client:
        linker.gate.clear()
        first = threading.Thread(target=one, args=(client,))
        first.start()
        wait_until(lambda: linker.batches == [1])
        others = [threading.Thread(target=one, args=(client,)) for _ in range(3)]
        for thread in others:
            thread.start()
        wait_until(lambda: service.batches.waiting == 3)
        refused = ask(client)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert refused.json() == {"error": "3 requests are waiting already."}
        assert client.get("/health").status_code == 200
        linker.gate.set()
        for thread in (first, *others):
            thread.join(30)
    assert statuses == [200] * 4 and linker.batches == [1, 3]
    assert not service.batches.is_open
    closed = ask(TestClient(application(service)))
    assert closed.status_code == 503 and "retry-after" in closed.headers


def test_the_page_loads_nothing_from_elsewhere(client):
    answer = client.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "src=" not in answer.text and "@import" not in answer.text and "<link" not in answer.text


@pytest.mark.parametrize("flags", [{"max_body": 0}, {"max_waiting": -1}, {"max_top_k": 101}])
def test_limits_that_are_none_are_refused(flags):
    with pytest.raises(MelError, match=f"--{next(iter(flags))}="):
        LimitsConfig(**flags)


def wait_until(happened):
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)
