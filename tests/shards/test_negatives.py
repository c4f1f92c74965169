"""Negatives read back are those that were published, for the same mentions only."""

import numpy as np
import pytest

from mel.artifacts import open_artifact, publish
from mel.shards.negatives import open_negatives, publish_negatives
from mel.types import MelError


@pytest.fixture
def publish_tokens(tmp_path):
    def publish_tokens(name, content):
        with publish(tmp_path / name, "tokens") as draft:
            (draft / "rows").write_text(content)
        return open_artifact(tmp_path / name, "tokens")

    return publish_tokens


def test_negatives_read_back_as_a_map_of_row_ids(publish_tokens, tmp_path):
    mention_tokens, entity_tokens = publish_tokens("mentions", "m"), publish_tokens("entities", "e")
    inputs = {"mention_tokens": mention_tokens, "entity_tokens": entity_tokens}
    rows_NK = np.arange(6).reshape(3, 2)
    artifact = publish_negatives(tmp_path / "negatives", rows_NK, inputs, {"pool": 12})
    assert artifact.facts == {"pool": 12, "mentions": 3, "negatives_per_mention": 2}
    found_NK = open_negatives(tmp_path / "negatives", mention_tokens)
    assert found_NK.dtype == np.int32 and isinstance(found_NK, np.memmap)
    np.testing.assert_array_equal(found_NK, rows_NK)


def test_negatives_of_other_tokens_are_refused(publish_tokens, tmp_path):
    mention_tokens, entity_tokens = publish_tokens("mentions", "m"), publish_tokens("entities", "e")
    inputs = {"mention_tokens": mention_tokens, "entity_tokens": entity_tokens}
    publish_negatives(tmp_path / "negatives", np.zeros((3, 2), np.int32), inputs, {})
    with pytest.raises(MelError, match="was not made from the mention_tokens at .*entities"):
        open_negatives(tmp_path / "negatives", entity_tokens)
