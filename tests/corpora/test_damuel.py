import json
import pathlib
from collections import Counter

import pytest

from mel.corpora.archives import Part, find_archive, list_parts
from mel.corpora.damuel import DESCRIPTION_CHARACTERS, read_pages
from mel.corpora.malformed import Malformed
from mel.corpora.redirects import Redirects
from mel.types import Entity, MelError, Span

SHARED_DATA = pathlib.Path(__file__).resolve().parents[2].parent / "shared" / "data"
SAMPLES = SHARED_DATA / "samples" / "damuel"
MDN = SHARED_DATA / "mdn"

needs_samples = pytest.mark.skipif(not SAMPLES.exists(), reason=f"there are no DaMuEL samples at {SAMPLES}")
needs_mdn = pytest.mark.skipif(not MDN.exists(), reason=f"there is no MDN collection at {MDN}")


def record(text="", links=(), **values):
    """A record about Q1 whose tokens are the words of `text`."""
    tokens, start = [], 0
    for word in text.split(" "):
        tokens.append({"start": start, "end": start + len(word)})
        start += len(word) + 1
    wiki = {"title": "Lugar", "text": text, "tokens": tokens, "links": list(links)}
    return {"qid": "Q1", "lang": "es", "wiki": wiki} | values


def link(start, end, **values):
    return {"start": start, "end": end, "origin": "wiki", "qid": "Q7"} | values


def read(tmp_path, *records, malformed=None, redirects=None):
    path = tmp_path / "part-00000"
    lines = [line if isinstance(line, str) else json.dumps(line) for line in records]
    path.write_text("\n".join(lines), encoding="utf-8")
    part = Part(path, path.name, 0, path.stat().st_size)
    return list(read_pages(part, "es", Malformed(0) if malformed is None else malformed, redirects))


def test_a_link_in_tokens_becomes_a_mention_in_characters(tmp_path):
    (page,) = read(tmp_path, record("¡Ñu 🐄🐄 y Río Paraná!", [link(3, 5), link(1, 2, qid="Q8")]))
    assert page.entity == Entity("Q1", "es", "Lugar", "¡Ñu 🐄🐄 y Río Paraná!")
    first, second = page.mentions
    assert (first.mention_id, first.language, first.title, first.gold) == ("es-Q1-0", "es", "Lugar", "Q7")
    assert (first.span, first.surface_form) == (Span(9, 20), "Río Paraná!")
    assert (second.mention_id, second.gold, second.surface_form) == ("es-Q1-1", "Q8", "🐄🐄")
    assert first.context is second.context is page.text
    assert first.frequency_bin == -1


@pytest.mark.parametrize(
    "tokens, lemma",
    [
        ([{"lemma": "el"}, {"lemma": "río"}], "el río"),
        ([{"lemma": "el"}, {"lemma": ""}], ""),
        ([{}, {"lemma": "río"}], ""),
        ([{"lemma": "el"}, {"lemma": 3}], ""),
    ],
)
def test_the_lemma_of_a_mention_is_that_of_all_its_tokens(tmp_path, tokens, lemma):
    rivers = record("los ríos", [link(0, 2)])
    for token, values in zip(rivers["wiki"]["tokens"], tokens):
        token |= values
    (page,) = read(tmp_path, rivers)
    assert page.mentions[0].lemma == lemma


def test_a_token_inside_a_link_that_is_no_object_has_no_lemma(tmp_path):
    rivers = record("los tres ríos", [link(0, 3)])
    rivers["wiki"]["tokens"][1] = None
    (page,) = read(tmp_path, rivers)
    assert (page.mentions[0].surface_form, page.mentions[0].lemma) == ("los tres ríos", "")


def test_names_are_label_aliases_and_redirects_each_once(tmp_path):
    named = record(label=" Paraná ", aliases=["Río Paraná", "", 7, "Paraná"])
    named["wiki"]["redirects"] = ["Parana", "Río Paraná"]
    (page,) = read(tmp_path, named)
    assert page.names == ("Paraná", "Río Paraná", "Parana")


