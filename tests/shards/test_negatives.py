"""Negatives read back are those that were published, for the same mentions only."""

import numpy as np
import pytest

from mel.artifacts import open_artifact, publish
from mel.shards.negatives import Negatives, open_negatives, publish_negatives
from mel.types import MelError


@pytest.fixture
def publish_tokens(tmp_path):
    def publish_tokens(name, content):
        with publish(tmp_path / name, "tokens") as draft:
            (draft / "rows").write_text(content)
        return open_artifact(tmp_path / name, "tokens")

    return publish_tokens


@pytest.fixture
def inputs(publish_tokens):
    return {"mention_tokens": publish_tokens("mentions", "m"), "entity_tokens": publish_tokens("entities", "e")}


def test_negatives_of_all_mentions_read_back_by_their_rows(inputs, tmp_path):
    rows_NK = np.arange(6).reshape(3, 2)
    artifact = publish_negatives(tmp_path / "negatives", Negatives(rows_NK), inputs, {"pool": 12})
    assert artifact.facts == {"pool": 12, "mentions": 3, "negatives_per_mention": 2}
    assert [file.name for file in sorted(artifact.path.glob("*.npy"))] == ["negatives.npy"]
    found = open_negatives(tmp_path / "negatives", inputs["mention_tokens"])
    assert found.rows_nK.dtype == np.int32 and found.mentions_n is None and (len(found), found.per_mention) == (3, 2)
    np.testing.assert_array_equal(found.rows_nK, rows_NK)
    assert found.of(np.array([2, 0])).tolist() == [[4, 5], [0, 1]]
    assert found.missing(np.array([2, 0, 3])).tolist() == [3]


def test_negatives_of_some_mentions_read_back_by_their_rows(inputs, tmp_path):
    some = Negatives(np.arange(6).reshape(3, 2), np.array([4, 7, 9]))
    artifact = publish_negatives(tmp_path / "negatives", some, inputs, {})
    assert artifact.facts == {"mentions": 3, "negatives_per_mention": 2}
    assert np.load(artifact / "mentions.npy").tolist() == [4, 7, 9]
    found = open_negatives(tmp_path / "negatives", inputs["mention_tokens"])
    assert found.of(np.array([9, 4, 9])).tolist() == [[4, 5], [0, 1], [4, 5]]
    assert found.missing(np.array([9, 5, 4, 10, 0])).tolist() == [5, 10, 0]
    with pytest.raises(KeyError, match="mention 5 has no negatives"):
        found.of(np.array([4, 5]))
    assert Negatives(np.zeros((0, 2)), np.zeros(0, int)).missing(np.array([3])).tolist() == [3]


def test_negatives_of_other_tokens_are_refused(inputs, tmp_path):
    publish_negatives(tmp_path / "negatives", Negatives(np.zeros((3, 2), np.int32)), inputs, {})
    with pytest.raises(MelError, match="was not made from the mention_tokens at .*entities"):
        open_negatives(tmp_path / "negatives", inputs["entity_tokens"])
