import hashlib
import json
import os
import pathlib

import pytest

from mel.corpora.malformed import Malformed
from mel.corpora.mewsli import MEWSLI_9, check_counts, list_languages, read_documents
from mel.corpora.redirects import Redirects
from mel.types import NIL_ID, MelError

SHARED_DATA = pathlib.Path(__file__).resolve().parents[2].parent / "shared" / "data"
SAMPLES = SHARED_DATA / "samples" / "mewsli9"
MDN = SHARED_DATA / "mdn"

needs_samples = pytest.mark.skipif(not SAMPLES.exists(), reason=f"there are no Mewsli-9 samples at {SAMPLES}")
needs_mdn = pytest.mark.skipif(not MDN.exists(), reason=f"there is no MDN collection at {MDN}")

HEADER = "docid\tposition\tlength\tmention\turl\tlang\tqid\tqid_in_refs\tfreq_bin"
TEXTS = {"sr-1": 'Реч "Зенит"\r\nи 🐄 крава', "sr-2": "Нови Сад"}


def row(docid, position, length, mention, qid="Q5", freq_bin="3", in_refs="True"):
    return f"{docid}\t{position}\t{length}\t{mention}\thttp://x\tsr\t{qid}\t{in_refs}\t{freq_bin}"


def write_tree(tmp_path, rows, header=HEADER, docs=True, md5=None):
    folder = tmp_path / "sr"
    (folder / "text").mkdir(parents=True)
    (folder / "mentions.tsv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    lines = ["docid\ttitle\tcurid\trevid\turl\ttext_md5"]
    for docid, text in TEXTS.items():
        (folder / "text" / docid).write_bytes(text.encode())
        lines.append(f'{docid}\tНаслов "{docid}\t1\t0\thttp://x\t{md5 or hashlib.md5(text.encode()).hexdigest()}')
    if docs:
        (folder / "docs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def read(tree, malformed=None, redirects=None):
    return list(read_documents(tree, "sr", Malformed(0) if malformed is None else malformed, redirects))


@pytest.fixture
def warnings(caplog):
    """Says what was warned of so far."""
    with caplog.at_level("WARNING", logger="absl"):
        yield lambda: caplog.messages


def test_positions_count_code_points_and_quotes_and_line_ends_are_text(tmp_path):
    rows = [row("sr-1", 4, 7, '"Зенит"', "Q9", "0"), row("sr-1", 15, 1, "🐄"), row("sr-2", 5, 3, "Сад")]
    first, second = read(write_tree(tmp_path, rows))
    assert (first.docid, first.title, first.text) == ("sr-1", 'Наслов "sr-1', TEXTS["sr-1"])
    assert [mention.surface_form for mention in first.mentions] == ['"Зенит"', "🐄"]
    assert [mention.mention_id for mention in first.mentions] == ["sr-1:4:7", "sr-1:15:1"]
    assert [(mention.gold, mention.frequency_bin) for mention in first.mentions] == [("Q9", 0), ("Q5", 3)]
    assert first.mentions[0].context is first.mentions[1].context is first.text
    (mention,) = second.mentions
    assert (mention.language, mention.title, mention.surface_form) == ("sr", 'Наслов "sr-2', "Сад")
    assert not first.dropped and not second.dropped


def test_whether_the_gold_is_in_the_references_is_told_or_unknown(tmp_path):
    rows = [row("sr-2", 0, 4, "Нови", in_refs=said) for said in ("True", "False", "", "maybe")]
    (document,) = read(write_tree(tmp_path / "told", rows))
    assert [mention.in_references for mention in document.mentions] == [True, False, None, None]
    (document,) = read(
        write_tree(tmp_path / "untold", ["sr-2\t0\t4\tНови\tQ5"], "docid\tposition\tlength\tmention\tqid")
    )
    assert [mention.in_references for mention in document.mentions] == [None]


def test_rows_need_not_be_grouped(tmp_path):
    rows = [row("sr-2", 0, 4, "Нови"), row("sr-1", 0, 3, "Реч"), row("sr-2", 5, 3, "Сад")]
    documents = read(write_tree(tmp_path, rows))
    assert [(document.docid, len(document.mentions)) for document in documents] == [("sr-2", 2), ("sr-1", 1)]


def test_without_docs_there_are_no_titles_and_without_freq_bin_no_bins(tmp_path):
    header = "qid\tdocid\tposition\tlength\tmention"
    (document,) = read(write_tree(tmp_path, ["Q5\tsr-2\t5\t3\tСад"], header, docs=False))
    (mention,) = document.mentions
    assert (document.title, mention.title, mention.frequency_bin, mention.gold) == ("", "", -1, "Q5")


@pytest.mark.parametrize(
    "bad, reason",
    [
        (row("sr-2", 5, 4, "Сад"), "span outside its text"),
        (row("sr-2", -3, 3, "Сад"), "span outside its text"),
        (row("sr-2", 5, 0, ""), "span outside its text"),
        (row("sr-2", 4, 3, "Сад"), "surface form differs from the text"),
    ],
)
def test_a_mention_that_is_not_in_its_text_is_dropped_counted_and_logged(tmp_path, bad, reason, caplog):
    with caplog.at_level("WARNING", logger="absl"):
        (document,) = read(write_tree(tmp_path, [row("sr-2", 0, 4, "Нови"), bad]))
    assert [mention.surface_form for mention in document.mentions] == ["Нови"]
    assert document.dropped == {reason: 1}
    assert caplog.messages == [f"{tmp_path}/sr/mentions.tsv:3: dropped a mention: {reason}."]


@pytest.mark.parametrize(
    "bad, reason",
    [
        ("sr-2\t5\t3", "it has 3 columns, not 9"),
        (row("sr-2", "five", 3, "Сад"), "invalid literal for int"),
        (row("sr-2", "", 3, "Сад"), "invalid literal for int"),
        (row("sr-2", "5.5", 3, "Сад"), "'5.5' is not a whole number"),
        (row("sr-2", 5, "9" * 5000, "Сад"), "'9999"),
        (row("sr-2", 5, 3, "Сад", qid="5"), "'5' is not a QID"),
        (row("sr-2", 5, 3, "Сад", qid=""), "'' is not a QID"),
        (row("sr-2", 5, 3, "Сад", qid="Q" + "9" * 5000), "'Q999"),
        (row("../../secret", 5, 3, "Сад"), "The docid '../../secret' cannot be used as a name: it holds '/'"),
        (row("..", 5, 3, "Сад"), "The docid '..' cannot be used as a name"),
        (row("a\0b", 5, 3, "Сад"), r"The docid 'a\x00b' cannot be used as a name"),
        (row("x" * 300, 5, 3, "Сад"), "The docid 'xxx"),
    ],
    ids=range(12),
)
def test_a_row_that_cannot_be_parsed_is_reported_with_its_line(tmp_path, bad, reason):
    malformed = Malformed(1)
    (document,) = read(write_tree(tmp_path, [row("sr-2", 0, 4, "Нови"), bad]), malformed)
    assert len(document.mentions) == 1
    (found,) = malformed.records
    assert (found.place, found.line) == (f"{tmp_path}/sr/mentions.tsv", 3)
    assert found.reason.startswith(reason)


def test_a_row_that_is_not_utf8_is_reported(tmp_path):
    tree, malformed = write_tree(tmp_path, [row("sr-2", 0, 4, "Нови")]), Malformed(1)
    with open(tree / "sr" / "mentions.tsv", "ab") as file:
        file.write(b"sr-2\t0\t4\t\xff\n")
    assert len(read(tree, malformed)) == 1
    assert [found.line for found in malformed.records] == [3]


def test_a_wrong_md5_is_refused_with_both(tmp_path):
    tree = write_tree(tmp_path, [row("sr-2", 5, 3, "Сад")], md5="0" * 32)
    found = hashlib.md5(TEXTS["sr-2"].encode()).hexdigest()
    with pytest.raises(MelError, match=f"text/sr-2 has md5 {found}, but docs.tsv expects {'0' * 32}"):
        read(tree)


def test_a_missing_text_is_refused(tmp_path):
    with pytest.raises(MelError, match="text/sr-3 cannot be read"):
        read(write_tree(tmp_path, [row("sr-3", 5, 3, "Сад")]))


def test_a_text_that_is_not_utf8_is_refused(tmp_path):
    tree = write_tree(tmp_path, [row("sr-2", 5, 3, "Сад")], docs=False)
    (tree / "sr" / "text" / "sr-2").write_bytes(b"\xff")
    with pytest.raises(MelError, match="text/sr-2 is not UTF-8"):
        read(tree)


@pytest.mark.parametrize(
    "header, missing",
    [("", "docid, position, length, mention, qid"), ("docid\tposition\tlength\tmention", "qid")],
)
def test_a_missing_column_is_refused(tmp_path, header, missing):
    with pytest.raises(MelError, match=f"mentions.tsv has no column {missing}:"):
        read(write_tree(tmp_path, [], header))


def test_a_missing_language_is_refused_with_the_languages_there(tmp_path):
    with pytest.raises(MelError, match="has no language 'fi', only sr"):
        list(read_documents(write_tree(tmp_path, []), "fi", Malformed(0)))


def test_what_is_no_tree_is_refused(tmp_path):
    with pytest.raises(MelError, match="is no Mewsli-9 tree"):
        list_languages(tmp_path / "nowhere")


PANDAS_DOCS = (
    "docid\ttitle\tcurid\trevid\turl\ttext_md5\n"
    'en-1\t"""Big"" news"\t1\t1\thttp://x\t2fc7f6bdf691fd7148c4fa21e8c7641e\n'
)
PANDAS_MENTIONS = (
    "docid\tposition\tlength\tmention\turl\tlang\tqid\tqid_in_refs\tfreq_bin\n"
    'en-1\t21\t11\t"""Moon Song"""\thttp://x\ten\tQ2\tTrue\t1\n'
    "en-1\t41\t8\tthe Moon\thttp://x\ten\tQ3\tTrue\t1\n"
    'en-1\t57\t14\t"""odd"" Zed Band"\thttp://x\ten\tQ1\tTrue\t1\n'
)
PANDAS_TEXT = '"Big" news\nThey sang "Moon Song" and saw the Moon and an "odd" Zed Band'


def write_pandas_tree(tmp_path):
    folder = tmp_path / "en"
    (folder / "text").mkdir(parents=True)
    (folder / "docs.tsv").write_text(PANDAS_DOCS)
    (folder / "mentions.tsv").write_text(PANDAS_MENTIONS)
    (folder / "text" / "en-1").write_text(PANDAS_TEXT)
    return tmp_path


def test_a_tree_that_a_data_frame_library_wrote(tmp_path):
    (document,) = read_documents(write_pandas_tree(tmp_path), "en", Malformed(0))
    assert document.title == '"Big" news'
    assert [mention.surface_form for mention in document.mentions] == ['"Moon Song"', "the Moon", '"odd" Zed Band']
    assert [mention.gold for mention in document.mentions] == ["Q2", "Q3", "Q1"] and not document.dropped


def test_a_mention_may_span_lines(tmp_path):
    rows = [row("sr-1", 4, 10, '"""Зенит""\r\nи"'), row("sr-2", 5, 4, "Сад")]
    first, second = read(write_tree(tmp_path, rows))
    assert [mention.surface_form for mention in first.mentions] == ['"Зенит"\r\nи']
    assert not second.mentions and second.dropped == {"span outside its text": 1}


@pytest.mark.parametrize(
    "said, expected", [("3", 3), ("3.0", 3), ("0.0", 0), ("", -1), ("nan", -1), ("many", -1), ("2.5", -1), ("7", -1)]
)
def test_an_optional_column_costs_no_mention(tmp_path, said, expected):
    malformed = Malformed(0)
    (document,) = read(write_tree(tmp_path, [row("sr-2", 5, 3, "Сад", freq_bin=said, in_refs=said)]), malformed)
    assert [mention.frequency_bin for mention in document.mentions] == [expected] and malformed.well_formed == 3


def test_positions_that_went_through_a_data_frame_are_numbers(tmp_path):
    (document,) = read(write_tree(tmp_path, [row("sr-2", "5.0", "3.0", "Сад")]))
    assert [mention.surface_form for mention in document.mentions] == ["Сад"]
    assert document.mentions[0].mention_id == "sr-2:5:3"


def test_a_gold_outside_every_kb_is_nil(tmp_path):
    malformed = Malformed(0)
    rows = [row("sr-2", 5, 3, "Сад", "NIL"), row("sr-2", 0, 4, "Нови", "Q5")]
    (document,) = read(write_tree(tmp_path, rows), malformed)
    assert [mention.gold for mention in document.mentions] == [NIL_ID, "Q5"] and len(malformed) == 0


def test_a_merged_gold_is_what_it_was_merged_into(tmp_path):
    rows = [row("sr-2", 5, 3, "Сад", "Q900"), row("sr-2", 0, 4, "Нови", "Q5")]
    (document,) = read(write_tree(tmp_path, rows), redirects=Redirects({"Q900": "Q901", "Q901": "Q100"}))
    assert [mention.gold for mention in document.mentions] == ["Q100", "Q5"]


def test_a_file_of_which_a_large_share_cannot_be_used_is_refused(tmp_path):
    good, bad = row("sr-2", 5, 3, "Сад"), row("sr-2", 5, 3, "Сад", "5")
    assert read(write_tree(tmp_path / "few", [good] * 8 + [bad] * 2), Malformed(1000))
    with pytest.raises(MelError, match=r"^3 of 10 records of .*mentions.tsv were malformed, more than a share of 0.2"):
        read(write_tree(tmp_path / "many", [good] * 7 + [bad] * 3), Malformed(1000))
    with pytest.raises(
        MelError, match=r"^2 of 2 records of .*mentions.tsv were malformed, all of them, .*tsv:2 \('5' is"
    ):
        read(write_tree(tmp_path / "all", [bad] * 2), Malformed(1000))


def test_an_md5_in_capitals_is_the_same(tmp_path):
    md5 = hashlib.md5(TEXTS["sr-2"].encode()).hexdigest().upper()
    (document,) = read(write_tree(tmp_path, [row("sr-2", 5, 3, "Сад")], md5=md5))
    assert len(document.mentions) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"\r\n", b"\n"),
        lambda data: b"\xef\xbb\xbf" + data.replace(b"\r\n", b"\n"),
    ],
)
def test_a_text_whose_line_ends_were_translated_is_read_as_it_was_and_that_is_said(tmp_path, warnings, change):
    tree = write_tree(tmp_path, [row("sr-1", 11, 4, '"\r\nи "')])
    path = tree / "sr" / "text" / "sr-1"
    path.write_bytes(change(path.read_bytes()))
    (document,) = read(tree)
    assert document.text == TEXTS["sr-1"] and len(document.mentions) == 1
    assert warnings() == [
        f"The text {path} is read as docs.tsv describes it: newline translation changed its line ends."
    ]


