"""Pages that are cut before they are tokenised: the same rows as of whole pages, at a cost that does not grow."""

import random

import pytest

from mel.text import cutting
from mel.text.cutting import Cutter, Part
from mel.text.foreign import read_tokenizer
from mel.text.tokenizer import Prefixes, Tokenizer
from mel.types import MarkedText, Span
from tests.text import vocabularies
from tests.text.test_windows import KINDS
from tests.text.vocabularies import TEXTS

# What normalisers, word splitters and pieces treat in ways of their own.
SIGNS = [
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "\u00a0",
    "\u3000",
    " \u0301",
    "e\u0301",
    "\ufb01",
    "\uff9e",
    "\u0d4e ",
    "한",
    "각",
    "।",
]
SIGNS += [
    "İ",
    "ß",
    "Σας ",
    "\u200d",
    "\u200b",
    "\ufe70",
    "\u0e33 ",
    "中",
    "文 字",
    "<s>",
    "[SEP]",
    "'s ",
    "12 34",
    "🦊 ",
    "_",
    "-",
]
WIDTHS = (17, 24, 64)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("kind")
    return read_tokenizer(KINDS[request.param](folder), prefixes=Prefixes("query: ", "passage: "))


@pytest.fixture
def short_parts(monkeypatch):
    """Parts that are hardly long enough, or not, so that short pages are cut."""
    monkeypatch.setattr(cutting, "CHARACTERS_A_TOKEN", 1)
    monkeypatch.setattr(cutting, "SPARE", 3)
    monkeypatch.setattr(cutting, "LONGEST_PART", 150)


def pages(seed, count):
    """Pages of all languages, mixed with signs."""
    draw, sentences = random.Random(seed), list(TEXTS.values())
    for _ in range(count):
        page = ""
        while len(page) < draw.choice((300, 1_000)):
            sentence = draw.choice(sentences)
            words = [sentence] if draw.random() < 0.5 else sentence.split(" ")
            for word in draw.sample(words, min(len(words), 8)):
                page += draw.choice((word, word[:5], word)) + draw.choice((" ", " ", "\n", draw.choice(SIGNS)))
        yield page


def whole_rows(tokenizer, marked, width):
    """The rows of pages that are not cut."""
    uncut = Tokenizer(tokenizer._state, tokenizer._special, tokenizer.prefixes)
    uncut._cutter._border = None
    return [row.tolist() for row in uncut.rows(marked, width)]


def focuses(page, draw, count):
    spans = []
    while len(spans) < count:
        start = draw.randrange(len(page) - 1)
        spans.append(Span(start, min(len(page), start + draw.choice((1, 4, 12, 90)))))
    return spans


@pytest.mark.parametrize("seed", range(2))
def test_rows_are_those_of_whole_pages(tokenizer, seed, short_parts):
    assert tokenizer._cutter._border is not None
    draw = random.Random(seed)
    marked = [
        MarkedText(page, span, draw.choice(("", "Old mill")))
        for page in pages(seed, 20)
        for span in focuses(page, draw, 6)
    ]
    for width in WIDTHS:
        assert [row.tolist() for row in tokenizer.rows(marked, width)] == whole_rows(tokenizer, marked, width)


@pytest.mark.parametrize("language", TEXTS)
def test_rows_of_long_pages_of_a_language(tokenizer, language):
    page = " ".join([TEXTS[language]] * 60)
    draw = random.Random(0)
    marked = [MarkedText(page, span) for span in focuses(page, draw, 5)]
    assert [row.tolist() for row in tokenizer.rows(marked, 24)] == whole_rows(tokenizer, marked, 24)


def test_a_part_has_the_tokens_that_the_page_has_there(tokenizer, short_parts):
    for page in pages(9, 8):
        (whole,) = tokenizer._pages([(page, Part(0, len(page), []))])
        cuts = [0, *(match.start() for match in tokenizer._cutter._border.finditer(page)), len(page)]
        assert len(cuts) > 10
        for start, end in zip(cuts[::3], cuts[4::3], strict=False):
            (part,) = tokenizer._pages([(page, Part(start, end, []))])
            here = (whole.tokens.begins_t >= start) & (whole.tokens.begins_t < end)
            for ours, theirs in zip(part.tokens, whole.tokens, strict=True):
                assert ours.tolist() == theirs[here].tolist(), page[start:end]
            assert part.starts_T.tolist() == whole.starts_T[here].tolist()


