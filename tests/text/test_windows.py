"""Windows of one tokenised page, for all kinds of tokenizers, in scripts with spaces and without."""

import random
import unicodedata

import pytest
import tokenizers

from mel.text import windows
from mel.text.foreign import read_tokenizer
from mel.text.tokenizer import Prefixes, Tokenizer
from mel.types import MarkedText, MelError, Span
from tests.text import vocabularies
from tests.text.vocabularies import TEXTS

KINDS = {
    "words": lambda folder: vocabularies.write_words(folder),
    "metaspace": lambda folder: vocabularies.write_tokenizer(folder, vocabularies.metaspace()),
    "split metaspace": lambda folder: vocabularies.write_tokenizer(folder, vocabularies.split_metaspace()),
    "bytes": lambda folder: vocabularies.write_tokenizer(folder, vocabularies.byte_level()),
    "spaced bytes": lambda folder: vocabularies.write_tokenizer(folder, vocabularies.byte_level(True)),
}


SPARE = 4  # tokens of a character's bytes


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("kind")
    read_tokenizer(KINDS[request.param](folder / "theirs")).save(folder / "ours")
    return Tokenizer.load(folder / "ours")


def tokens(tokenizer, text, begins=True):
    """The ids of a text alone."""
    return tokenizer._ids(text, begins).tolist()


def spans(text, count=40, seed=0):
    """Some that keep to words and some that do not, none with a space at its rim."""
    generator = random.Random(seed)
    found = []
    while len(found) < count:
        start = generator.randrange(len(text) - 1)
        end = min(len(text), start + generator.randint(1, 12))
        if text[start:end] == text[start:end].strip():
            found.append(Span(start, end))
    return found


def visible(text):
    """What a text looks like, whatever a normaliser does to its spaces and composed characters."""
    return "".join(unicodedata.normalize("NFKC", text).split())


@pytest.mark.parametrize("language", TEXTS)
def test_a_row_decodes_to_the_text_around_the_focus(tokenizer, language):
    text = TEXTS[language]
    marked = [MarkedText(text, span) for span in spans(text)]
    for whole, window, mark in zip(tokenizer.rows(marked, 512), tokenizer.rows(marked, 24), marked, strict=True):
        parts = text[: mark.focus.start], text[mark.focus.start : mark.focus.end], text[mark.focus.end :]
        assert [visible(part) for part in tokenizer.decode(whole)] == [visible(part) for part in parts]
        left, focus, right = (visible(part).strip("\ufffd") for part in tokenizer.decode(window))
        assert visible(parts[0]).endswith(left) and visible(parts[1]).startswith(focus)
        assert visible(parts[2]).startswith(right)
        # A word at the rim of a window, tokenised again, may take one token more, and then it is cut shorter.
        assert min(24, len(whole)) - SPARE <= len(window) <= min(24, len(whole))


@pytest.mark.parametrize("language", TEXTS)
def test_spaces_around_the_focus_are_kept_where_pieces_know_them(tokenizer, language):
    text = TEXTS[language]
    if type(tokenizer._backend.decoder).__name__ == "WordPiece":
        pytest.skip("its pieces hold no spaces")
    for mark in (MarkedText(text, span) for span in spans(text)):
        decoded = tokenizer.decode(tokenizer.rows([mark], 512)[0])
        focus = mark.focus.of(text)
        assert unicodedata.normalize("NFKC", decoded[1]) == unicodedata.normalize("NFKC", focus)
        if mark.focus.start:
            assert decoded[0].endswith(" ") == text[: mark.focus.start].endswith(" ")


