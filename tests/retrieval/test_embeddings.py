"""The encoder is a stand-in here: it embeds a row as the sum and the number of its tokens."""

import types

import numpy as np
import pytest

from mel.retrieval.embeddings import open_embeddings, publish_embeddings, publish_or_open
from mel.shards.rows import TokenRows
from mel.types import MelError

ROWS = TokenRows.from_rows([np.array([5, 6, 7]), np.array([1]), np.arange(1, 21), np.array([2, 2])])


class StandIn:
    """An encoder that counts its calls."""

    config = types.SimpleNamespace(hidden_size=2)

    def __init__(self, factor=1.0):
        self.factor, self.calls = factor, 0

    def embed(self, rows, what, out_ND):
        self.calls += 1
        for row_ids, tokens_nL in rows.by_width(64):
            real = row_ids >= 0
            out_ND[row_ids[real]] = self.factor * np.stack([tokens_nL.sum(1), (tokens_nL > 0).sum(1)], axis=1)[real]


def test_row_i_is_the_embedding_of_token_row_i(publish_tokens, tmp_path):
    checkpoint, tokens = publish_tokens("checkpoint", "c", "checkpoint"), publish_tokens("tokens", "t")
    artifact = publish_embeddings(tmp_path / "embeddings", checkpoint, tokens, StandIn(), ROWS)
    assert artifact.facts == {"rows": 4, "dimension": 2}
    assert artifact.inputs == {"checkpoint": checkpoint.digest, "tokens": tokens.digest}
    opened, embeddings_ND = open_embeddings(tmp_path / "embeddings", checkpoint, tokens)
    assert opened.digest == artifact.digest and isinstance(embeddings_ND, np.memmap)
    assert embeddings_ND.dtype == np.float32 and not embeddings_ND.flags.writeable
    np.testing.assert_array_equal(embeddings_ND, [[18, 3], [1, 1], [210, 20], [4, 2]])


def test_embeds_once(publish_tokens, tmp_path):
    checkpoint, tokens = publish_tokens("checkpoint", "c", "checkpoint"), publish_tokens("tokens", "t")
    encoder = StandIn(2.0)
    arguments = tmp_path / "embeddings", checkpoint, tokens, lambda: (encoder, ROWS)
    first, embeddings_ND = publish_or_open(*arguments)
    second, _ = publish_or_open(*arguments)
    assert encoder.calls == 1 and first.digest == second.digest
    np.testing.assert_array_equal(embeddings_ND[1], [2, 2])


def test_refuses_embeddings_of_another_checkpoint_or_other_tokens(publish_tokens, tmp_path):
    checkpoint, tokens = publish_tokens("checkpoint", "c", "checkpoint"), publish_tokens("tokens", "t")
    newer, others = publish_tokens("newer", "n", "checkpoint"), publish_tokens("others", "o")
    publish_embeddings(tmp_path / "embeddings", checkpoint, tokens, StandIn(), ROWS)
    with pytest.raises(MelError, match="was not made from the checkpoint at .*newer"):
        publish_or_open(tmp_path / "embeddings", newer, tokens, lambda: (StandIn(), ROWS))
    with pytest.raises(MelError, match="was not made from the tokens at .*others"):
        open_embeddings(tmp_path / "embeddings", checkpoint, others)
