"""Rows are cut from one tokenisation of a page, and equal what its three pieces give alone."""

import random

import numpy as np
import pytest
from tokenizers.implementations import BertWordPieceTokenizer

from mel.text.foreign import read_tokenizer
from mel.text.marking import mark_entity, mark_mention
from mel.text.tokenizer import Prefixes, Tokenizer
from mel.types import Entity, MarkedText, MelError, Mention, Span
from tests.text import vocabularies

WORDS = ("[PAD] [UNK] [CLS] [SEP] [MASK] the red fox ##es jump ##s fo ##x x es 東 京 😀 é , [ ] M ##ed s ##e").split()
PAD, UNK, CLS, SEP, MASK, THE, RED, FOX, ES, JUMP, S = range(11)
MARKER = len(WORDS)


@pytest.fixture
def vocabulary(tmp_path):
    folder = tmp_path / "vocabulary"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def tokenizer(vocabulary):
    return read_tokenizer(vocabulary)


def row(tokenizer, text, start, end, max_tokens=16, header=""):
    return tokenizer.rows([MarkedText(text, Span(start, end), header)], max_tokens)[0].tolist()


def test_a_row_by_hand(tokenizer):
    assert row(tokenizer, "the red foxes jumps", 8, 13) == [CLS, THE, RED, MARKER, FOX, ES, MARKER, JUMP, S, SEP]


def test_the_marker_is_the_last_id(tokenizer):
    assert (tokenizer.marker_id, tokenizer.vocab_size) == (MARKER, MARKER + 1)


def test_a_header_stands_first_and_is_kept_in_every_window(tokenizer):
    found = row(tokenizer, "the red foxes jumps", 8, 13, max_tokens=10, header="jumps")
    assert found == [CLS, JUMP, S, SEP, MARKER, FOX, ES, MARKER, JUMP, SEP]


def test_a_window_is_centred(tokenizer):
    text = "the " * 5 + "red " + "fox " * 5
    assert row(tokenizer, text, 20, 23, max_tokens=8) == [CLS, THE, MARKER, RED, MARKER, FOX, FOX, SEP]
    assert row(tokenizer, text, 20, 23, max_tokens=9) == [CLS, THE, THE, MARKER, RED, MARKER, FOX, FOX, SEP]


def test_room_that_one_side_does_not_need_goes_to_the_other(tokenizer):
    assert row(tokenizer, "red" + " fox" * 9, 0, 3, max_tokens=8) == [CLS, MARKER, RED, MARKER, FOX, FOX, FOX, SEP]
    assert row(tokenizer, "fox " * 9 + "red", 36, 39, max_tokens=8) == [CLS, FOX, FOX, FOX, MARKER, RED, MARKER, SEP]


def test_a_focus_that_is_too_long_is_cut(tokenizer):
    assert row(tokenizer, "fox " * 9, 0, 35, max_tokens=8) == [CLS, MARKER, FOX, FOX, FOX, FOX, MARKER, SEP]


def test_a_word_that_the_focus_splits_is_tokenised_in_two(tokenizer):
    # "jumps" is [jump, ##s] whole; its pieces alone are [jump] and [s].
    assert row(tokenizer, "the jumps", 4, 8) == [CLS, THE, MARKER, JUMP, MARKER, WORDS.index("s"), SEP]


def test_brackets_in_a_text_are_text(tokenizer):
    found = row(tokenizer, "[SEP] fox [M]", 6, 9)
    assert found.count(SEP) == 1 and found.count(MARKER) == 2


def test_offsets_count_characters_not_bytes(tokenizer):
    found = row(tokenizer, "😀 東京 fox", 2, 4)
    assert found == [CLS, WORDS.index("😀"), MARKER, WORDS.index("東"), WORDS.index("京"), MARKER, FOX, SEP]


@pytest.mark.parametrize(
    "left, focus, right",
    [
        ("the red ", "foxes", " jumps, the fox"),
        ("", "the", ""),
        ("the 東", "京", "東 é"),
        ("the [", "M", "] jumps"),
    ],
)
def test_a_row_is_decoded_with_the_spaces_that_a_reader_expects(tokenizer, left, focus, right):
    text = left + focus + right
    for header in ("", "red jumps"):
        found = row(tokenizer, text, len(left), len(left + focus), max_tokens=32, header=header)
        assert tokenizer.decode(np.array(found)) == (left, focus, right)


def test_windows_of_one_page_equal_their_three_pieces_tokenised_alone(tokenizer, vocabulary):
    alone = BertWordPieceTokenizer(str(vocabulary / "vocab.txt"), lowercase=False)
    generator = random.Random(0)
    pieces = ["the", " ", "red", "foxes", "東京", "😀", ",", "é", "jumps", "\u200b", "\n", "zzz"]
    text = "".join(generator.choices(pieces, k=400))
    spans = [Span(start, start + generator.randint(1, 12)) for start in generator.sample(range(len(text) - 12), 200)]

    def ids(string):
        return alone.encode(string, add_special_tokens=False).ids

    for span, found in zip(spans, tokenizer.rows([MarkedText(text, span) for span in spans], 4096)):
        left, focus, right = text[: span.start], text[span.start : span.end], text[span.end :]
        assert found.tolist() == [CLS, *ids(left), MARKER, *ids(focus), MARKER, *ids(right), SEP]


