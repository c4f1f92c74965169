"""Where an encoder begins: published weights, or random ones of a given size."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any, Literal

from absl import logging

from mel.config import flag
from mel.encoder import pretrained
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import init_params
from mel.text.foreign import read_tokenizer, tokenizer_folder
from mel.types import MelError

_RANDOM = re.compile(r"random:(\d+)x(\d+)x(\d+)")


@dataclasses.dataclass(frozen=True)
class StartConfig:
    """What is taken of the encoder that training starts from."""

    pooling: Literal["published", "pooler", "mean", "cls"] = flag(
        "published", "How an embedding is made of a row: as the encoder's folder says, or otherwise."
    )
    encoder_layers: int = flag(0, "Layers of a published encoder to keep, from the first on; 0 for all.")

    def __post_init__(self):
        if self.encoder_layers < 0:
            raise MelError(f"--encoder_layers={self.encoder_layers} must not be below 0.")


def initial_encoder(
    source: str, tokenizer: Mapping[str, Any], seed: int, config: StartConfig = StartConfig(), max_tokens: int = 0
) -> tuple[EncoderConfig, Any]:
    """The encoder that training starts from, its token table as large as the tokenizer's vocabulary.

    Args:
      source: a local folder or hub id, or "random:LAYERSxHIDDENxHEADS" with feed-forward layers
        four times as wide as hidden ones.
      tokenizer: the facts of the tokenizer that the shards were made with.
      seed: of random weights, and of the marker's row where the published table lacks it.
      config: what is taken of it.
      max_tokens: the longest rows that there are.

    Raises:
      MelError: `source` is neither, belongs to another tokenizer, or takes no rows so long.
    """
    layers, pooling = config.encoder_layers, None if config.pooling == "published" else config.pooling
    if match := _RANDOM.fullmatch(source):
        if layers:
            raise MelError(f"--encoder_layers={layers} is for a published encoder: --encoder={source} says its layers.")
        depth, hidden, heads = map(int, match.groups())
        encoder = EncoderConfig(
            vocab_size=tokenizer["vocab_size"], hidden_size=hidden, num_layers=depth, num_heads=heads,
            ffn_size=4 * hidden, pooling=pooling or "pooler", pad_id=tokenizer["pad_id"],
        )  # fmt: skip
        params = init_params(encoder, seed)
    elif source.startswith("random"):
        raise MelError(f"--encoder={source} names no size: write random:LAYERSxHIDDENxHEADS, as in random:2x128x4.")
    else:
        folder = pretrained.fetch(source)
        _require_tokenizer(folder, tokenizer)
        encoder, params = pretrained.load(folder, pooling, layers or None, tokenizer["pad_id"])
        encoder, params = _fit(encoder, params, tokenizer["vocab_size"], seed, source)
    if encoder.max_positions < max_tokens:
        raise MelError(
            f"--encoder={source} takes rows of {encoder.max_positions} tokens, and there are rows of {max_tokens}: "
            "prepare the data with fewer tokens a row."
        )
    return encoder, params


def _require_tokenizer(folder: pathlib.Path, tokenizer: Mapping[str, Any]) -> None:
    """Where the encoder's folder holds a tokenizer, it must be the one of the shards: a size says little."""
    inside = tokenizer_folder(folder)
    if inside is None:
        logging.warning("%s holds no tokenizer: whether it is the one of the shards cannot be checked.", folder)
        return
    theirs = read_tokenizer(inside, tokenizer["lower_case"]).facts()
    for name, what in (("vocabulary", "has another vocabulary"), ("behaviour", "turns texts into other tokens")):
        if theirs[name] != tokenizer[name]:
            raise MelError(
                f"The tokenizer in {inside} {what} than the one that the shards were made with: "
                f"prepare the data with --tokenizer={inside}."
            )


def _fit(config: EncoderConfig, params: Any, vocab_size: int, seed: int, source: str) -> tuple[EncoderConfig, Any]:
    """The encoder with as many tokens as the tokenizer, the last of which is the marker."""
    rows, tokens = config.vocab_size, vocab_size - 1
    if rows < tokens:
        raise MelError(
            f"--encoder={source} has {rows} token embeddings and the tokenizer {tokens} tokens "
            "and a marker: prepare the data with the tokenizer of this encoder."
        )
    if rows > vocab_size:
        logging.info("%s has %d token embeddings, of which the tokenizer uses the first %d.", source, rows, tokens)
        config, params = pretrained.resize_vocabulary(params, config, tokens, seed)
    return pretrained.resize_vocabulary(params, config, vocab_size, seed)
