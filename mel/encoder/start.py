"""Where an encoder begins: published weights, or random ones of a given size."""

from __future__ import annotations

import re
from typing import Any

from mel.encoder import pretrained
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import init_params
from mel.types import MelError

_RANDOM = re.compile(r"random:(\d+)x(\d+)x(\d+)")


def initial_encoder(source: str, vocab_size: int, seed: int) -> tuple[EncoderConfig, Any]:
    """The encoder that training starts from, its token table as large as the tokenizer's vocabulary.

    Args:
      source: a local folder or hub id, or "random:LAYERSxHIDDENxHEADS" with feed-forward layers
        four times as wide as hidden ones.
      vocab_size: of the tokenizer, the marker included.
      seed: of random weights, and of the marker's row where the published table lacks it.

    Raises:
      MelError: `source` is neither, or its token table belongs to another tokenizer.
    """
    if match := _RANDOM.fullmatch(source):
        layers, hidden, heads = map(int, match.groups())
        config = EncoderConfig(
            vocab_size=vocab_size, hidden_size=hidden, num_layers=layers, num_heads=heads, ffn_size=4 * hidden
        )
        return config, init_params(config, seed)
    if source.startswith("random"):
        raise MelError(f"--encoder={source} names no size: write random:LAYERSxHIDDENxHEADS, as in random:2x128x4.")
    config, params = pretrained.load(source)
    if config.vocab_size not in (vocab_size - 1, vocab_size):
        raise MelError(
            f"--encoder={source} has {config.vocab_size} token embeddings and the tokenizer {vocab_size - 1} tokens "
            "and a marker: prepare the data with the tokenizer of this encoder."
        )
    return pretrained.resize_vocabulary(params, config, vocab_size, seed)
