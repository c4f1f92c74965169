"""The ONNX graph gives our embeddings in onnxruntime, for every pooling and kind, whatever the padding."""

import importlib.util

import jax
import numpy as np
import pytest

from mel.encoder import graph, pretrained
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import BertEncoder
from mel.types import MelError
from tests.encoder.folders import rough_params

SIZES = dict(vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, ffn_size=32, max_positions=24)
XLM_R = dict(model_type="xlm-roberta", type_vocab_size=1, layer_norm_eps=1e-5, pad_id=1)
CASES = [(kind, pooling) for kind in ({}, XLM_R) for pooling in ("pooler", "mean", "cls")]
IDS_NL = np.array([[2, 7, 9, 11, 3], [2, 8, 3, 0, 0]])


def embedded(config, ids_NL):
    params = jax.tree.map(lambda x: np.asarray(0.3 * x), rough_params(config))
    # In memory padding has id 0, and what has id 0 in files has that of padding.
    exchanged_NL = np.where(ids_NL == 0, config.pad_id, np.where(ids_NL == config.pad_id, 0, ids_NL))
    with jax.default_matmul_precision("highest"):
        return params, np.asarray(BertEncoder(config).apply({"params": params}, exchanged_NL))


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].get('model_type', 'bert')} {case[1]}")
def written(request, tmp_path):
    """A graph, the ids of its tokenizer, and the embeddings that it should give."""
    pytest.importorskip("onnx", reason="needs the onnx extra")
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    kind, pooling = request.param
    config = EncoderConfig(**SIZES, **kind, pooling=pooling)
    ids_NL = np.where(IDS_NL == 0, config.pad_id, IDS_NL)
    params, expected_ND = embedded(config, ids_NL)
    pretrained.save(tmp_path, config, params, transformer="encoder")
    graph.write_onnx(tmp_path / "encoder.onnx", config, tmp_path / "encoder")
    return tmp_path / "encoder.onnx", ids_NL, (IDS_NL != 0), expected_ND


def test_it_gives_the_same_embeddings(written):
    graph.check_onnx(*written)


def test_other_embeddings_are_noticed(written):
    file, ids_NL, mask_NL, expected_ND = written
    with pytest.raises(MelError, match="embeddings that differ by .*, more than 1e-05"):
        graph.check_onnx(file, ids_NL, mask_NL, expected_ND + 1e-4)
    with pytest.raises(MelError, match="embeddings that differ by"):
        graph.check_onnx(file, ids_NL, np.ones_like(mask_NL), expected_ND)


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
    config = EncoderConfig(**SIZES)
    params, expected_ND = embedded(config, IDS_NL)
    pretrained.save(tmp_path, config, params, transformer="encoder")
    graph.write_onnx(tmp_path / "encoder.onnx", config, tmp_path / "encoder")
    assert (tmp_path / "encoder.onnx.data").stat().st_size > (tmp_path / "encoder.onnx").stat().st_size
    graph.check_onnx(tmp_path / "encoder.onnx", IDS_NL, IDS_NL != 0, expected_ND)


def test_without_the_packages_it_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MelError, match=r'--onnx needs the package onnx: pip install "mel-linker\[onnx\]"'):
        graph.require_onnx()