def test_line_ends_translated_to_two_characters_are_translated_back(tmp_path, warnings):
    tree = write_tree(tmp_path, [row("sr-1", 15, 1, "🐄")], docs=False)
    folder, text = tree / "sr", TEXTS["sr-1"].replace("\r\n", "\n")
    md5 = hashlib.md5(text.encode()).hexdigest()
    (folder / "docs.tsv").write_text(f"docid\ttitle\ttext_md5\nsr-1\t\t{md5}\n")
    (folder / "mentions.tsv").write_text(HEADER + "\n" + row("sr-1", 14, 1, "🐄") + "\n")
    (document,) = read(tree)
    assert (document.text, len(document.mentions)) == (text, 1)
    assert "newline translation" in warnings()[0]


def test_a_byte_order_mark_is_a_character_unless_the_md5_says_that_it_was_put_there(tmp_path, warnings):
    tree = write_tree(tmp_path / "put", [row("sr-2", 5, 3, "Сад")])
    path = tree / "sr" / "text" / "sr-2"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [mention.surface_form for mention in read(tree)[0].mentions] == ["Сад"]
    assert warnings()[-1].endswith("a byte-order mark was put in front of it.")

    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    tree = write_tree(tmp_path / "own", [row("sr-2", 6, 3, "Сад")], md5=md5)
    path = tree / "sr" / "text" / "sr-2"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    (document,) = read(tree)
    assert document.text.startswith("\ufeff") and [one.surface_form for one in document.mentions] == ["Сад"]


