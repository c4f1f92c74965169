"""A small encoder with rough weights, and folders of it to be changed."""

import pathlib

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy

from mel.encoder import pretrained
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import init_params

CONFIG = EncoderConfig(vocab_size=30, hidden_size=8, num_layers=2, num_heads=2, ffn_size=12, max_positions=16)
KERNELS = ("attention.self.query", "attention.self.key", "attention.self.value", "dense")


def rough_params(config=CONFIG):
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + generator.standard_normal(x.shape, np.float32), init_params(config, 0))


def write_transformer(folder: pathlib.Path, config=CONFIG) -> pathlib.Path:
    """A folder as `transformers` has them, with config.json and model.safetensors and no word of pooling."""
    pretrained.save(folder, config, rough_params(config), transformer="transformer")
    return folder / "transformer"


def read(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def write(folder, weights):
    safetensors.numpy.save_file(weights, folder / "model.safetensors")


def assert_same(found, expected):
    found, expected = (flax.traverse_util.flatten_dict(params) for params in (found, expected))
    assert list(found) == list(expected)
    for path in expected:
        assert found[path].dtype == np.float32
        np.testing.assert_array_equal(found[path], expected[path], err_msg=str(path))