@pytest.mark.parametrize("end_offset, surface_form", [(6, "un humedal"), (8, "un humedales"), (99, "un humedales")])
def test_end_offset_is_the_last_character_of_the_last_token(tmp_path, end_offset, surface_form):
    (page,) = read(tmp_path, record("en un humedales grande", [link(1, 3, end_offset=end_offset)]))
    assert page.mentions[0].surface_form == surface_form


@pytest.mark.parametrize(
    "bad, reason",
    [
        (link(0, 1, origin="title"), "origin is not wiki"),
        ({"start": 0, "end": 1}, "origin is not wiki"),
        (link(0, 1, qid=None), "no qid"),
        (link(0, 1, qid="7"), "qid is not a QID"),
        (link(0, 1, qid=7), "qid is not a QID"),
        pytest.param(link(0, 1, qid="Q" + "9" * 5000), "qid is not a QID", id="5,000 digits"),
        (link(1, 1), "span outside the text"),
        (link(1, 3), "span outside the text"),
        (link(-1, 2), "span outside the text"),
        (link("0", 1), "span outside the text"),
        (link(None, 1), "span outside the text"),
        (link(0, 1, end_offset=-1), "span outside the text"),
        (link(0, 1, end_offset="x"), "span outside the text"),
    ],
)
def test_a_link_that_is_no_mention_is_dropped_and_the_others_keep_their_ids(tmp_path, bad, reason):
    (page,) = read(tmp_path, record("uno dos", [bad, link(1, 2)]))
    assert page.dropped == {reason: 1}
    assert [mention.mention_id for mention in page.mentions] == ["es-Q1-1"]


@pytest.mark.parametrize(
    "token", [{"start": 0, "end": 99}, {"start": 0}, {"start": 0.0, "end": 1.5}, {"start": 5, "end": 2}, None]
)
def test_a_token_outside_its_text_is_a_span_outside_the_text(tmp_path, token):
    bad = record("uno", [link(0, 1)])
    bad["wiki"]["tokens"] = [token]
    (page,) = read(tmp_path, bad)
    assert (page.mentions, page.dropped) == ((), {"span outside the text": 1})


def test_a_blank_surface_form_is_dropped(tmp_path):
    blank = record("   x", [link(0, 1)])
    blank["wiki"]["tokens"] = [{"start": 0, "end": 2}]
    (page,) = read(tmp_path, blank)
    assert (page.mentions, page.dropped) == ((), {"surface form is blank": 1})


@pytest.mark.parametrize(
    "values, title",
    [
        ({"wiki": {"title": " Madrid\n"}, "label": "Villa", "aliases": ["Foro"]}, "Madrid"),
        ({"wiki": {"title": " "}, "label": "Villa", "aliases": ["Foro"]}, "Villa"),
        ({"label": None, "aliases": ["", "Foro"]}, "Foro"),
    ],
)
def test_the_title_is_the_first_name_there_is(tmp_path, values, title):
    (page,) = read(tmp_path, {"qid": "Q1", "lang": "es"} | values)
    assert page.entity.title == title


def paragraphs(text, *ranges):
    wiki = record(text)["wiki"]
    for start, end, heading in ranges:
        paragraph = {"start": start, "end": end} | ({"heading": 2} if heading else {})
        wiki.setdefault("paragraphs", []).append(paragraph)
    return {"wiki": wiki, "description": "de Wikidata"}