def test_a_text_in_utf16_is_named(tmp_path):
    tree = write_tree(tmp_path, [row("sr-2", 5, 3, "Сад")], docs=False)
    (tree / "sr" / "text" / "sr-2").write_bytes(TEXTS["sr-2"].encode("utf-16"))
    with pytest.raises(MelError, match="text/sr-2 is UTF-16: fetch the tree again"):
        read(tree)


def test_a_text_that_is_a_pipe_or_longer_than_any_document_is_refused(tmp_path, monkeypatch):
    tree = write_tree(tmp_path, [row("sr-2", 5, 3, "Сад")], docs=False)
    monkeypatch.setattr("mel.corpora.mewsli.MAX_TEXT_BYTES", 10)
    with pytest.raises(MelError, match="text/sr-2 is longer than"):
        read(tree)
    (tree / "sr" / "text" / "sr-2").unlink()
    os.mkfifo(tree / "sr" / "text" / "sr-2")
    with pytest.raises(MelError, match="text/sr-2 is a device or pipe, not a file"):
        read(tree)


def test_missing_descriptions_are_said(tmp_path, warnings):
    read(write_tree(tmp_path / "none", [row("sr-2", 5, 3, "Сад")], docs=False))
    assert warnings() == [
        f"{tmp_path}/none/sr/docs.tsv is not there: no mention has the title of its page, and no text is checked."
    ]
    tree = write_tree(tmp_path / "one", [row("sr-3", 0, 1, "x"), row("sr-2", 5, 3, "Сад")])
    (tree / "sr" / "text" / "sr-3").write_text("x")
    read(tree)
    assert warnings()[-1] == f"{tree}/sr/docs.tsv tells neither title nor md5 of 1 texts, the first is sr-3."


