"""Training starts from an encoder that fits the shards, or from none."""

import dataclasses

import numpy as np
import pytest

from mel.encoder import pretrained, start
from mel.encoder.config import EncoderConfig
from mel.encoder.start import StartConfig, initial_encoder
from mel.text.foreign import read_tokenizer
from mel.types import MelError
from tests.encoder.folders import assert_same, rough_params
from tests.text import vocabularies

SIZES = dict(hidden_size=8, num_layers=2, num_heads=2, ffn_size=12, max_positions=16)


@pytest.fixture
def facts(tmp_path):
    """Of a tokenizer that pads with id 1, in the folder `words`."""
    return read_tokenizer(vocabularies.write_tokenizer(tmp_path / "words", vocabularies.metaspace())).facts()


def write_encoder(folder, facts, rows, **changes):
    """An encoder with `rows` tokens more than the tokenizer without its marker, and no tokenizer."""
    config = EncoderConfig(**SIZES, vocab_size=facts["vocab_size"] - 1 + rows, pad_id=facts["pad_id"])
    config = dataclasses.replace(config, **changes)
    pretrained.save(folder, config, rough_params(config))
    return config, rough_params(config)


def table(params):
    return np.asarray(params["embeddings"]["word"]["embedding"])


def test_a_random_encoder_by_its_size(facts):
    config, params = initial_encoder("random:3x24x4", facts, seed=7)
    assert config == EncoderConfig(
        vocab_size=facts["vocab_size"], hidden_size=24, num_layers=3, num_heads=4, ffn_size=96, pad_id=1
    )
    assert_same(params, initial_encoder("random:3x24x4", facts, seed=7)[1])
    assert initial_encoder("random:3x24x4", facts, seed=7, config=StartConfig(pooling="mean"))[0].pooling == "mean"
    with pytest.raises(MelError, match="--encoder=random:big names no size"):
        initial_encoder("random:big", facts, seed=7)
    with pytest.raises(MelError, match="--encoder_layers=2 is for a published encoder"):
        initial_encoder("random:3x24x4", facts, seed=7, config=StartConfig(encoder_layers=2))


@pytest.mark.parametrize("rows", [0, 1, 2, 35])
def test_the_token_table_becomes_as_large_as_the_tokenizer(facts, tmp_path, rows, monkeypatch):
    said = []
    monkeypatch.setattr(start.logging, "info", lambda message, *values: said.append(message % values))
    _, before = write_encoder(tmp_path / "encoder", facts, rows)
    config, params = initial_encoder(str(tmp_path / "encoder"), facts, seed=3)
    tokens = facts["vocab_size"] - 1
    assert config.vocab_size == len(table(params)) == tokens + 1
    np.testing.assert_array_equal(table(params)[:tokens], table(before)[:tokens])
    if rows == 1:  # the marker's row is there: the encoder was exported here
        np.testing.assert_array_equal(table(params)[tokens], table(before)[tokens])
    else:
        np.testing.assert_allclose(table(params)[tokens], table(before)[:tokens].mean(0), atol=0.05)
    assert (rows > 1) == any(f"has {tokens + rows} token embeddings" in sentence for sentence in said)


def test_a_table_that_is_too_small_is_refused(facts, tmp_path):
    write_encoder(tmp_path / "encoder", facts, rows=-1)
    with pytest.raises(MelError, match="prepare the data with the tokenizer of this encoder"):
        initial_encoder(str(tmp_path / "encoder"), facts, seed=3)


def test_padding_is_the_tokenizers_whatever_a_bert_says(facts, tmp_path):
    _, before = write_encoder(tmp_path / "encoder", facts, rows=0, pad_id=0)
    config, params = initial_encoder(str(tmp_path / "encoder"), facts, seed=3)
    assert config.pad_id == 1
    np.testing.assert_array_equal(table(params)[[0, 1, 2]], table(before)[[1, 0, 2]])


def test_another_tokenizer_is_refused_however_large_it_is(facts, tmp_path):
    write_encoder(tmp_path / "encoder", facts, rows=0)
    folder = str(tmp_path / "encoder")
    theirs = vocabularies.metaspace()
    vocabularies.write_tokenizer(tmp_path / "encoder", theirs)
    assert initial_encoder(folder, facts, seed=3)[0].vocab_size == facts["vocab_size"]
    theirs.normalizer = None
    vocabularies.write_tokenizer(tmp_path / "encoder", theirs)
    with pytest.raises(MelError, match=f"in {folder} turns texts into other tokens .*--tokenizer={folder}"):
        initial_encoder(folder, facts, seed=3)
    vocabularies.write_tokenizer(tmp_path / "encoder", vocabularies.byte_level())
    with pytest.raises(MelError, match="has another vocabulary"):
        initial_encoder(folder, facts, seed=3)


def test_the_case_that_was_asked_for_is_no_other_tokenizer(tmp_path):
    folder = vocabularies.write_words(tmp_path / "encoder", do_lower_case=False)
    facts = read_tokenizer(folder, lower_case=True).facts()
    write_encoder(folder, facts, rows=0)
    assert initial_encoder(str(folder), facts, seed=0)[0].vocab_size == facts["vocab_size"]


def test_an_encoder_that_was_exported_goes_on(facts, tmp_path):
    config, params = write_encoder(tmp_path / "bundle", facts, rows=1)
    read_tokenizer(tmp_path / "words").save(tmp_path / "bundle")
    again = initial_encoder(str(tmp_path / "bundle"), facts, seed=0)
    assert again[0] == config
    assert_same(again[1], params)


def test_rows_longer_than_the_positions_are_refused(facts, tmp_path):
    write_encoder(tmp_path / "encoder", facts, rows=0)
    initial_encoder(str(tmp_path / "encoder"), facts, seed=0, max_tokens=16)
    with pytest.raises(
        MelError, match="takes rows of 16 tokens, and there are rows of 17: prepare the data with fewer"
    ):
        initial_encoder(str(tmp_path / "encoder"), facts, seed=0, max_tokens=17)


def test_pooling_and_layers_reach_the_encoder(facts, tmp_path):
    write_encoder(tmp_path / "encoder", facts, rows=0)
    config, _ = initial_encoder(str(tmp_path / "encoder"), facts, seed=0, config=StartConfig("cls", 1))
    assert (config.pooling, config.num_layers) == ("cls", 1)
