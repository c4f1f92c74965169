import hashlib
import json
import pathlib

import pytest

from mel.corpora.malformed import Malformed
from mel.corpora.mewsli import list_languages, read_documents
from mel.types import MelError

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


def read(tree, malformed=None):
    return list(read_documents(tree, "sr", Malformed(0) if malformed is None else malformed))


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
        (row("sr-2", 5, 3, "Сад", qid="5"), "'5' is not a QID"),
        (row("sr-2", 5, 3, "Сад", freq_bin="many"), "invalid literal for int"),
    ],
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
