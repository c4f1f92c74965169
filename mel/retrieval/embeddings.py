"""Token rows to unit vectors on disk."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from mel.artifacts import Artifact, allocate, exists, open_artifact, publish
from mel.encoder.embed import Encoder
from mel.shards.rows import TokenRows

KIND = "embeddings"
EMBEDDINGS = "embeddings.npy"


def publish_embeddings(
    path: str | os.PathLike, checkpoint: Artifact, tokens: Artifact, encoder: Encoder, rows: TokenRows
) -> Artifact:
    """Embeds token rows and publishes float32 [N, D], row i for token row i.

    Args:
      path: where.
      checkpoint: what the encoder comes from.
      tokens: what `rows` come from.
      encoder: with its weights.
      rows: N rows of token ids.

    Raises:
      MelError: an embedding is not finite.
    """
    with publish(path, KIND) as draft:
        draft.reads("checkpoint", checkpoint)
        draft.reads("tokens", tokens)
        draft.facts = {"rows": len(rows), "dimension": encoder.config.hidden_size}
        embeddings_ND = allocate(draft / EMBEDDINGS, (len(rows), encoder.config.hidden_size), np.float32)
        encoder.embed(rows, f"{tokens.path.parent.name}/{tokens.path.name}", embeddings_ND)
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
    path: str | os.PathLike, checkpoint: Artifact, tokens: Artifact, parts: Callable[[], tuple[Encoder, TokenRows]]
) -> tuple[Artifact, np.ndarray]:
    """Opens the embeddings at `path`, after publishing them where they are not; see both.

    `parts` opens the encoder and the rows, which is done only where something is embedded.
    """
    if not exists(path):
        publish_embeddings(path, checkpoint, tokens, *parts())
    return open_embeddings(path, checkpoint, tokens)
