"""Token rows to unit vectors on disk."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from mel.artifacts import Artifact, allocate, exists, open_artifact, publish
from mel.encoder.backend import tokens_at_once
from mel.encoder.config import EncoderConfig
from mel.encoder.embed import embed_rows
from mel.progress import Progress
from mel.shards.rows import TokenRows

KIND = "embeddings"
EMBEDDINGS = "embeddings.npy"


def publish_embeddings(
    path: str | os.PathLike,
    checkpoint: Artifact,
    tokens: Artifact,
    encoder_config: EncoderConfig,
    params: Any,
    rows: TokenRows,
) -> Artifact:
    """Embeds token rows and publishes float32 [N, D], row i for token row i.

    Args:
      path: where.
      checkpoint: what `encoder_config` and `params` come from.
      tokens: what `rows` come from.
      encoder_config: the encoder.
      params: its weights.
      rows: N rows of token ids.

    Raises:
      MelError: an embedding is not finite.
    """
    with publish(path, KIND) as draft:
        draft.reads("checkpoint", checkpoint)
        draft.reads("tokens", tokens)
        draft.facts = {"rows": len(rows), "dimension": encoder_config.hidden_size}
        shape = len(rows), encoder_config.hidden_size
        embeddings_ND = allocate(draft / EMBEDDINGS, shape, np.float32)
        progress = Progress(f"embedding {tokens.path.parent.name}/{tokens.path.name}", len(rows), "rows")
        embed_rows(encoder_config, params, rows.by_width(tokens_at_once()), embeddings_ND, progress.add)
        progress.close()
        embeddings_ND.flush()
    return open_artifact(path, KIND)


def open_embeddings(path: str | os.PathLike, checkpoint: Artifact, tokens: Artifact) -> tuple[Artifact, np.ndarray]:
    """Opens published embeddings; the array is mapped into memory and read-only.

    Raises:
      MelError: there are none, they are damaged, or were made from another checkpoint or other tokens.
    """
    artifact = open_artifact(path, KIND, {"checkpoint": checkpoint, "tokens": tokens})
    return artifact, np.load(artifact / EMBEDDINGS, mmap_mode="r")


def publish_or_open(
    path: str | os.PathLike,
    checkpoint: Artifact,
    tokens: Artifact,
    encoder_config: EncoderConfig,
    params: Any,
    rows: TokenRows,
) -> tuple[Artifact, np.ndarray]:
    """Opens the embeddings at `path`, after publishing them where they are not; see both."""
    if not exists(path):
        publish_embeddings(path, checkpoint, tokens, encoder_config, params, rows)
    return open_embeddings(path, checkpoint, tokens)