def test_a_mention_and_an_entity_are_rendered_alike(tokenizer):
    mention = Mention("m", "en", "the red fox", Span(4, 7), 1, title="jumps")
    entity = Entity(1, "en", "red", "fox")
    rows = tokenizer.rows([mark_mention(mention, False), mark_mention(mention, True), mark_entity(entity)], 16)
    assert [found.tolist() for found in rows] == [
        [CLS, THE, MARKER, RED, MARKER, FOX, SEP],
        [CLS, JUMP, S, SEP, THE, MARKER, RED, MARKER, FOX, SEP],
        [CLS, MARKER, RED, MARKER, FOX, SEP],
    ]


def test_a_saved_tokenizer_gives_the_same_rows_and_facts(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    text = [MarkedText("the red foxes jumps", Span(8, 13))]
    assert np.array_equal(again.rows(text, 16)[0], tokenizer.rows(text, 16)[0])
    assert again.facts() == tokenizer.facts()


def test_transformers_loads_a_saved_tokenizer(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path / "saved")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert loaded("[M] fox [M] jumps")["input_ids"] == [CLS, MARKER, FOX, MARKER, JUMP, S, SEP]


def test_what_is_missing_or_broken_is_named(tokenizer, tmp_path):
    with pytest.raises(MelError, match="holds no tokenizer that was prepared here: tokenizer.json is missing"):
        Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(MelError, match="is damaged .*: prepare the data again"):
        Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / "prefixes.json").write_text("[1]")
    with pytest.raises(MelError, match="is damaged"):
        Tokenizer.load(tmp_path)


def test_a_row_needs_room_for_a_focus(tokenizer, vocabulary):
    with pytest.raises(MelError, match="4 tokens a row leave no room .* 8 is the least"):
        tokenizer.rows([MarkedText("fox", Span(0, 3))], 4)
    with pytest.raises(MelError, match="8 tokens .* 10 is the least"):
        read_tokenizer(vocabulary, prefixes=Prefixes("the red", "fox")).rows([MarkedText("fox", Span(0, 3))], 8)


def test_each_role_has_its_prefix_before_the_header(vocabulary, tmp_path):
    read_tokenizer(vocabulary, prefixes=Prefixes(mention="the: ", entity="jumps ")).save(tmp_path / "saved")
    tokenizer = Tokenizer.load(tmp_path / "saved")
    assert tokenizer.prefixes == Prefixes("the: ", "jumps ")
    mention = Mention("m", "en", "the red fox", Span(4, 7), 1, title="fox")
    texts = [mark_mention(mention, False), mark_mention(mention, True), mark_entity(Entity(1, "en", "red", "fox"))]
    rows = tokenizer.rows(texts, 16)
    assert [found.tolist() for found in rows] == [
        [CLS, THE, UNK, THE, MARKER, RED, MARKER, FOX, SEP],
        [CLS, THE, UNK, FOX, SEP, THE, MARKER, RED, MARKER, FOX, SEP],
        [CLS, JUMP, S, MARKER, RED, MARKER, FOX, SEP],
    ]
    assert [tokenizer.decode(found) for found in rows] == [
        ("the ", "red", " fox"), ("the ", "red", " fox"), ("", "red", " fox"),
    ]  # fmt: skip


def test_a_folder_that_was_written_here_says_its_prefixes(vocabulary, tmp_path):
    read_tokenizer(vocabulary, prefixes=Prefixes("the: ", "jumps ")).save(tmp_path / "saved")
    assert read_tokenizer(tmp_path / "saved").prefixes == Prefixes("the: ", "jumps ")
    assert read_tokenizer(tmp_path / "saved", prefixes=Prefixes()).prefixes == Prefixes()
    assert read_tokenizer(vocabulary).prefixes == Prefixes()


def test_prefixes_are_facts(vocabulary):
    facts = read_tokenizer(vocabulary, prefixes=Prefixes("query: ", "passage: ")).facts()
    assert facts["prefixes"] == {"mention": "query: ", "entity": "passage: "}
    assert {**facts, "prefixes": {"mention": "", "entity": ""}} == read_tokenizer(vocabulary).facts()


def test_padding_and_0_change_places(tmp_path):
    tokenizer = read_tokenizer(vocabularies.write_tokenizer(tmp_path, vocabularies.metaspace()))
    assert (tokenizer.cls_id, tokenizer.pad_id, tokenizer.sep_id, tokenizer.unk_id) == (0, 1, 2, 3)
    found = tokenizer.rows([MarkedText("river", Span(0, 5))], 16)[0]
    assert found[0] == 1 and found[-1] == 2 and 0 not in found
    assert tokenizer.row_ids(np.array([0, 1, 2, 9])).tolist() == [1, 0, 2, 9]
    assert tokenizer.row_ids(tokenizer.row_ids(found)).tolist() == found.tolist()


def test_unknown_tokens_are_counted_in_the_focus_only(tokenizer):
    texts = ["zzz the fox", "the zzz zz fox", "the fox"]
    rows = tokenizer.rows([MarkedText(text, Span(4, len(text))) for text in texts], 16)
    assert tokenizer.count_unknown(rows) == (2, 6)
    assert tokenizer.count_unknown([]) == (0, 0)