def test_what_is_tokenised_grows_with_the_window_not_with_the_page(tokenizer):
    page = " ".join([TEXTS["en"]] * 20_000)  # 2 MB
    parts = tokenizer._cutter.parts(page, [Span(10, 14), Span(1_000_000, 1_000_003), Span(1_000_300, 1_000_305)], 32)
    assert [part.places for part in parts] == [[0], [1, 2]]
    reach = 32 * cutting.CHARACTERS_A_TOKEN + cutting.SPARE
    assert all(part.end - part.start < 2 * reach + 400 for part in parts)
    assert parts[0].start == 0 and page[parts[1].start] == " "


def test_a_page_without_a_place_to_cut_stays_whole_and_is_searched_once(tokenizer):
    page = "ab_" * 200_000
    spans = [Span(start, start + 3) for start in range(0, len(page), 3_000)]
    assert tokenizer._cutter.parts(page, spans, 32) == [Part(0, len(page), list(range(200)))]


def test_mentions_in_any_order_share_parts(tokenizer):
    page = " ".join([TEXTS["ru"]] * 300)
    spans = [Span(9_000, 9_004), Span(10, 14), Span(9_100, 9_104), Span(0, 4)]
    parts = tokenizer._cutter.parts(page, spans, 32)
    assert [part.places for part in parts] == [[3, 1], [0, 2]]


def test_parts_are_bounded_where_mentions_stand_close(tokenizer, monkeypatch):
    monkeypatch.setattr(cutting, "LONGEST_PART", 2_000)
    page = " ".join([TEXTS["de"]] * 200)
    spans = [Span(start, start + 4) for start in range(0, len(page) - 4, 50)]
    parts = tokenizer._cutter.parts(page, spans, 32)
    assert sorted(place for part in parts for place in part.places) == list(range(len(spans)))
    assert len(parts) > 5 and all(part.end - part.start < 4_000 for part in parts)
    for part in parts:
        assert all(part.start <= spans[place].start and spans[place].end <= part.end for place in part.places)


def changed(**parts):
    """A word tokenizer with other components."""
    state = vocabularies.Tokenizer.from_str(vocabularies._unigram()).to_str()
    state = vocabularies.json.loads(state) | parts
    return Cutter(state, str)._border is not None


def test_tokenizers_that_may_reach_further_are_given_whole_pages():
    assert changed()
    assert not changed(pre_tokenizer=None)
    assert not changed(
        pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    )
    assert not changed(pre_tokenizer={"type": "UnicodeScripts"})
    assert not changed(normalizer={"type": "Strip", "strip_left": True, "strip_right": True})
    assert not changed(normalizer={"type": "Replace", "pattern": {"Regex": "a b"}, "content": "c"})
    assert not changed(normalizer={"type": "Replace", "pattern": {"String": "ab"}, "content": "c"})
    assert not changed(normalizer={"type": "Replace", "pattern": {"String": "～"}, "content": " "})
    assert changed(normalizer={"type": "Replace", "pattern": {"String": "～"}, "content": "-"})
    name = {"id": 5, "content": "New York", "special": True, "lstrip": False, "rstrip": False, "single_word": False}
    assert not changed(added_tokens=[name])
    assert changed(added_tokens=[name | {"content": "<x>"}])
    assert not changed(added_tokens=[name | {"content": "<x>", "special": False}])


def test_line_ends_are_places_to_cut_where_they_are_spaces():
    metaspace = vocabularies.json.loads(vocabularies._unigram())
    as_they_are, as_spaces = Cutter(metaspace, str), Cutter(metaspace, lambda text: text.replace("\n", " "))
    assert not as_they_are._border.search("a\nb") and as_spaces._border.search("a\nb").start() == 1
    assert all(
        not each._border.search(text) for each in (as_they_are, as_spaces) for text in ("a  b", "a .b", "a \u0301")
    )