@pytest.mark.parametrize("language", TEXTS)
def test_a_row_is_its_three_pieces_alone(tokenizer, language):
    text = TEXTS[language]
    for span in spans(text, 80, seed=1):
        start, end = span.start, span.end
        space = start - 1 if text[:start].endswith(" ") else start  # it belongs to what comes after it
        after = end - 1 if text[:end].endswith(" ") else end
        pieces = text[:space], text[space:end], text[after:]
        alone = [tokens(tokenizer, piece, begins) for piece, begins in zip(pieces, (True, space == 0, False))]
        row = tokenizer.row_ids(tokenizer.rows([MarkedText(text, span)], 512)[0]).tolist()
        marker = tokenizer.marker_id
        assert row == [tokenizer.cls_id, *alone[0], marker, *alone[1], marker, *alone[2], tokenizer.sep_id], span


RENDERED = [kind for kind in KINDS if kind != "spaced bytes"]  # others put a space into a word that is split


@pytest.mark.parametrize("prefixes", [Prefixes(), Prefixes("query: ", "passage: ")], ids=["", "prefix"])
@pytest.mark.parametrize("header", ["", "Old mill"], ids=["", "header"])
@pytest.mark.parametrize("kind", RENDERED)
def test_other_programs_read_the_same_tokens_in_what_is_rendered(kind, header, prefixes, tmp_path):
    tokenizer = read_tokenizer(KINDS[kind](tmp_path / "theirs"), prefixes=prefixes)
    tokenizer.save(tmp_path / "ours")
    others = tokenizers.Tokenizer.from_file(str(tmp_path / "ours" / "tokenizer.json"))
    marked = [
        MarkedText(text, span, header if role == "mention" else "", role)
        for text in TEXTS.values()
        for role in ("mention", "entity")
        for span in spans(text, 8, seed=2)
    ]
    for mark, row in zip(marked, tokenizer.rows(marked, 48), strict=True):
        assert others.encode(tokenizer.render(mark, 48)).ids == tokenizer.row_ids(row).tolist(), mark


def test_a_rendered_text_by_hand(tmp_path):
    tokenizer = read_tokenizer(KINDS["words"](tmp_path))
    mark = MarkedText(TEXTS["en"], Span(27, 32), "Millbrook")
    assert TEXTS["en"][27:32] == "river"
    assert tokenizer.render(mark, 512).startswith("Millbrook[SEP] The old mill stands by the[M] river[M]; its owner, a")
    decoded = tokenizer.decode(tokenizer.rows([mark], 24)[0])
    assert tokenizer.render(mark, 24) == f"Millbrook[SEP] {decoded[0].strip()}[M] river[M]{decoded[2]}"


def test_a_text_that_others_cannot_be_given_is_named(tmp_path):
    tokenizer = read_tokenizer(KINDS["words"](tmp_path))
    with pytest.raises(MelError, match=r"No text makes other programs read the row of 'the \[SEP\] river'"):
        tokenizer.render(MarkedText("the [SEP] river", Span(10, 15)), 48)


@pytest.mark.parametrize("language", TEXTS)
def test_a_window_is_its_three_pieces_alone(tokenizer, language):
    """Each outer piece begins or ends with what the window shows of it, whatever word its rim splits."""
    text = TEXTS[language]
    marked = [MarkedText(text, span) for span in spans(text, 20, seed=4)]
    for mark, window in zip(marked, tokenizer._windows(marked, 24), strict=True):
        left, right = text[window.left.start : mark.focus.start].rstrip(), text[mark.focus.end : window.right.end]
        assert not len(window.left.ids_t) or window.left.ids_t.tolist() in (
            tokens(tokenizer, left), tokens(tokenizer, left, False)
        )  # fmt: skip
        assert window.right.ids_t.tolist() == (tokens(tokenizer, right, False) if len(window.right.ids_t) else [])


def test_a_focus_of_whole_words_leaves_the_tokens_of_the_page(tokenizer):
    text = TEXTS["ru"]
    row = tokenizer.rows([MarkedText(text, Span(7, 15))], 512)[0]
    kept = tokenizer.row_ids(row[row != tokenizer.marker_id]).tolist()
    assert text[7:15] == "мельница" and kept == [tokenizer.cls_id, *tokens(tokenizer, text), tokenizer.sep_id]


