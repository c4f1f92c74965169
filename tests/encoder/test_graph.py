"""The ONNX graph gives our embeddings in onnxruntime, for every pooling and kind, whatever the padding."""

import importlib.util

import jax
import numpy as np
import pytest

from mel.encoder import graph, pretrained
from mel.encoder.config import EncoderConfig
from mel.types import MelError
from tests.encoder.folders import rough_params

SIZES = dict(vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, ffn_size=32, max_positions=24)
XLM_R = dict(model_type="xlm-roberta", type_vocab_size=1, layer_norm_eps=1e-5, pad_id=1)
CASES = [(kind, pooling) for kind in ({}, XLM_R) for pooling in ("pooler", "mean", "cls")]
TOKENS_NL = np.array([[2, 7, 9, 11, 3], [2, 8, 3, 0, 0]])


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].get('model_type', 'bert')} {case[1]}")
def written(request, tmp_path):
    """A graph, its encoder, rows of tokens, and what gives the ids of its tokenizer."""
    pytest.importorskip("onnx", reason="needs the onnx extra")
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    kind, pooling = request.param
    return write(EncoderConfig(**SIZES, **kind, pooling=pooling), tmp_path)


def write(config, folder):
    params = jax.tree.map(lambda x: np.asarray(0.3 * x), rough_params(config))
    pretrained.save(folder, config, params, transformer="encoder")
    graph.write_onnx(folder / "encoder.onnx", config, folder / "encoder")

    def row_ids(tokens):  # in memory padding has id 0, and what has id 0 in files has that of padding
        return np.where(tokens == 0, config.pad_id, np.where(tokens == config.pad_id, 0, tokens))

    return folder / "encoder.onnx", config, params, TOKENS_NL, row_ids


def test_it_gives_the_same_embeddings(written):
    assert 0 <= graph.check_onnx(*written) <= 1e-5


def test_other_embeddings_are_noticed(written):
    file, config, params, tokens_NL, row_ids = written
    changed = jax.tree.map(lambda x: x * 1.01, params)
    with pytest.raises(MelError, match="embeddings that differ by .*, more than 1e-05"):
        graph.check_onnx(file, config, changed, tokens_NL, row_ids)
    with pytest.raises(MelError, match="embeddings that differ by"):
        graph.check_onnx(file, config, params, tokens_NL, lambda tokens: np.maximum(row_ids(tokens) - 1, 0))


def test_its_opset_is_the_one_that_is_stated(written):
    import onnx

    model = onnx.load(written[0])
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", graph.OPSET)]
    assert [value.name for value in model.graph.input] == ["input_ids", "attention_mask"]
    assert [value.name for value in model.graph.output] == ["embeddings"]


def test_weights_that_are_too_many_for_a_file_stand_beside_it(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    monkeypatch.setattr(graph, "MOST_BYTES", 1000)
    written = write(EncoderConfig(**SIZES), tmp_path)
    assert (tmp_path / "encoder.onnx.data").stat().st_size > (tmp_path / "encoder.onnx").stat().st_size
    assert 0 <= graph.check_onnx(*written) <= 1e-5


def test_without_the_packages_it_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MelError, match=r'--onnx needs the package onnx: pip install "mel-linker\[onnx\]"'):
        graph.require_onnx()
