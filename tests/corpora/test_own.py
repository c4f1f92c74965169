"""Own entities and mentions by hand, and whatever a user's file may have wrong."""

import json

import pytest

from mel.corpora.malformed import Malformed
from mel.corpora.own import OwnConfig, read_entities, read_mentions
from mel.corpora.redirects import Redirects
from mel.corpora.sources import Source
from mel.types import NIL_ID, Entity, MelError, Span

AGATE = {"id": "MESH:D001", "language": "en", "title": "Agate", "description": "A banded stone."}
SEEN = {"id": "m1", "language": "en", "text": "An agate and an opal.", "start": 3, "end": 8, "entity": "MESH:D001"}


def write(folder, name, *records):
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(folder / name)


def reasons(malformed):
    return [(record.line, record.reason) for record in malformed.records]


def test_an_entity_by_hand(tmp_path):
    more = {"aliases": ["banded stone", "Agate", " agate ", "", "banded stone"], "links": {"agate": 3, "": 1, "x": 0}}
    (found,) = read_entities([write(tmp_path, "e.jsonl", AGATE | more | {"count": 5})], Malformed(0))
    assert found.entity == Entity("MESH:D001", "en", "Agate", "A banded stone.")
    assert (found.aliases, found.links, found.count) == (("banded stone", "agate"), {"agate": 3}, 5)


def test_a_csv_has_its_aliases_between_bars(tmp_path):
    path = tmp_path / "e.csv"
    path.write_text('id,language,title,aliases\nhttp://x/1,de,"Achat, der",Achat|Bandstein\n', "utf-8")
    (found,) = read_entities([str(path)], Malformed(0))
    assert found.entity == Entity("http://x/1", "de", "Achat, der", "") and found.aliases == ("Achat", "Bandstein")


def test_any_string_is_an_id_and_qids_are_followed_where_they_went(tmp_path):
    names = ("MESH:D001", "http://x/1?a=b", "Q042", "ein Wort", "Q900", 12, " Q7 ", "🦊")
    path = write(tmp_path, "e.jsonl", *(AGATE | {"id": name} for name in names))
    found = read_entities([path], Malformed(0), redirects=Redirects({"Q900": "Q100"}))
    ids = ["MESH:D001", "http://x/1?a=b", "Q42", "ein Wort", "Q100", "12", "Q7", "🦊"]
    assert [each.entity.entity_id for each in found] == ids


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"title": " "}, "it has no title"),
        ({"language": "../x"}, "'../x' is not a language"),
        ({"id": "NIL"}, "NIL is no entity"),
        ({"id": "x" * 1001}, "of 1001 characters is no id: 1 to 1000 are expected."),
        ({"aliases": ["x" * 1001]}, "longer than 1000 characters"),
        ({"count": -1}, "count is -1, below 0"),
        ({"id": "Q1"}, "'Q1' has a record in en already, "),
        ({"id": "Q01"}, "'Q1' has a record in en already, "),
    ],
)
def test_entities_that_cannot_be_used(tmp_path, change, reason):
    malformed, first = Malformed(1), AGATE | {"id": "Q1", "title": "First"}
    path = write(tmp_path, "e.jsonl", first, AGATE | change, AGATE | {"id": "Q1", "language": "de"})
    found = [(each.entity.entity_id, each.entity.language) for each in read_entities([path], malformed)]
    assert found == [("Q1", "en"), ("Q1", "de")]
    ((line, said),) = reasons(malformed)
    assert line == 2 and reason in said and malformed.well_formed == 2


def test_of_one_id_and_language_in_two_files_the_first_counts_and_the_second_is_named_with_it(tmp_path):
    paths = [write(tmp_path, name, AGATE | {"title": name}) for name in ("a.jsonl", "b.jsonl")]
    malformed = Malformed(9)
    with pytest.raises(MelError, match=r"1 of 1 records of .*b.jsonl were malformed, all of them.*a.jsonl:1"):
        list(read_entities(paths, malformed))