def test_no_row_has_padding_in_it(tokenizer):
    texts = [MarkedText(text, span) for text in TEXTS.values() for span in spans(text, 10)]
    texts += [MarkedText(f"a {name} b", Span(2, 2 + len(name))) for name in ("<s>", "<pad>", "[PAD]", "</s>", "[M]")]
    for row in tokenizer.rows(texts, 32):
        assert (row != 0).all()
        assert (tokenizer.row_ids(row) == tokenizer.marker_id).sum() == 2


@pytest.mark.parametrize("name", ["<s>", "</s>", "<pad>", "<mask>", "[SEP]", "[M]"])
def test_the_name_of_a_special_token_is_text(tokenizer, name):
    for text in (f"a {name} b", f"x{name}y"):
        start = text.index(name)
        row = tokenizer.rows([MarkedText(text, Span(start, start + len(name)))], 32)[0]
        special = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id}
        assert not special & set(tokenizer.row_ids(row)[1:-1].tolist())


def counted(tokenizer):
    """The lengths of all texts that are tokenised, as they come."""
    lengths = []

    class Counting:
        def __init__(self, backend):
            self.backend = backend

        def encode(self, text, **options):
            lengths.append(len(text))
            return self.backend.encode(text, **options)

        def encode_batch(self, texts, **options):
            lengths.extend(map(len, texts))
            return self.backend.encode_batch(texts, **options)

        def __getattr__(self, name):
            return getattr(self.backend, name)

    fresh = Tokenizer(tokenizer._state, tokenizer._special)
    fresh.__dict__["_without_space"] = Counting(tokenizer._without_space)
    fresh._backend = Counting(fresh._backend)
    return fresh, lengths


@pytest.mark.parametrize("language", ["th", "en"])
def test_work_grows_with_the_text_and_not_with_the_mentions(tokenizer, language):
    counting, lengths = counted(tokenizer)
    unit = TEXTS[language].replace(" ", "")
    text = unit * 40
    generator = random.Random(0)
    texts = [MarkedText(text, Span(start, start + 7)) for start in generator.sample(range(len(text) - 7), 50)]
    lengths.clear()
    counting.rows(texts, 64)
    # The page, once; beside it, for each mention, the two words that its focus splits, the two that its window does.
    assert lengths.count(len(text)) == 1
    assert sum(lengths) - len(text) - 1 <= 50 * (4 * windows.STRETCH + 7)


@pytest.mark.parametrize("language", ["th", "ja", "en"])
def test_a_long_word_is_tokenised_again_near_the_focus_only(tokenizer, language):
    text = TEXTS[language].replace(" ", "") * 8
    page = tokens(tokenizer, text)
    if tokenizer.unk_id in page:
        pytest.skip("WordPiece knows no word as long as this one")
    for start in range(len(text) // 2, len(text) // 2 + 20, 3):
        found = tokenizer.rows([MarkedText(text, Span(start, start + 5))], 2000)[0]
        row = tokenizer.row_ids(found).tolist()
        first, second = (place for place, token in enumerate(row) if token == tokenizer.marker_id)
        assert row[first + 1 : second] == tokens(tokenizer, text[start : start + 5], False)
        assert row[1:21] == page[:20] and row[-21:-1] == page[-20:]
        assert visible("".join(tokenizer.decode(found))) == visible(text)


def test_a_token_longer_than_the_stretch_stays_on_both_sides(tmp_path):
    # 300 letters are one unknown word; 100 of them on either side of the focus are read again.
    tokenizer = read_tokenizer(vocabularies.write_words(tmp_path))
    row = tokenizer.rows([MarkedText("x" * 300, Span(150, 152))], 512)[0].tolist()
    first, second = (place for place, token in enumerate(row) if token == tokenizer.marker_id)
    assert row[1] == row[-2] == tokenizer.unk_id
    assert row.count(tokenizer.unk_id) == 2
    pieces = tokens(tokenizer, "x" * windows.STRETCH)
    assert row[2:first] == pieces and row[second + 1 : -2] == pieces
