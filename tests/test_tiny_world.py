"""The tiny world read with the standard library alone, so that no mistake of a reader hides one of the world."""

import bz2
import csv
import filecmp
import hashlib
import json
import lzma
import tarfile
import unicodedata
from collections import Counter, defaultdict

import pytest

from tests import tiny_world as world

RECORD_KEYS = {"qid", "lang", "label", "aliases", "description"}
WIKI_KEYS = {
    "title", "text", "tokens", "links", "sentences", "paragraphs", "redirects", "anchors", "removed_links",
    "removed_text_before",
}  # fmt: skip
OPEN = {".xz": lzma.decompress, ".bz2": bz2.decompress, "": bytes}


@pytest.fixture(scope="module")
def records(tiny_world):
    """The records of each language."""
    found = {}
    for language in world.LANGUAGES:
        with tarfile.open(tiny_world / "damuel" / f"damuel_1.0_{language}.tar") as archive:
            contents = [(member.name, archive.extractfile(member).read()) for member in archive]
        parts = [OPEN[name.partition("part-")[2][5:]](content).decode() for name, content in contents]
        assert len(parts) >= 3
        found[language] = [json.loads(line) for part in parts for line in part.splitlines()]
    return found


@pytest.fixture(scope="module")
def mewsli_rows(tiny_world):
    """The rows of mentions.tsv of all languages, each with its text."""
    rows = []
    for language in world.LANGUAGES:
        for row in read_tsv(tiny_world / "mewsli" / language / "mentions.tsv"):
            text = (tiny_world / "mewsli" / language / "text" / row["docid"]).read_bytes().decode()
            rows.append(row | {"text": text})
    return rows


def read_tsv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def pages(records):
    return [record["wiki"] for language in world.LANGUAGES for record in records[language] if "wiki" in record]


def covered(page, span):
    tokens = page["tokens"][span["start"] : span["end"]]
    return page["text"][tokens[0]["start"] : tokens[-1]["end"]]


def training_links(page):
    return [link for link in page["links"] if link["origin"] == "wiki" and "qid" in link]


def senses(records):
    """QIDs by surface form, with the number of training mentions."""
    counts = defaultdict(Counter)
    for page in pages(records):
        for link in training_links(page):
            counts[covered(page, link)][link["qid"]] += 1
    return counts


def test_records_have_every_field_of_the_format(records):
    everything = [record for language in world.LANGUAGES for record in records[language]]
    assert all(set(record) - {"wiki"} == RECORD_KEYS for record in everything)
    assert all(set(page) == WIKI_KEYS for page in pages(records))
    assert any("wiki" not in record for record in everything)
    assert all(record["lang"] == language for language in world.LANGUAGES for record in records[language])


def test_tokens_sentences_and_paragraphs_tile_the_text(records):
    for page in pages(records):
        text, tokens = page["text"], page["tokens"]
        assert all(text[token["start"] : token["end"]].strip() for token in tokens)
        gaps = [text[left["end"] : right["start"]] for left, right in zip(tokens, tokens[1:])]
        assert set(gaps) <= {"", " ", "\n\n"}
        for spans in (page["sentences"], page["paragraphs"]):
            bounds = [0, *(span["end"] for span in spans)]
            assert bounds[-1] == len(tokens)
            assert [span["start"] for span in spans] == bounds[:-1]


def test_links_cover_a_form_of_what_they_name(records):
    titles = {
        (language, record["qid"]): record["label"] for language in world.LANGUAGES for record in records[language]
    }
    for language in world.LANGUAGES:
        for record in records[language]:
            for link in training_links(record["wiki"]) if "wiki" in record else ():
                name = titles.get((language, link["qid"]), link["title"].split(" (")[0])
                assert covered(record["wiki"], link) in (name, world.table.inflect(name, language))


def test_anchors_count_the_links_of_the_language(records):
    for language in world.LANGUAGES:
        counts = defaultdict(Counter)
        for record in records[language]:
            for link in training_links(record["wiki"]) if "wiki" in record else ():
                counts[link["qid"]][covered(record["wiki"], link)] += 1
        for record in records[language]:
            if "wiki" in record:
                assert record["wiki"]["anchors"] == counts[record["qid"]]


def test_mewsli_tree(tiny_world, mewsli_rows):
    for language in world.LANGUAGES:
        folder = tiny_world / "mewsli" / language
        docs = read_tsv(folder / "docs.tsv")
        assert sorted(doc["docid"] for doc in docs) == sorted(file.name for file in (folder / "text").iterdir())
        for doc in docs:
            content = (folder / "text" / doc["docid"]).read_bytes()
            assert hashlib.md5(content).hexdigest() == doc["text_md5"]
            assert content.decode().startswith(doc["title"] + "\n")
    for row in mewsli_rows:
        start = int(row["position"])
        assert row["text"][start : start + int(row["length"])] == row["mention"]


def test_freq_bin_is_the_number_of_digits_of_the_training_frequency(records, mewsli_rows):
    frequency = Counter(link["qid"] for page in pages(records) for link in training_links(page))
    for row in mewsli_rows:
        count = frequency[row["qid"]]
        assert row["freq_bin"] == (str(len(str(count))) if count else "0")


def test_size(records, mewsli_rows):
    assert 60 <= len({record["qid"] for language in world.LANGUAGES for record in records[language]}) <= 150
    assert 4000 <= sum(len(training_links(page)) for page in pages(records)) <= 7000
    assert 600 <= len(mewsli_rows) <= 1000


def test_the_alias_table_alone_does_not_solve_it(records, mewsli_rows):
    counts = senses(records)
    hits, unseen, outside = [], 0, 0
    for row in mewsli_rows:
        found = counts.get(row["mention"], {})
        unseen += not found
        outside += row["qid_in_refs"] == "False"
        if len(found) > 1:
            hits.append(found.most_common(1)[0][0] == row["qid"])
    assert len(hits) > len(mewsli_rows) / 2
    assert 0.5 < sum(hits) / len(hits) < 0.75
    assert unseen - outside > 40
    assert 0 < outside < len(mewsli_rows) / 20


def test_no_test_page_is_in_an_archive(records, mewsli_rows):
    known = {paragraph for page in pages(records) for paragraph in page["text"].split("\n\n")}
    assert not known & {paragraph for row in mewsli_rows for paragraph in row["text"].split("\n\n")[1:]}


def test_texts_hold_emoji_and_combining_characters(mewsli_rows):
    characters = {character for row in mewsli_rows for character in row["text"]}
    assert {"\U0001fa90", "\u200d"} <= characters
    assert any(unicodedata.combining(character) for character in characters)


def test_vocabulary_covers_every_character(tiny_world, records, mewsli_rows):
    pieces = (tiny_world / "tokenizer" / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(set(pieces)) == len(pieces)
    texts = [json.dumps(records, ensure_ascii=False), *(row["text"] for row in mewsli_rows)]
    characters = {character for text in texts for character in text if not character.isspace()}
    assert characters | {"##" + character for character in characters} <= set(pieces)


def test_the_same_seed_gives_the_same_bytes(tiny_world, tmp_path):
    world.generate(tmp_path / "same")
    world.generate(tmp_path / "other", seed=1)
    names = [file.relative_to(tiny_world).as_posix() for file in sorted(tiny_world.rglob("*")) if file.is_file()]
    _, different, missing = filecmp.cmpfiles(tiny_world, tmp_path / "same", names, shallow=False)
    assert (different, missing) == ([], [])
    _, different, _ = filecmp.cmpfiles(tiny_world, tmp_path / "other", names, shallow=False)
    assert "damuel/damuel_1.0_ja.tar" in different
