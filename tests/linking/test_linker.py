"""Linking a file: the answers of an evaluation, titles, order, and what is skipped or refused."""

import dataclasses
import errno
import json
import shutil

import numpy as np
import pytest

from mel.artifacts import START, Workdir
from mel.bin import export, link
from mel.corpora import mewsli
from mel.corpora.malformed import Malformed
from mel.evaluation.calibration import Calibration
from mel.evaluation.evaluation_set import read_prepared
from mel.linking import linker
from mel.linking.bundle import open_bundle
from mel.retrieval.exact import ExactIndex
from mel.systems.nearest import rank_by_embeddings
from mel.systems.trained import open_trained
from mel.types import NIL_ID, MelError
from tests.linking import formats_reader

LANGUAGES = ("en", "ru", "ar")


@pytest.fixture(scope="module")
def work(untrained, tmp_path_factory) -> Workdir:
    """A working directory with a bundle of the untrained encoder."""
    work = Workdir(shutil.copytree(untrained.path, tmp_path_factory.mktemp("bundled") / "run"))
    export.main(export.Config(workdir=str(work.path), round=START))
    return work


@pytest.fixture(scope="module")
def bundle(work):
    return open_bundle(work.bundle)


def write_lines(path, records):
    path.write_text("".join(record if isinstance(record, str) else json.dumps(record) + "\n" for record in records))
    return path


