"""The encoder as an ONNX graph, for programs that have neither JAX nor PyTorch.

It takes `input_ids` and `attention_mask`, int64 [rows, tokens], as the tokenizer in the encoder's folder gives them,
and gives `embeddings`, float32 [rows, size], pooled and of unit length. The onnx package is needed to write it
and onnxruntime to try it: the extra `onnx` has both.
"""

from __future__ import annotations

import importlib.util
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import PAD_ID, BertEncoder, Params
from mel.encoder.weights import encoder_weights, read_weights, weight_file
from mel.types import MelError

OPSET, IR_VERSION = 17, 8  # the first that knows layer normalisation, and the format of its time
MOST_BYTES = 1 << 30  # of one file: Protobuf takes 2 GiB
TOLERANCE = 1e-5


def require_onnx() -> None:
    """Refuses where the packages are missing.

    Raises:
      MelError: one is.
    """
    if missing := [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]:
        raise MelError(f'--onnx needs the package {missing[0]}: pip install "mel-linker[onnx]".')


def write_onnx(file: pathlib.Path, config: EncoderConfig, transformer: pathlib.Path) -> None:
    """Writes the graph of an encoder, its weights in a file beside it where they are too many for one.

    Args:
      file: where.
      config: the encoder's.
      transformer: the folder that `mel.encoder.pretrained` saved it into.
    """
    import onnx

    weights = weight_file(transformer)
    model = _model(config, encoder_weights(read_weights(weights), weights))
    large = model.ByteSize() > MOST_BYTES
    onnx.save(model, file, save_as_external_data=large, location=f"{file.name}.data" if large else None)
    onnx.checker.check_model(file)


def check_onnx(
    file: pathlib.Path, config: EncoderConfig, params: Params, tokens_NL: np.ndarray,
    row_ids: Callable[[np.ndarray], np.ndarray],
) -> float:  # fmt: skip
    """Runs a graph in onnxruntime, beside the encoder that it was made of.

    Args:
      file: the graph.
      config, params: the encoder.
      tokens_NL: rows of tokens, 0 where padded.
      row_ids: says which ids the tokenizer has for them.

    Returns:
      by how much embeddings differ at most.

    Raises:
      MelError: an embedding differs by more than `TOLERANCE`.
    """
    import onnxruntime

    with jax.default_matmul_precision("highest"):
        expected_ND = np.asarray(BertEncoder(config).apply({"params": params}, tokens_NL))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    ids_NL, mask_NL = row_ids(tokens_NL).astype(np.int64), (tokens_NL != PAD_ID).astype(np.int64)
    found_ND = session.run(["embeddings"], {"input_ids": ids_NL, "attention_mask": mask_NL})[0]
    difference = float(np.abs(found_ND - expected_ND).max())
    if not difference <= TOLERANCE:
        raise MelError(
            f"The ONNX graph gives embeddings that differ by {difference:.1g}, more than {TOLERANCE:g}: export without "
            "--onnx, and use the folder in transformers or sentence-transformers."
        )
    return difference


