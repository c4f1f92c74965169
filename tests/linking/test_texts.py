"""Linking a file: the answers of the linker, order, and what is skipped or refused."""

import bz2
import errno
import gzip
import json
import lzma
import os

import pytest

from mel.bin import link
from mel.corpora import mewsli
from mel.corpora.malformed import Malformed
from mel.linking import blocks, texts
from mel.linking.linker import Linker, Text
from mel.linking.texts import Answers
from mel.types import NIL_ID, MelError
from tests.linking import formats_reader

LANGUAGES = ("en", "ru", "ar")


@pytest.fixture(scope="module")
def linker(exported) -> Linker:
    return Linker.load(exported.bundle)


@pytest.fixture(scope="module")
def calibrated_linker(calibrated) -> Linker:
    return Linker.load(calibrated.bundle)


def write_lines(path, records):
    path.write_text("".join(record if isinstance(record, str) else json.dumps(record) + "\n" for record in records))
    return path


def run(linker, tmp_path, records, top_k=3, max_malformed=0):
    source, target = write_lines(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    linked, malformed = texts.link_file(linker, source, target, Answers(top_k), max_malformed=max_malformed)
    return [json.loads(line) for line in target.read_text().splitlines()], linked, malformed


def text(text_id="1", language="en", **changes):
    record = {"id": text_id, "language": language, "text": "The red mill stands by the old bridge.", "spans": [[4, 12]]}
    return record | changes


def test_a_file_has_the_answers_of_the_linker(calibrated, calibrated_linker, tiny_world, tmp_path):
    records = mentions_of(tiny_world)
    source, target = write_lines(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    link.main(link.Config(bundle=str(calibrated.bundle), input=str(source), output=str(target), top_k=5))
    given = [Text(*(record[name] for name in ("text", "spans", "language", "title"))) for record in records]
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["id"] for line in lines] == [record["id"] for record in records]
    for line, links in zip(lines, calibrated_linker.link_batch(given), strict=True):
        assert line["links"] == [
            {
                "start": one.start, "end": one.end, "surface_form": one.surface_form, "id": one.id, "title": one.title,
                "score": round(one.score, 6), "probability": round(one.probability, 6),
                "candidates": [
                    {"id": candidate.id, "title": candidate.title, "score": round(candidate.score, 6)}
                    for candidate in one.candidates
                ],
            }
            for one in links
        ]  # fmt: skip


def test_a_record(linker, tmp_path):
    ((line,), linked, _) = run(linker, tmp_path, [text("doc", "ru", spans=[[4, 12], [31, 37]])])
    assert linked == 2
    assert list(line) == ["id", "language", "links"] and (line["id"], line["language"]) == ("doc", "ru")
    first, second = line["links"]
    assert (first["start"], first["end"], first["surface_form"]) == (4, 12, "red mill")
    assert second["surface_form"] == "bridge"
    assert len(first["candidates"]) == 3 and len({found["id"] for found in first["candidates"]}) == 3
    assert {name: first[name] for name in ("id", "title", "score")} == first["candidates"][0]
    scores = [found["score"] for found in first["candidates"]]
    assert scores == sorted(scores, reverse=True) and scores[0] <= 1


def test_order_and_blocks_change_nothing(linker, tmp_path, monkeypatch):
    records = [text(str(i), spans=[[4, 12], [27, 37]][: i % 3]) for i in range(10)]
    whole, _, _ = run(linker, tmp_path, records)
    monkeypatch.setattr(blocks, "MENTIONS_AT_ONCE", 2)
    monkeypatch.setattr(blocks, "MENTIONS_A_PIECE", 1)
    in_blocks, linked, _ = run(linker, tmp_path, records)
    assert whole == in_blocks and linked == 9
    assert [line["id"] for line in whole] == [str(i) for i in range(10)]
    assert [len(line["links"]) for line in whole] == [i % 3 for i in range(10)]


def test_the_input_is_not_held_whole(linker, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "MENTIONS_AT_ONCE", 2)
    source = write_lines(tmp_path / "in.jsonl", [text(), text(), "broken\n"])
    made = blocks.blocks(linker, texts.read_texts(source, Malformed(0)))
    assert len(next(made).mentions) == 2
    with pytest.raises(MelError):
        next(made)


def test_characters_are_code_points(linker, tmp_path):
    ((line,), _, _) = run(linker, tmp_path, [text(text="🦊🦊 Миль 🦊", spans=[[3, 7]])])
    assert line["links"][0]["surface_form"] == "Миль"


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


def test_without_a_calibration_there_is_no_probability(linker, tmp_path):
    ((line,), _, _) = run(linker, tmp_path, [text()])
    assert "probability" not in line["links"][0]


def test_links_of_a_stated_probability(calibrated, tmp_path):
    source, target = write_lines(tmp_path / "in.jsonl", [text()]), tmp_path / "out.jsonl"

    def answer(**options):
        link.main(link.Config(bundle=str(calibrated.bundle), input=str(source), output=str(target), **options))
        return json.loads(target.read_text())["links"][0]

    given = answer()
    assert 0 < given["probability"] < 1 and given["id"] != "NIL"
    withheld = answer(min_probability=given["probability"] + 1e-4)
    assert withheld == given | {"id": "NIL", "title": ""}
    assert answer(min_probability=given["probability"] - 1e-4) == given


@pytest.mark.parametrize("form", ["elevant", "nif", "hipe", "tac"])
def test_every_format_has_the_same_links(calibrated, tmp_path, form):
    records = [text("a", spans=[[4, 12], [31, 37]]), text("b", "ru", text="🦊 Миль", spans=[[2, 6]])]
    source = write_lines(tmp_path / "in.jsonl", records)
    for name in ("jsonl", form):
        out = str(tmp_path / f"out.{name}")
        link.main(link.Config(bundle=str(calibrated.bundle), input=str(source), output=out, format=name))
    expected = [
        (found["start"], found["end"], found["id"])
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
    assert [one.text_id for one in texts.read_texts(source, malformed, keep_places=True)] == ["a", "", "b"]
    assert [one.text_id for one in texts.read_texts(source, Malformed(1))] == ["a", "b"]


def test_a_byte_order_mark_is_no_part_of_the_first_text_and_utf16_is_named(tmp_path):
    line = json.dumps(text("a")) + "\n"
    (tmp_path / "in.jsonl").write_text(line, encoding="utf-8-sig")
    assert [one.text_id for one in texts.read_texts(tmp_path / "in.jsonl", Malformed(0))] == ["a"]
    (tmp_path / "in.jsonl").write_text(line, encoding="utf-16")
    with pytest.raises(MelError, match="in.jsonl is UTF-16: convert it to UTF-8"):
        list(texts.read_texts(tmp_path / "in.jsonl", Malformed(0)))


def test_an_input_of_which_nothing_or_little_can_be_used_is_refused_and_leaves_nothing(linker, tmp_path):
    with pytest.raises(MelError, match="2 of 2 records of .*in.jsonl were malformed, all of them, .*in.jsonl:1 "):
        run(linker, tmp_path, ["broken\n", "[]\n"], max_malformed=100)
    with pytest.raises(MelError, match="4 of 12 records of .*in.jsonl were malformed, more than a share of 0.2"):
        run(linker, tmp_path, [text()] * 4 + ["broken\n"] * 4, max_malformed=100)  # a text and its span are two
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
def test_a_span_that_cannot_be_used_is_skipped_and_its_place_named(linker, tmp_path, span, reason):
    lines, linked, malformed = run(linker, tmp_path, [text(), text("2", spans=[span, [4, 12]])], max_malformed=1)
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
def test_a_malformed_line_is_skipped_and_its_place_named(linker, tmp_path, line, reason):
    lines, _, malformed = run(linker, tmp_path, [text("first"), "\n", line, text("last")], max_malformed=1)
    assert [line["id"] for line in lines] == ["first", "last"]
    (record,) = malformed.records
    assert record.line == 3 and reason in record.reason


def test_too_many_malformed_lines_stop_and_leave_nothing(linker, tmp_path):
    with pytest.raises(MelError, match="More than 1 records are malformed.*in.jsonl:3"):
        run(linker, tmp_path, [text(), "broken\n", "broken\n"], max_malformed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_full_disk_leaves_the_old_output(linker, tmp_path, monkeypatch):
    (tmp_path / "out.jsonl").write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(texts.os, "fsync", full)
    with pytest.raises(MelError, match="out.jsonl cannot be written: the disk is full"):
        run(linker, tmp_path, [text()])
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert not list(tmp_path.glob(".draft*"))


REFUSALS = {
    "top_k": ({"top_k": 0}, "--top_k=0 is not possible: 1 to 100"),
    "deep": ({"top_k": 101}, "--top_k=101 is not possible"),
    "input": ({"input": "absent.jsonl"}, "--input=absent.jsonl is not there: name a file of JSON lines"),
    "input is a folder": ({"input": "."}, "--input=. is a folder: name a file"),
    "input is a device": ({"input": "/dev/null"}, "--input=/dev/null is a device or pipe: name a file"),
    "no bound": ({"max_malformed": -1}, "--max_malformed=-1 must not be below 0"),
    "no share": ({"max_malformed_share": float("nan")}, "--max_malformed_share=nan is not a share: give 0 to 1"),
    "output": ({"output": "absent/out.jsonl"}, "is in a folder that is not there"),
    "output is a folder": ({"output": "."}, "--output=.* is a folder: name a file"),
    "bundle": ({"bundle": "absent"}, "There is no bundle at absent"),
    "calibration": ({"nil_precision": 0.9}, "nil_precision 0.9 needs a calibrated bundle"),
    "probability": ({"min_probability": 0.5}, "min_probability 0.5 needs a calibrated bundle"),
    "above 1": ({"nil_precision": 95.0}, "nil_precision 95.0 is no share: choose one from 0 to 1."),
    "below 0": ({"min_probability": -0.1}, "min_probability -0.1 is no share: choose one from 0 to 1."),
}


@pytest.mark.parametrize("options, message", REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(exported, tmp_path, options, message):
    source = write_lines(tmp_path / "in.jsonl", [text()])
    good = {"bundle": str(exported.bundle), "input": str(source), "output": str(tmp_path / "out.jsonl")}
    with pytest.raises(MelError, match=message):
        link.main(link.Config(**good | options))


def test_the_input_is_never_overwritten(exported, tmp_path):
    source = write_lines(tmp_path / "in.jsonl", [text()])
    with pytest.raises(MelError, match="is the input itself"):
        link.main(link.Config(bundle=str(exported.bundle), input=str(source), output=str(source)))


@pytest.mark.parametrize("name", ["links.jsonl", "ids.npy", "encoder/links.jsonl"])
def test_nothing_is_written_into_what_is_published(exported, tmp_path, name):
    source, target = write_lines(tmp_path / "in.jsonl", [text()]), exported.bundle / name
    before = target.read_bytes() if target.exists() else None
    with pytest.raises(MelError, match=f"{name} is in .*, whose files are as published: name another folder"):
        link.main(link.Config(bundle=str(exported.bundle), input=str(source), output=str(target)))
    assert (target.read_bytes() if target.exists() else None) == before


def test_a_pipe_is_not_replaced_by_a_file(linker, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    source = write_lines(tmp_path / "in.jsonl", [text()])
    for name in ("pipe", "link"):
        with pytest.raises(MelError, match=f"{name} is a device or pipe, which a file would replace: name a file"):
            texts.link_file(linker, source, tmp_path / name)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()


def test_what_a_link_leads_to_is_written_and_not_the_link(linker, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "out.jsonl").write_text("old")
    (tmp_path / "out.jsonl").symlink_to("elsewhere/out.jsonl")
    (line,), _, _ = run(linker, tmp_path, [text()])
    assert (tmp_path / "out.jsonl").is_symlink()
    assert json.loads((tmp_path / "elsewhere" / "out.jsonl").read_text()) == line


@pytest.mark.parametrize("suffix, compress", [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)])
def test_compressed_texts_are_read_and_a_truncated_file_is_a_sentence(linker, tmp_path, suffix, compress):
    source = write_lines(tmp_path / "in.jsonl", [text(), text("2")])
    texts.link_file(linker, source, tmp_path / "plain")
    packed = tmp_path / f"in.jsonl{suffix}"
    packed.write_bytes(compress(source.read_bytes()))
    texts.link_file(linker, packed, tmp_path / "unpacked")
    assert (tmp_path / "unpacked").read_bytes() == (tmp_path / "plain").read_bytes()
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(MelError, match=f"in.jsonl{suffix} (is truncated|cannot be read)"):
        texts.link_file(linker, packed, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    source.rename(packed)
    with pytest.raises(MelError, match=f"in.jsonl{suffix} cannot be read"):
        texts.link_file(linker, packed, tmp_path / "nothing")
