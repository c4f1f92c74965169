"""Questions from mentions prepared now, prepared by an older program, and never prepared."""

import dataclasses
import shutil

import numpy as np
import orjson
import pytest

from mel.artifacts import open_artifact
from mel.bin.evaluate import open_windows
from mel.evaluation.questions import Questions, read_prepared, read_tree
from mel.shards.datasets import open_rows
from mel.types import MelError

LISTS = [field.name for field in dataclasses.fields(Questions)][:8]


def prepared(work, mentions=None, languages=(), limit=0) -> Questions:
    mentions = mentions or open_artifact(work.mentions("mewsli"), "mentions")
    tokens = open_artifact(work.mention_tokens("mewsli"), "tokens")
    return read_prepared(mentions, tokens, open_rows(tokens, work.cache(tokens)).rows, languages, limit)


def test_a_prepared_split_and_its_tree_ask_the_same(untrained, tiny_world):
    first = prepared(untrained, languages=("en",))
    second = read_tree(tiny_world / "mewsli", ("en",), 0, open_windows(untrained), 0)
    for name in LISTS:
        assert getattr(first, name) == getattr(second, name), name
    np.testing.assert_array_equal(first.gold_Q, second.gold_Q)
    np.testing.assert_array_equal(first.rows.tokens_T, second.rows.tokens_T)
    assert first.inputs.keys() != second.inputs.keys()


def test_what_the_tree_says_of_a_mention_is_asked_along(untrained, tiny_world):
    questions = prepared(untrained, languages=("en",))
    header, *rows = (tiny_world / "mewsli" / "en" / "mentions.tsv").read_text().splitlines()
    rows = [dict(zip(header.split("\t"), row.split("\t"))) for row in rows]
    assert len(questions) == len(rows)
    by_id = {f"{row['docid']}:{row['position']}:{row['length']}": row for row in rows}
    for number, mention_id in enumerate(questions.mention_ids):
        row = by_id[mention_id]
        assert questions.documents[number] == row["docid"]
        assert questions.surface_forms[number] == row["mention"]
        assert questions.frequency_bins[number] == int(row["freq_bin"])
        assert questions.in_references[number] == {"True": 1, "False": 0}[row["qid_in_refs"]]
    assert set(questions.lemmas) == {""}


def test_mentions_of_an_older_program_lack_only_what_they_cannot_say(untrained, tmp_path):
    mentions = open_artifact(untrained.mentions("mewsli"), "mentions")
    folder = shutil.copytree(mentions.path, tmp_path / "old")
    for path in folder.glob("*.jsonl"):
        records = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        for record in records:
            for name in ("document", "in_references", "lemma"):
                del record[name]
        path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    now, old = prepared(untrained), prepared(untrained, dataclasses.replace(mentions, path=folder))
    for name in LISTS:
        assert (getattr(now, name) == getattr(old, name)) == (name != "in_references"), name
    assert set(old.in_references) == {-1} and len(set(old.documents)) > 1


def test_a_language_that_is_not_there_is_refused(untrained):
    with pytest.raises(MelError, match="has no language 'ja': choose --languages among en, ru, ar"):
        prepared(untrained, languages=("en", "ja"))
