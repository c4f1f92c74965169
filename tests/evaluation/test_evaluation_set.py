"""Mentions prepared beforehand, and the same from a tree that was never prepared."""

import dataclasses
import shutil

import numpy as np
import pytest

from mel.artifacts import open_artifact
from mel.corpora import mewsli
from mel.corpora.kb import KnowledgeBase
from mel.corpora.redirects import Redirects
from mel.evaluation.evaluation_set import golds_with_twins, read_clusters, read_prepared, read_tree
from mel.shards.blocks import Windows
from mel.types import NIL, NIL_ID, OUTSIDE, MelError
from tests.evaluation import hand_made


@pytest.fixture(scope="module")
def kb(untrained):
    return KnowledgeBase.read(untrained.kb, open_artifact(untrained.kb, "kb").facts["languages"])


def test_a_prepared_split_and_its_tree_ask_the_same(untrained, tiny_world, kb):
    first = read_prepared(untrained, "mewsli", kb, ("en",))
    second = read_tree(tiny_world / "mewsli", Windows.of(untrained), kb, ("en",), 0, 0)
    assert first.lines == second.lines
    np.testing.assert_array_equal(first.gold_Q, second.gold_Q)
    np.testing.assert_array_equal(first.rows.tokens_T, second.rows.tokens_T)
    assert first.inputs.keys() != second.inputs.keys()


def test_what_the_tree_says_of_a_mention_is_asked_along(untrained, tiny_world, kb):
    mentions = read_prepared(untrained, "mewsli", kb, ("en",))
    header, *rows = (tiny_world / "mewsli" / "en" / "mentions.tsv").read_text().splitlines()
    rows = [dict(zip(header.split("\t"), row.split("\t"))) for row in rows]
    assert len(mentions) == len(rows)
    by_id = {f"{row['docid']}:{row['position']}:{row['length']}": row for row in rows}
    for line, in_references, frequency_bin in zip(mentions.lines, mentions.in_references, mentions.frequency_bins):
        row = by_id[line.mention_id]
        assert (line.document, line.surface_form, line.gold) == (row["docid"], row["mention"], row["qid"])
        assert frequency_bin == int(row["freq_bin"])
        assert in_references == {"True": 1, "False": 0}[row["qid_in_refs"]]
        assert (line.start, line.end - line.start) == (int(row["position"]), int(row["length"]))


def test_golds_are_numbers_of_the_kb_or_outside(untrained, kb):
    mentions = read_prepared(untrained, "mewsli", kb)
    for line, gold in zip(mentions.lines, mentions.gold_Q.tolist(), strict=True):
        assert line.gold == kb.ids[gold] if gold != OUTSIDE else line.gold not in set(kb.ids)


def test_a_limit_reads_no_text_that_it_does_not_need(untrained, tiny_world, kb, monkeypatch):
    read_texts = []

    def read_text(path, md5):
        read_texts.append(path.name)
        return whole_text(path, md5)

    whole_text = mewsli._read_text
    monkeypatch.setattr(mewsli, "_read_text", read_text)
    whole = read_tree(tiny_world / "mewsli", Windows.of(untrained), kb, ("en",), 0, 0)
    documents = list(dict.fromkeys(whole.documents))
    assert read_texts == documents
    read_texts.clear()
    count = whole.documents.index(documents[1]) + 1  # the first mention of the second text
    few = read_tree(tiny_world / "mewsli", Windows.of(untrained), kb, ("en",), count, 0)
    assert few.lines == whole.lines[:count] and read_texts == documents[:2]


def test_merged_golds_of_a_tree_are_those_they_were_merged_into(untrained, tiny_world, kb):
    windows = Windows.of(untrained)
    plain = read_tree(tiny_world / "mewsli", windows, kb, ("en",), 0, 0)
    old, new = plain.lines[0].gold, next(line.gold for line in plain.lines if line.gold != plain.lines[0].gold)
    redirects = Redirects({old: "Q999999", "Q999999": new})
    moved = read_tree(tiny_world / "mewsli", windows, kb, ("en",), 0, 0, redirects=redirects)
    assert [line.gold for line in moved.lines] == [new if line.gold == old else line.gold for line in plain.lines]
    np.testing.assert_array_equal(moved.gold_Q, kb.numbers_of([line.gold for line in moved.lines]))
    assert moved.inputs != plain.inputs


def test_golds_outside_every_kb_are_asked_and_are_nil(untrained, tiny_world, kb, tmp_path):
    shutil.copytree(tiny_world / "mewsli", tmp_path / "mewsli")
    path = tmp_path / "mewsli" / "en" / "mentions.tsv"
    header, *rows = (line.split("\t") for line in path.read_text().splitlines())
    for row in rows:
        row[header.index("qid")] = NIL_ID
    path.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]))
    mentions = read_tree(tmp_path / "mewsli", Windows.of(untrained), kb, ("en",), 0, 0)
    assert len(mentions) == len(rows) and set(mentions.gold_Q.tolist()) == {NIL}


def test_a_language_that_is_not_there_is_refused(untrained, kb):
    with pytest.raises(MelError, match="has no language 'ja': choose --languages among en, ru, ar"):
        read_prepared(untrained, "mewsli", kb, ("en", "ja"))


def test_golds_that_read_like_another_entity_are_counted():
    kb = hand_made.kb_of((1, "de", "a"), (2, "de", "a"), (2, "en", "b"), (3, "de", "c"), (3, "en", "c"))
    first_E = np.array([0, 0, 2, 3, 3])  # rows 0 and 1 read alike, and so do both of entity 3
    mentions = hand_made.mentions_of([1, 2, 2, 3, 9], language=["de", "de", "en", "de", "de"])
    assert golds_with_twins(mentions, kb, first_E) == 2


def test_a_file_says_which_documents_are_translations(tmp_path):
    (tmp_path / "clusters.tsv").write_text("\ufeffd0\tp\nd1\tp\n", encoding="utf-8")
    clusters = read_clusters(tmp_path / "clusters.tsv")
    mentions = dataclasses.replace(hand_made.mentions_of([1, 2, 3], cluster=["", "q", "q"]), cluster_of=clusters)
    assert mentions.clusters == ["p", "p", "q"]
    assert hand_made.mentions_of([1, 2]).clusters == ["d0", "d1"]
    (tmp_path / "clusters.tsv").write_text("d0 p\n")
    with pytest.raises(MelError, match="clusters.tsv:1 reads 'd0 p': a document, a tab and its cluster are needed"):
        read_clusters(tmp_path / "clusters.tsv")