def run(bundle, tmp_path, records, top_k=3, max_malformed=0, judge=None):
    source, target = write_lines(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    linked, malformed = linker.link_file(bundle, source, target, top_k, max_malformed, judge=judge)
    return [json.loads(line) for line in target.read_text().splitlines()], linked, malformed


def text(text_id="1", language="en", **changes):
    record = {"id": text_id, "language": language, "text": "The red mill stands by the old bridge.", "spans": [[4, 12]]}
    return record | changes


def test_linking_the_test_mentions_gives_the_top_candidates_of_the_evaluation(work, tiny_world, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", mentions_of(tiny_world))
    link.main(link.Config(bundle=str(work.bundle), input=str(source), output=str(tmp_path / "out.jsonl"), top_k=5))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    trained = open_trained(work, START)
    kb = open_bundle(work.bundle).kb
    mentions = read_prepared(work, "mewsli", kb, LANGUAGES)
    index = ExactIndex(trained.entity_embeddings[1])
    ranking = rank_by_embeddings(trained.encoder.embed(mentions.rows), index, kb.entities_E)

    links = [found for line in lines for found in line["links"]]
    assert [found["surface_form"] for found in links] == mentions.surface_forms
    for place in range(5):
        expected = [kb.ids[entity] for entity in ranking.entities_QK[:, place]]
        assert [found["candidates"][place]["qid"] for found in links] == expected
    np.testing.assert_allclose([found["score"] for found in links], ranking.scores_QK[:, 0], atol=1e-5)


def test_a_record(bundle, tmp_path):
    ((line,), linked, _) = run(bundle, tmp_path, [text("doc", "ru", spans=[[4, 12], [31, 37]])])
    assert linked == 2
    assert list(line) == ["id", "language", "links"] and (line["id"], line["language"]) == ("doc", "ru")
    first, second = line["links"]
    assert (first["start"], first["end"], first["surface_form"]) == (4, 12, "red mill")
    assert second["surface_form"] == "bridge"
    assert len(first["candidates"]) == 3 and len({found["qid"] for found in first["candidates"]}) == 3
    assert {name: first[name] for name in ("qid", "title", "score")} == first["candidates"][0]
    scores = [found["score"] for found in first["candidates"]]
    assert scores == sorted(scores, reverse=True) and scores[0] <= 1


def test_titles_are_in_the_language_of_the_text_where_the_kb_has_one(bundle, tmp_path):
    lines, _, _ = run(bundle, tmp_path, [text(language, language) for language in ("en", "ru", "ar", "tlh")], top_k=50)
    kb = bundle.kb
    seen = {True: 0, False: 0}
    for line in lines:
        for found in line["links"][0]["candidates"]:
            rows = np.flatnonzero(kb.entities_E == kb.numbers_of([found["qid"]])[0])
            by_language = {kb.languages[kb.languages_E[row]]: kb.titles[row] for row in rows}
            first = next(by_language[language] for language in kb.languages if language in by_language)
            assert found["title"] == by_language.get(line["language"], first)
            seen[line["language"] in by_language] += 1
    assert all(seen.values())


def test_order_and_blocks_change_nothing(bundle, tmp_path, monkeypatch):
    records = [text(str(i), spans=[[4, 12], [27, 37]][: i % 3]) for i in range(10)]
    whole, _, _ = run(bundle, tmp_path, records)
    monkeypatch.setattr(linker, "MENTIONS_AT_ONCE", 2)
    in_blocks, linked, _ = run(bundle, tmp_path, records)
    assert whole == in_blocks and linked == 9
    assert [line["id"] for line in whole] == [str(i) for i in range(10)]
    assert [len(line["links"]) for line in whole] == [i % 3 for i in range(10)]


def test_the_input_is_not_held_whole(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(linker, "MENTIONS_AT_ONCE", 2)
    source = write_lines(tmp_path / "in.jsonl", [text(), text(), "broken\n"])
    blocks = linker._blocks(linker.read_texts(source, Malformed(0)))
    assert len(next(blocks)) == 2
    with pytest.raises(MelError):
        next(blocks)


def test_characters_are_code_points(bundle, tmp_path):
    ((line,), _, _) = run(bundle, tmp_path, [text(text="🦊🦊 Миль 🦊", spans=[[3, 7]])])
    assert line["links"][0]["surface_form"] == "Миль"


def test_more_candidates_than_entities(bundle, tmp_path):
    ((line,), _, _) = run(bundle, tmp_path, [text()], top_k=10_000)
    assert len(line["links"][0]["candidates"]) == len(np.unique(bundle.kb.entities_E))


def mentions_of(tiny_world):
    """Texts of the test mentions."""
    return [
        {
            "id": document.docid, "language": language, "title": document.title, "text": document.text,
            "spans": [[mention.span.start, mention.span.end] for mention in document.mentions],
        }
        for language in LANGUAGES
        for document in mewsli.read_documents(tiny_world / "mewsli", language, Malformed(0))
    ]  # fmt: skip


def test_without_a_calibration_there_is_no_probability(bundle, tmp_path):
    ((line,), _, _) = run(bundle, tmp_path, [text()])
    assert "probability" not in line["links"][0]


def test_a_judge_sees_its_depth_and_withholds_below_its_threshold(bundle, tmp_path):
    seen = []

    def probability(scores_QK):
        seen.append(scores_QK.shape)
        return np.linspace(0.2, 0.6, len(scores_QK))

    records = [text(spans=[[4, 12], [27, 37], [31, 37]])]
    ((plain,), _, _) = run(bundle, tmp_path, records, top_k=2)
    ((line,), linked, _) = run(bundle, tmp_path, records, top_k=2, judge=linker.Judge(probability, 7, 0.4))
    assert seen == [(3, 7)] and linked == 3
    assert [found["probability"] for found in line["links"]] == [0.2, 0.4, 0.6]
    assert [found["qid"] == "NIL" for found in line["links"]] == [True, False, False]
    assert line["links"][0]["title"] == "" and line["links"][0]["score"] == plain["links"][0]["score"]
    for before, after in zip(plain["links"], line["links"]):
        assert after["candidates"] == before["candidates"] and len(after["candidates"]) == 2


def test_the_probabilities_are_those_that_were_calibrated(calibrated, tiny_world, tmp_path):
    bundle = open_bundle(calibrated.bundle)
    calibration = Calibration.from_json(bundle.calibration)
    records = mentions_of(tiny_world)
    deep, _, _ = run(bundle, tmp_path, records, top_k=calibration.depth)
    scores_QK = np.array([[one["score"] for one in found["candidates"]] for line in deep for found in line["links"]])
    source, target = tmp_path / "in.jsonl", tmp_path / "judged.jsonl"
    link.main(link.Config(bundle=str(calibrated.bundle), input=str(source), output=str(target), top_k=1))
    found = [found["probability"] for line in target.read_text().splitlines() for found in json.loads(line)["links"]]
    np.testing.assert_allclose(found, calibration.probability(scores_QK), atol=1e-3)


def test_links_of_a_stated_precision_or_probability(calibrated, tmp_path, monkeypatch):
    bundle = open_bundle(calibrated.bundle)
    curve = {"threshold": [1.0, 0.0], "precision": [0.9, 0.2], "coverage": [0.1, 1.0]}
    values = dict(bundle.calibration) | {"precision_curve": curve}
    monkeypatch.setattr(link, "open_bundle", lambda *_: dataclasses.replace(bundle, calibration=values))
    source, target = write_lines(tmp_path / "in.jsonl", [text()]), tmp_path / "out.jsonl"

    def answer(**options):
        link.main(link.Config(bundle="", input=str(source), output=str(target), **options))
        return json.loads(target.read_text())["links"][0]

    given = answer()
    assert 0 < given["probability"] < 1 and given["qid"] != "NIL"
    for options, withheld in (
        ({"nil_precision": 0.9}, True),
        ({"nil_precision": 0.21}, True),
        ({"nil_precision": 0.2}, False),
        ({"min_probability": given["probability"] + 1e-4}, True),
        ({"min_probability": given["probability"] - 1e-4}, False),
        ({"min_probability": given["probability"] - 1e-4, "nil_precision": 0.5}, True),
    ):
        assert (answer(**options)["qid"] == "NIL") == withheld, options
    with pytest.raises(MelError, match="the most is 0.9, where 10.0% .* Ask for less --nil_precision, or for"):
        answer(nil_precision=0.95)


@pytest.mark.parametrize("form", ["elevant", "nif", "hipe", "tac"])
def test_every_format_has_the_same_links(calibrated, tmp_path, form):
    records = [text("a", spans=[[4, 12], [31, 37]]), text("b", "ru", text="🦊 Миль", spans=[[2, 6]])]
    source = write_lines(tmp_path / "in.jsonl", records)
    for name in ("jsonl", form):
        out = str(tmp_path / f"out.{name}")
        link.main(link.Config(bundle=str(calibrated.bundle), input=str(source), output=out, format=name))
    expected = [
        (found["start"], found["end"], found["qid"])
        for line in (tmp_path / "out.jsonl").read_text().splitlines()
        for found in json.loads(line)["links"]
    ]
    found = formats_reader.read(tmp_path / f"out.{form}", form)
    assert [(one.span.start, one.span.end, one.entity_id) for one in found] == expected and len(found) == 3
    assert all(one.entity_id != NIL_ID for one in found)


def test_where_a_format_has_no_ids_there_is_a_line_for_each_line_read(calibrated, tmp_path):
    lines = [
        {"id": "a", "language": "en", "text": "Reporters wrote about Saturn again.", "spans": [[22, 28]]},
        {"id": "x", "text": "no language", "spans": [[0, 2]]},
        "\n",
        {"id": "b", "language": "en", "text": "A long article on Saturn explains the album.", "spans": [[18, 24]]},
        "{broken\n",
    ]
    source = write_lines(tmp_path / "in.jsonl", lines)
    for name in ("elevant", "jsonl", "tac"):
        out = str(tmp_path / f"out.{name}")
        link.main(link.Config(bundle=str(calibrated.bundle), input=str(source), output=out, format=name))
    elevant = [json.loads(line)["predictions"] for line in (tmp_path / "out.elevant").read_text().splitlines()]
    spans = [[(one["start_char"], one["end_char"]) for one in predictions] for predictions in elevant]
    assert spans == [[(22, 28)], [], [], [(18, 24)], []]
    ids = [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ids == ["a", "b"] and len((tmp_path / "out.tac").read_text().splitlines()) == 2


def test_a_line_over_the_bound_keeps_its_place_too(tmp_path, monkeypatch):
    monkeypatch.setattr("mel.corpora.lines.MAX_LINE_BYTES", 1 << 16)
    records = [text("a"), text("long", text="x" * (1 << 17)), text("b")]
    source, malformed = write_lines(tmp_path / "in.jsonl", records), Malformed(1)
    assert [one.text_id for one in linker.read_texts(source, malformed, keep_places=True)] == ["a", "", "b"]
    assert [one.text_id for one in linker.read_texts(source, Malformed(1))] == ["a", "b"]


def test_a_byte_order_mark_is_no_part_of_the_first_text_and_utf16_is_named(tmp_path):
    line = json.dumps(text("a")) + "\n"
    (tmp_path / "in.jsonl").write_text(line, encoding="utf-8-sig")
    assert [one.text_id for one in linker.read_texts(tmp_path / "in.jsonl", Malformed(0))] == ["a"]
    (tmp_path / "in.jsonl").write_text(line, encoding="utf-16")
    with pytest.raises(MelError, match="in.jsonl is UTF-16: convert it to UTF-8"):
        list(linker.read_texts(tmp_path / "in.jsonl", Malformed(0)))


def test_an_input_of_which_nothing_or_little_can_be_used_is_refused_and_leaves_nothing(bundle, tmp_path):
    with pytest.raises(MelError, match="2 of 2 records of .*in.jsonl were malformed, all of them, .*in.jsonl:1 "):
        run(bundle, tmp_path, ["broken\n", "[]\n"], max_malformed=100)
    with pytest.raises(MelError, match="4 of 12 records of .*in.jsonl were malformed, more than a share of 0.2"):
        run(bundle, tmp_path, [text()] * 4 + ["broken\n"] * 4, max_malformed=100)  # a text and its span are two
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


SPANS = {
    "outside": ([0, 99], "leaves its text of 38 characters"),
    "empty": ([3, 3], "empty or negative"),
    "negative": ([-2, 3], "empty or negative"),
    "no pair": ([1], "no pair"),
    "no numbers": (["a", 2], "no pair"),
    "truth values": ([False, True], "no pair"),
    "no list": (7, "no pair"),
}


@pytest.mark.parametrize("span, reason", SPANS.values(), ids=SPANS.keys())
def test_a_span_that_cannot_be_used_is_skipped_and_its_place_named(bundle, tmp_path, span, reason):
    lines, linked, malformed = run(bundle, tmp_path, [text(), text("2", spans=[span, [4, 12]])], max_malformed=1)
    assert linked == 2 and [len(line["links"]) for line in lines] == [1, 1]
    (record,) = malformed.records
    assert record.place.endswith("in.jsonl") and record.line == 2 and reason in record.reason


LINES = {
    "not JSON": ("{broken\n", "unexpected character"),
    "no object": ("[1]\n", "no JSON object"),
    "no text": ('{"id": 1, "language": "en", "spans": []}\n', "text is missing"),
    "wrong type": ('{"id": 1, "language": "en", "text": "a", "spans": "0-1"}\n', "spans is of the wrong type"),
    "a long id": ('{"id": "' + "x" * 2000 + '", "language": "en", "text": "a", "spans": []}\n', "is too long"),
    "no title": ('{"id": 1, "language": "en", "text": "a", "spans": [], "title": 7}\n', "title is of the wrong type"),
}


@pytest.mark.parametrize("line, reason", LINES.values(), ids=LINES.keys())
def test_a_malformed_line_is_skipped_and_its_place_named(bundle, tmp_path, line, reason):
    lines, _, malformed = run(bundle, tmp_path, [text("first"), "\n", line, text("last")], max_malformed=1)
    assert [line["id"] for line in lines] == ["first", "last"]
    (record,) = malformed.records
    assert record.line == 3 and reason in record.reason


def test_too_many_malformed_lines_stop_and_leave_nothing(bundle, tmp_path):
    with pytest.raises(MelError, match="More than 1 records are malformed.*in.jsonl:3"):
        run(bundle, tmp_path, [text(), "broken\n", "broken\n"], max_malformed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_full_disk_leaves_the_old_output(bundle, tmp_path, monkeypatch):
    (tmp_path / "out.jsonl").write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(linker.os, "fsync", full)
    with pytest.raises(MelError, match="out.jsonl cannot be written: the disk is full"):
        run(bundle, tmp_path, [text()])
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert not list(tmp_path.glob(".draft*"))


REFUSALS = {
    "top_k": ({"top_k": 0}, "--top_k=0 leaves no room"),
    "input": ({"input": "absent.jsonl"}, "--input=absent.jsonl is not there"),
    "output": ({"output": "absent/out.jsonl"}, "is in a folder that is not there"),
    "bundle": ({"bundle": "absent"}, "There is no bundle at absent"),
    "calibration": ({"nil_precision": 0.9}, "--nil_precision=0.9 needs a calibrated bundle"),
    "probability": ({"min_probability": 0.5}, "--min_probability=0.5 needs a calibrated bundle"),
    "above 1": ({"nil_precision": 95.0}, "--nil_precision=95.0 is no share: choose one from 0 to 1."),
    "below 0": ({"min_probability": -0.1}, "--min_probability=-0.1 is no share: choose one from 0 to 1."),
}


@pytest.mark.parametrize("options, message", REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(work, tmp_path, options, message):
    source = write_lines(tmp_path / "in.jsonl", [text()])
    good = {"bundle": str(work.bundle), "input": str(source), "output": str(tmp_path / "out.jsonl")}
    with pytest.raises(MelError, match=message):
        link.main(link.Config(**good | options))


def test_the_input_is_never_overwritten(work, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", [text()])
    with pytest.raises(MelError, match="is the input itself"):
        link.main(link.Config(bundle=str(work.bundle), input=str(source), output=str(source)))
