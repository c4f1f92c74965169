"""Blocks of texts: their bounds, texts in pieces, and that each stage of linking a file may fail."""

import dataclasses
import errno
import itertools
import json
import random
import threading

import pytest

from mel.evaluation.ranking import DEPTH
from mel.linking import blocks, detection, texts
from mel.linking.blocks import NamedText
from mel.linking.bundle import open_bundle
from mel.linking.detection import Detector, detect, surest
from mel.linking.linker import Linker, Text
from mel.linking.texts import Answers
from mel.retrieval.exact import ExactIndex
from mel.types import Link, MelError, NamedCandidate, Span
from tests.linking.test_forms import forms_of, trie_of
from tests.text.test_cutting import pages

TEXT = "The red mill stands by the old bridge."


@pytest.fixture(scope="module")
def linker(exported) -> Linker:
    return Linker.load(exported.bundle)


def named(number, text=TEXT, spans=((4, 12),)):
    return NamedText(number, Text(text, [Span(*span) for span in spans], "en"))


def test_a_block_is_bounded_by_what_its_texts_take(linker, monkeypatch):
    monkeypatch.setattr(blocks, "BYTES_AT_ONCE", 1_000)
    many = [named(number, TEXT + "x" * (900 * (number == 2))) for number in range(30)]
    made = list(blocks.blocks(linker, many))
    sizes = [[piece.named.text_id for piece in block.pieces] for block in made]
    assert list(itertools.chain.from_iterable(sizes)) == list(range(30))
    assert sizes[0] == [0, 1, 2] and max(map(len, sizes)) == 12  # 87 bytes a text


def test_blocks_grow_up_to_a_bound(linker, monkeypatch):
    monkeypatch.setattr(blocks, "MENTIONS_AT_FIRST", 2)
    monkeypatch.setattr(blocks, "MENTIONS_AT_ONCE", 7)
    made = blocks.blocks(linker, [named(number) for number in range(25)])
    assert [len(block.mentions) for block in made] == [2, 4, 7, 7, 5]


def test_a_long_text_is_in_several_blocks(linker, monkeypatch):
    monkeypatch.setattr(blocks, "MENTIONS_AT_ONCE", 4)
    monkeypatch.setattr(blocks, "MENTIONS_A_PIECE", 3)
    spans = [(start, start + 3) for start in range(10)]
    made = list(blocks.blocks(linker, [named("a"), named("b", spans=spans), named("c", spans=())]))
    found = [
        [(piece.named.text_id, len(piece.mentions), piece.begins, piece.ends) for piece in block.pieces]
        for block in made
    ]
    assert found == [
        [("a", 1, True, True), ("b", 3, True, False)],
        [("b", 3, False, False), ("b", 3, False, False)],
        [("b", 1, False, True), ("c", 0, True, True)],
    ]
    assert [len(block.rows) for block in made] == [len(block.mentions) for block in made] == [4, 6, 1]


