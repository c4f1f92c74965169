"""What bundles are made of where only their size counts: an encoder of random weights, and random unit vectors."""

from __future__ import annotations

import pathlib
import string
from collections.abc import Sequence

import numpy as np

from mel.artifacts import Artifact, Draft, allocate, open_artifact, publish
from mel.encoder.config import EncoderConfig
from mel.encoder.embed import Encoder
from mel.encoder.transformer import init_params
from mel.linking.bundle import write_encoder
from mel.retrieval.embeddings import EMBEDDINGS, KIND
from mel.text.foreign import read_tokenizer
from mel.text.tokenizer import MARKER

DIMENSION, LAYERS, HEADS, TOKENS = 128, 2, 2, 64
ROWS_AT_ONCE = 65_536


def publish_vectors(folder: pathlib.Path, rows: int) -> Artifact:
    """Publishes so many random unit vectors as `embeddings` in `folder`."""
    with publish(folder / "embeddings", KIND) as draft:
        vectors_ND = allocate(draft / EMBEDDINGS, (rows, DIMENSION), np.float32)
        for start in range(0, rows, ROWS_AT_ONCE):
            shape = vectors_ND[start : start + ROWS_AT_ONCE].shape
            block_nD = np.random.default_rng(start).standard_normal(shape, np.float32)
            vectors_ND[start : start + ROWS_AT_ONCE] = block_nD / np.linalg.norm(block_nD, axis=1, keepdims=True)
        vectors_ND.flush()
    return open_artifact(folder / "embeddings", KIND)


def begin(draft: Draft, folder: pathlib.Path, languages: Sequence[str]) -> None:
    """Writes the encoder of a bundle, whose tokenizer knows letters and digits only, and states the bundle's facts."""
    signs = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{sign}" for sign in signs)]
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("\n".join(pieces) + "\n")
    tokenizer = read_tokenizer(folder / "tokenizer")
    config = EncoderConfig(tokenizer.vocab_size, DIMENSION, LAYERS, HEADS, 512)
    draft.facts = {
        "round": -1, "step": 0, "encoder": config.to_json(), "marker": MARKER, "max_tokens": TOKENS,
        "title_in_window": False, "entity_tokens": TOKENS, "index": "exact", "languages": list(languages),
        "context_weight": 0.0, "logit_scale": 20.0, "fusion_weight": 0.01, "settings": {},
    }  # fmt: skip
    write_encoder(draft.path, tokenizer, Encoder(config, init_params(config, 0)), TOKENS)