def test_records_of_languages_that_are_not_wanted_are_counted_and_named(tmp_path, caplog):
    malformed = Malformed(0)
    path = write(tmp_path, "e.jsonl", AGATE, AGATE | {"language": "fr"}, AGATE | {"language": "de", "id": "x"})
    assert len(list(read_entities([path], malformed, ("en",)))) == 1
    assert malformed.dropped == {"record of another language": 2}
    assert "not among --languages are not read: 1 of de, 1 of fr." in caplog.text


def test_a_mention_by_hand(tmp_path):
    more = {"id": "m2", "start": 16, "end": 20, "entity": "NIL", "title": "Stones", "document": "d"}
    first, second = read_mentions([write(tmp_path, "m.jsonl", SEEN, SEEN | more)], Malformed(0))
    assert (first.surface_form, first.gold, first.title) == ("agate", "MESH:D001", "")
    assert (second.surface_form, second.gold, second.title, second.document) == ("opal", NIL_ID, "Stones", "d")
    assert first.context is second.context


def test_mentions_of_one_text_are_of_one_document_where_none_is_named(tmp_path):
    other = {"id": "m3", "text": "An agate alone."}
    path = write(tmp_path, "m.jsonl", SEEN, SEEN | {"id": "m2", "start": 16, "end": 20}, SEEN | other)
    first, second, third = (mention.document for mention in read_mentions([path], Malformed(0)))
    assert first == second != third and first.startswith("en-")


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"end": 99}, "Span 3:99 leaves its text of 21 characters."),
        ({"start": -1}, "Span -1:8 is empty or negative"),
        ({"start": 8}, "Span 8:8 is empty or negative"),
        ({"start": 2, "end": 3}, "span 2:3 covers nothing but white space"),
        ({"start": None}, "it has no start"),
        ({"start": "three"}, "start is 'three', no whole number"),
        ({"entity": ""}, "it has no entity"),
        ({"language": "English!"}, "'English!' is not a language"),
        ({"id": "m0"}, "'m0' is the id of "),
    ],
)
def test_mentions_that_cannot_be_used(tmp_path, change, reason):
    malformed = Malformed(1)
    path = write(tmp_path, "m.jsonl", SEEN | {"id": "m0"}, SEEN | change, SEEN | {"id": "last"})
    assert [mention.mention_id for mention in read_mentions([path], malformed)] == ["m0", "last"]
    ((line, said),) = reasons(malformed)
    assert line == 2 and reason in said


def test_spans_may_overlap_and_offsets_count_code_points(tmp_path):
    about = {"text": "🦊 Ünder Ünder", "entity": "x"}
    path = write(
        tmp_path, "m.jsonl", SEEN | about | {"start": 2, "end": 7}, SEEN | about | {"id": "b", "start": 2, "end": 13}
    )
    assert [mention.span for mention in read_mentions([path], Malformed(0))] == [Span(2, 7), Span(2, 13)]


def test_files_are_known_by_name_and_content_wherever_they_lie(tmp_path):
    (tmp_path / "deep").mkdir()
    first, second = write(tmp_path, "e.jsonl", AGATE), write(tmp_path / "deep", "e.jsonl", AGATE)
    assert OwnConfig(entities=(first,)).sources_now() == OwnConfig(entities=(second,)).sources_now()
    found = OwnConfig(entities=(first,), mentions=(second,)).sources_now()
    assert set(found) == {"entities/e.jsonl", "mentions/e.jsonl"} and isinstance(found["entities/e.jsonl"], Source)
    with pytest.raises(MelError, match="--entities has two files of the name e.jsonl: rename one, or join them."):
        OwnConfig(entities=(first, second))
    with pytest.raises(MelError, match="nowhere.csv cannot be read"):
        OwnConfig(evaluate_mentions=(str(tmp_path / "nowhere.csv"),)).check()
    assert OwnConfig(mentions=(first,)).settings == {"mentions": ["e.jsonl"]}