@pytest.mark.parametrize("form", ["jsonl", "elevant", "hipe", "tac", "nif"])
def test_pieces_change_no_byte_of_the_output(linker, tmp_path, monkeypatch, form):
    records = [
        {
            "id": number,
            "language": "en",
            "text": TEXT,
            "spans": [[start, start + 3] for start in range(4 * number % 17)],
        }
        for number in range(12)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    def linked(name):
        texts.link_file(linker, tmp_path / "in.jsonl", tmp_path / name, Answers(3), form)
        return (tmp_path / name).read_bytes()

    whole = linked("whole")
    monkeypatch.setattr(blocks, "MENTIONS_AT_ONCE", 5)
    monkeypatch.setattr(blocks, "MENTIONS_A_PIECE", 2)
    assert linked("pieces") == whole and len(whole) > 1_000


@pytest.fixture(scope="module")
def detector() -> Detector:
    words = sorted({word for page in pages(1, 20) for word in page.split()})
    generator = random.Random(0)
    forms = generator.sample(words, 40) + [" ".join(generator.sample(words, 2)) for _ in range(40)]
    forms += [first + " " + second for page in pages(2, 10) for first, second in itertools.pairwise(page.split()[::7])]
    forms += [
        page[start : start + length] for page in pages(2, 10) for start in range(0, 200, 9) for length in (3, 9, 30)
    ]
    return Detector(forms_of(trie_of(*forms)), (0.5, 0.5), 0.1, None)


def test_forms_are_found_whatever_stretches_a_text_is_looked_through_in(detector, monkeypatch):
    found = 0
    for page in pages(2, 30):
        whole = detect(detector.forms, page)
        found += len(whole.spans)
        for characters in (1, 40, 200):
            monkeypatch.setattr(detection, "CHARACTERS_A_STRETCH", characters)
            assert detect(detector.forms, page) == whole
        monkeypatch.undo()
    assert found > 1_000


def test_what_is_folded_at_once_is_a_stretch(detector, monkeypatch):
    seen = []
    monkeypatch.setattr(
        detection, "folded", lambda text, folded=detection.folded: seen.append(len(text)) or folded(text)
    )
    page = "The old mill stands by the river. " * 20_000
    assert sum(len(some.spans) for some in detection.detected(detector.forms, page)) >= 0
    assert len(seen) > 9 and max(seen) < detection.CHARACTERS_A_STRETCH + 300


def link_of(span, probability):
    return Link.of(span, "x", (NamedCandidate("Q1", "", "", 1.0),), probability)


def test_of_groups_the_same_spans_stay_as_of_a_whole_text(detector, monkeypatch):
    monkeypatch.setattr(detection, "CANDIDATES_A_GROUP", 3)
    several = 0
    for page in pages(2, 20):
        groups = list(detector.groups(page, "en"))
        several += len(groups) > 2
        candidates = [candidate for group in groups for candidate in group]
        assert candidates == detector.candidates(page, "en")
        for before, after in itertools.pairwise(groups):
            assert max(span.end for span, _ in before) <= min(span.start for span, _ in after)

        def kept(some):
            links = [link_of(span, (span.start % 7 + 1) / 8) for span, _ in some]
            return surest(links, [share for _, share in some])

        assert [link for group in groups for link in kept(group)] == kept(candidates)
    assert several > 10


def test_where_nothing_else_is_asked_no_more_is_searched_than_is_wanted(exported, calibrated, monkeypatch):
    searched = []
    monkeypatch.setattr(
        ExactIndex, "search", lambda *asked, search=ExactIndex.search: searched.append(asked[2]) or search(*asked)
    )
    monkeypatch.setattr("mel.retrieval.index.LEAST_DEPTH", 1)
    alone = Linker(dataclasses.replace(open_bundle(exported.bundle), fusion_weight=0.0, calibration=None))
    mentions = alone.mentions(Text(TEXT, [(4, 12), (27, 37), (0, 3)], "en"))
    few, most = alone.rank(mentions, top_k=3), alone.rank(mentions)
    assert (few.entities_QK == most.entities_QK[:, :3]).all() and (few.scores_QK == most.scores_QK[:, :3]).all()
    assert searched[0] == 6 and max(searched) > 6
    assert len(Linker.load(calibrated.bundle).rank(mentions, top_k=3).entities_QK[0]) == DEPTH


def fail(error, after=1):
    """Does what it stands for `after` times, and then raises."""

    def failing(function):
        counted = itertools.count()

        def call(*arguments, **options):
            if next(counted) >= after:
                raise error
            return function(*arguments, **options)

        return call

    return failing


STAGES = {"tokenising": "rows", "encoding": "nearest", "joining": "fused", "writing": "links"}
ERRORS = {"a sentence": MelError("no way"), "Ctrl-C": KeyboardInterrupt(), "the disk": OSError(errno.ENOSPC, "full")}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES.keys())
def test_an_error_in_any_stage_ends_all_and_leaves_the_old_file(linker, tmp_path, monkeypatch, stage, error):
    monkeypatch.setattr(blocks, "MENTIONS_AT_ONCE", 1)
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        "".join(json.dumps({"id": n, "language": "en", "text": TEXT, "spans": [[4, 12]]}) + "\n" for n in range(9))
    )
    target.write_text("old")
    monkeypatch.setattr(linker, stage, fail(error)(getattr(linker, stage)))
    expected = MelError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected, match="no way|disk is full|^$"):
        texts.link_file(linker, source, target)
    assert target.read_text() == "old" and not list(tmp_path.glob(".draft*"))
    assert not [thread.name for thread in threading.enumerate() if thread.name in ("ahead", "behind")]