@pytest.mark.parametrize(
    "values, description",
    [
        (paragraphs("uno dos tres", (0, 2, False), (2, 3, False)), "uno dos"),
        (paragraphs("Historia dos tres", (0, 1, True), (1, 3, False)), "dos tres"),
        (paragraphs("uno dos", (0, 9, False)), "uno dos"),
        (paragraphs("Historia", (0, 1, True)), "Historia"),
        ({"wiki": {"text": "\n \nuno\ndos\n \t\ntres"}, "description": "de Wikidata"}, "uno\ndos"),
        ({"wiki": {"text": " \n\n "}, "description": " de Wikidata "}, "de Wikidata"),
        ({"wiki": {}}, ""),
        ({"wiki": {"text": "a" * 3000}}, "a" * DESCRIPTION_CHARACTERS),
    ],
)
def test_the_description_is_the_first_paragraph_or_what_stands_for_it(tmp_path, values, description):
    (page,) = read(tmp_path, {"qid": "Q1", "lang": "es", "label": "Lugar"} | values)
    assert page.entity.description == description


@pytest.mark.parametrize(
    "values", [{}, {"description": "capital"}, {"label": " ", "aliases": ["", 7]}, {"wiki": {"title": "\n"}}]
)
def test_a_record_without_a_name_is_no_entity_and_is_counted(tmp_path, values):
    malformed = Malformed(0)
    (page,) = read(tmp_path, {"qid": "Q5", "lang": "es"} | values, malformed=malformed)
    assert (page.entity, page.qid, page.names, page.mentions) == (None, "Q5", (), ())
    assert malformed.dropped == {"record without a name": 1} and malformed.well_formed == 1


def test_the_links_of_a_page_without_a_name_are_mentions(tmp_path):
    nameless = record("uno dos", [link(1, 2)])
    nameless["wiki"] |= {"title": None, "redirects": ["Otro"]}
    (page,) = read(tmp_path, nameless)
    assert (page.entity, page.names) == (None, ())
    assert [(mention.surface_form, mention.title, mention.gold) for mention in page.mentions] == [("dos", "", "Q7")]


def test_redirects_move_entities_and_golds_to_the_end_of_the_chain_and_are_counted(tmp_path):
    links = [link(0, 1, qid="Q1"), link(1, 2, qid="Q2"), link(2, 3, qid="Q4")]
    redirects = Redirects({"Q1": "Q2", "Q2": "Q3"})
    moved, own = read(tmp_path, record("uno dos tres", links), record("tres", qid="Q3"), redirects=redirects)
    assert (moved.qid, moved.entity.entity_id, moved.redirected_entity) == ("Q3", "Q3", True)
    assert [mention.gold for mention in moved.mentions] == ["Q3", "Q3", "Q4"]
    assert {mention.document for mention in moved.mentions} == {"es-Q1"}
    assert [mention.mention_id for mention in moved.mentions] == ["es-Q1-0", "es-Q1-1", "es-Q1-2"]
    assert moved.redirected == 3
    assert (own.qid, own.redirected_entity, own.redirected) == ("Q3", False, 0)


def test_records_of_other_languages_are_dropped_and_counted(tmp_path):
    malformed = Malformed(0)
    pages = read(tmp_path, record("uno"), record("ein", lang="de"), record("un", lang="fr"), malformed=malformed)
    assert [page.entity.language for page in pages] == ["es"]
    assert malformed.dropped == {"record of another language": 2}


@pytest.mark.parametrize(
    "bad, reason",
    [
        pytest.param({"qid": "Q" + "9" * 5000, "lang": "es"}, "'Q999", id="5,000 digits"),
        ('{"qid": "Q1", "lang": ', "it is not JSON"),
        ("[1, 2]", "the record is a list, not an object"),
        ({"lang": "es"}, "'' is not a QID"),
        ({"qid": "Q1"}, "it has no lang"),
        ({"qid": "P1", "lang": "es"}, "'P1' is not a QID"),
        ({"qid": 1, "lang": "es"}, "qid is a int, not a str"),
        ({"qid": "Q1", "lang": "es", "wiki": "x"}, "wiki is a str, not a dict"),
        (record() | {"wiki": {"text": ["x"]}}, "text is a list, not a str"),
        (record() | {"wiki": {"links": {"x": 1}}}, "links is a dict, not a list"),
        (record() | {"wiki": {"links": ["x"]}}, "a link is a str, not an object"),
    ],
)
def test_a_malformed_record_is_reported_with_its_line_and_skipped(tmp_path, bad, reason):
    malformed = Malformed(1)
    pages = read(tmp_path, record("uno"), bad, record("dos", qid="Q2"), malformed=malformed)
    assert [page.qid for page in pages] == ["Q1", "Q2"]
    (found,) = malformed.records
    assert (found.place, found.line) == (str(tmp_path / "part-00000"), 2)
    assert found.reason.startswith(reason)