class _Graph:
    """Nodes and weights as they are added."""

    def __init__(self):
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def weight(self, values: np.ndarray) -> str:
        """The name of an array that the graph holds."""
        from onnx import numpy_helper

        name = f"w{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def number(self, value: float) -> str:
        return self.weight(np.array(value, np.float32))

    def ints(self, *values: int) -> str:
        return self.weight(np.array(values, np.int64))

    def __call__(self, operation: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Adds a node, and returns the name of what it gives."""
        from onnx import helper

        name = name or f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name], **attributes))
        return name


def _model(config: EncoderConfig, weights: Mapping[str, np.ndarray]) -> Any:
    from onnx import TensorProto, helper

    graph = _Graph()
    hidden = _embeddings(graph, config, weights)
    mask = graph("Cast", "attention_mask", to=TensorProto.FLOAT)
    masked = graph("Mul", graph("Sub", graph.number(1), mask), graph.number(float(np.finfo(np.float32).min)))
    added = graph("Unsqueeze", masked, graph.ints(1, 2))
    for layer in range(config.num_layers):
        hidden = _layer(graph, config, weights, f"encoder.layer.{layer}", hidden, added)
    pooled = _pooled(graph, config, weights, hidden, mask)
    length = graph("ReduceL2", pooled, axes=[-1], keepdims=1)
    graph("Div", pooled, graph("Max", length, graph.number(1e-12)), name="embeddings")
    axes = ["rows", "tokens"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["rows", config.hidden_size])]
    made = helper.make_graph(graph.nodes, "encoder", inputs, outputs, graph.initializers)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(made, opset_imports=[opset], ir_version=IR_VERSION, producer_name="mel")


def _embeddings(graph: _Graph, config: EncoderConfig, weights: Mapping[str, np.ndarray]) -> str:
    table, position, of_type = (
        weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    shape = graph("Shape", "input_ids", start=1, end=2)
    length = graph("Squeeze", shape)
    zero, one = (graph.weight(np.array(value, np.int64)) for value in (0, 1))
    places = graph("Range", zero, length, one)
    # Positions are numbered from an offset on, and every text has token type 0.
    at_places = graph("Gather", graph.weight(position[config.position_offset :] + of_type[0]), places)
    summed = graph("Add", graph("Gather", graph.weight(table), "input_ids"), at_places)
    return _norm(graph, config, weights, "embeddings.LayerNorm", summed)


def _layer(
    graph: _Graph, config: EncoderConfig, weights: Mapping[str, np.ndarray], name: str, hidden: str, added: str
) -> str:
    heads, size = config.num_heads, config.hidden_size
    split, joined = graph.ints(0, 0, heads, size // heads), graph.ints(0, 0, size)

    def project(part: str, order: list[int]) -> str:
        states = _dense(graph, weights, f"{name}.attention.self.{part}", hidden)
        return graph("Transpose", graph("Reshape", states, split), perm=order)

    query, key, value = project("query", [0, 2, 1, 3]), project("key", [0, 2, 3, 1]), project("value", [0, 2, 1, 3])
    scaled = graph("Mul", query, graph.number(1 / math.sqrt(size // heads)))
    shares = graph("Softmax", graph("Add", graph("MatMul", scaled, key), added), axis=-1)
    mixed = graph("Transpose", graph("MatMul", shares, value), perm=[0, 2, 1, 3])
    attended = _dense(graph, weights, f"{name}.attention.output.dense", graph("Reshape", mixed, joined))
    middle = _norm(graph, config, weights, f"{name}.attention.output.LayerNorm", graph("Add", hidden, attended))
    inner = _dense(graph, weights, f"{name}.intermediate.dense", middle)
    erf = graph("Erf", graph("Mul", inner, graph.number(1 / math.sqrt(2))))
    gelu = graph("Mul", graph("Mul", inner, graph.number(0.5)), graph("Add", erf, graph.number(1)))
    outer = _dense(graph, weights, f"{name}.output.dense", gelu)
    return _norm(graph, config, weights, f"{name}.output.LayerNorm", graph("Add", middle, outer))


def _pooled(graph: _Graph, config: EncoderConfig, weights: Mapping[str, np.ndarray], hidden: str, mask: str) -> str:
    if config.pooling == "mean":
        kept = graph("Unsqueeze", mask, graph.ints(2))
        total = graph("ReduceSum", graph("Mul", hidden, kept), graph.ints(1), keepdims=0)
        count = graph("ReduceSum", mask, graph.ints(1), keepdims=1)
        return graph("Div", total, graph("Max", count, graph.number(1)))
    first = graph("Gather", hidden, graph.weight(np.array(0, np.int64)), axis=1)
    return first if config.pooling == "cls" else graph("Tanh", _dense(graph, weights, "pooler.dense", first))


def _dense(graph: _Graph, weights: Mapping[str, np.ndarray], name: str, states: str) -> str:
    product = graph("MatMul", states, graph.weight(weights[f"{name}.weight"].T))
    return graph("Add", product, graph.weight(weights[f"{name}.bias"]))


def _norm(graph: _Graph, config: EncoderConfig, weights: Mapping[str, np.ndarray], name: str, states: str) -> str:
    scale, bias = (graph.weight(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
    return graph("LayerNormalization", states, scale, bias, axis=-1, epsilon=config.layer_norm_eps)