def test_a_language_without_mentions_is_said(tmp_path, warnings):
    assert read(write_tree(tmp_path, [])) == []
    assert warnings() == [f"{tmp_path}/sr/mentions.tsv holds no mention: nothing is read of 'sr'."]


def test_a_folder_with_texts_and_no_mentions_is_named(tmp_path, warnings):
    tree = write_tree(tmp_path, [])
    (tree / "de" / "text").mkdir(parents=True)
    (tree / "en").mkdir()
    (tree / "en" / "mentions.tsv.gz").touch()
    (tree / "wiki").mkdir()
    assert list_languages(tree) == ["sr"]
    assert warnings() == [f"{tree}: not read, for they hold no mentions.tsv: de, en."]


def test_a_folder_that_cannot_be_a_language_is_refused(tmp_path):
    (tmp_path / "old copy").mkdir()
    (tmp_path / "old copy" / "mentions.tsv").write_text(HEADER)
    with pytest.raises(MelError, match="'old copy' is not a language"):
        list_languages(tmp_path)


def test_the_counts_of_the_whole_of_mewsli_9_are_compared_with_the_published_ones(tmp_path, caplog):
    def said(counts):
        caplog.clear()
        with caplog.at_level("INFO", logger="absl"):
            check_counts(tmp_path, counts)
        return caplog.messages

    assert sum(MEWSLI_9.values()) == 289_087
    for language in MEWSLI_9:
        (tmp_path / language).mkdir()
        (tmp_path / language / "mentions.tsv").touch()
    (message,) = said(MEWSLI_9)
    assert message.endswith("has as many mentions in each language as were published of Mewsli-9.")
    (message,) = said(MEWSLI_9 | {"ta": 2_691, "de": 60_000})
    assert message.endswith("mentions: de 60,000 instead of 65,592, ta 2,691 instead of 2,692.")
    assert said({"fa": 535}) and not said({"fa": 9}) and not said({})
    (tmp_path / "ko").mkdir()
    (tmp_path / "ko" / "mentions.tsv").touch()
    assert not said(MEWSLI_9)


@needs_samples
def test_the_real_samples_parse():
    assert list_languages(SAMPLES) == ["es"]
    documents = list(read_documents(SAMPLES, "es", Malformed(0)))
    surface_forms = [[mention.surface_form for mention in document.mentions] for document in documents]
    assert surface_forms == [
        ["Lérida", "España", "Lérida", "antidisturbios", "Públic", "Barcelona"],
        ["misil balístico", "Pyongsong", "Seúl"],
    ]
    assert documents[0].mentions[4].gold == "Q1835391"
    assert not documents[0].dropped and not documents[1].dropped


@needs_mdn
def test_mdn_has_the_dev_mentions_that_its_counts_state():
    expected = json.loads((MDN / "counts.json").read_bytes())
    tree = MDN / "mewsli" / "dev"
    assert list_languages(tree) == ["en", "es", "fr", "ja", "ko", "pt", "ru", "zh"]
    for language in list_languages(tree):
        documents = list(read_documents(tree, language, Malformed(0)))
        assert sum(len(document.mentions) for document in documents) == expected[language]["dev_mentions"]
        assert not any(document.dropped for document in documents)