def test_too_many_malformed_records_are_refused(tmp_path):
    with pytest.raises(MelError, match="part-00000:2 .it is not JSON"):
        read(tmp_path, "{", "{", malformed=Malformed(1))


def test_all_well_formed_records_are_counted(tmp_path):
    malformed = Malformed(1)
    read(tmp_path, record("uno"), "{", record("ein", lang="de"), {"qid": "Q2", "lang": "es"}, malformed=malformed)
    assert (malformed.well_formed, len(malformed)) == (3, 1)


def test_a_line_over_the_bound_is_a_malformed_record(tmp_path, monkeypatch):
    monkeypatch.setattr("mel.corpora.lines.MAX_LINE_BYTES", 1 << 20)
    malformed = Malformed(1)
    pages = read(tmp_path, record("uno"), "0" * (3 << 20), record("dos", qid="Q2"), malformed=malformed)
    assert [page.qid for page in pages] == ["Q1", "Q2"]
    assert [(one.line, one.reason) for one in malformed.records] == [(2, "it is longer than 1 MB")]


@needs_samples
def test_the_real_samples_lose_nothing():
    malformed = Malformed(0)
    pages = [page for part in list_parts(find_archive(SAMPLES, "es")) for page in read_pages(part, "es", malformed)]
    assert len(pages) == malformed.well_formed == 38
    nameless = [page for page in pages if page.entity is None]
    assert malformed.dropped == {"record without a name": len(nameless)} and len(nameless) == 9
    assert not any(page.names or page.text for page in nameless)
    assert all(page.entity.title for page in pages if page.entity)
    mentions = [mention for page in pages for mention in page.mentions]
    assert len(mentions) == len({mention.mention_id for mention in mentions}) == 55
    assert sum((page.dropped for page in pages), Counter()) == {"no qid": 8, "origin is not wiki": 119}
    surface_forms = {mention.mention_id: mention.surface_form for mention in mentions}
    assert surface_forms["es-Q839657-0"] == "Everglades"
    assert surface_forms["es-Q19938922-11"] == "Festival de Música Avanzada y Arte Multimedia Sónar"
    assert surface_forms["es-Q839657-2"] == "humedal"  # [[humedal]]es
    beetle = pages[-1]
    assert [mention.surface_form for mention in beetle.mentions] == (
        ["Pakistán", "Anthicidae", "especie", "familia", "coleóptero"]
    )
    assert beetle.entity.description == "Mecynotarsus bordonii es una especie de coleóptero de la familia Anthicidae."
    assert pages[0].qid == "Q18601266" and pages[0].entity is None  # it has a description only


@needs_mdn
@pytest.mark.parametrize("language", ["pt", "es"])
def test_mdn_has_the_entities_and_mentions_that_its_counts_state(language):
    expected = json.loads((MDN / "counts.json").read_bytes())[language]
    malformed = Malformed(0)
    entities = mentions = 0
    for part in list_parts(find_archive(MDN / "damuel", language)):
        for page in read_pages(part, language, malformed):
            entities += 1
            mentions += len(page.mentions)
            assert not page.dropped
    assert (entities, mentions) == (expected["entities"], expected["train_mentions"])
