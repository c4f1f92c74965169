"""Mining in chunks, each published when it is done: a command that was ended goes on after the last one.

A chunk holds the K negatives of some mentions, as entity rows. Mentions of one length stand in one chunk, as far as
they fill it, so that hardly any padding is embedded.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from mel.artifacts import Artifact, discard, exists, open_artifact, publish
from mel.progress import Progress
from mel.types import MelError

KIND = "mined chunk"
ROWS = "negatives.npy"
MENTIONS_A_CHUNK = 2**15


def mine_chunks(
    folder: pathlib.Path,
    mentions_n: np.ndarray,
    lengths_n: np.ndarray,
    mine: Callable[[np.ndarray, Callable[[int], None]], np.ndarray],
    inputs: Mapping[str, Artifact],
    settings: Mapping[str, Any],
) -> np.ndarray:
    """The negatives of n mentions, in the order of `mentions_n`; int32 [n, K].

    Args:
      folder: where chunks stand; the caller holds a claim on what is made of them, and deletes it then.
      mentions_n: the rows of the mentions.
      lengths_n: how long they are.
      mine: the negatives of some of them, each independent of the others; it tells a counter how many are done.
      inputs: what they are made from.
      settings: how.
    """
    order_n = np.argsort(lengths_n, kind="stable")
    parts = [order_n[start : start + MENTIONS_A_CHUNK] for start in range(0, len(order_n), MENTIONS_A_CHUNK)]
    facts = [{"settings": dict(settings), "mentions": _digest(mentions_n[part])} for part in parts]
    paths = [folder / f"{number:05d}" for number in range(len(parts))]
    found = [_read(path, inputs, stated) for path, stated in zip(paths, facts, strict=True)]
    done = sum(len(part) for part, rows in zip(parts, found, strict=True) if rows is not None)
    if done:
        logging.info("Going on after %d of %d mentions.", done, len(mentions_n))
    progress, rows_nK = Progress("mining", len(mentions_n), "mentions", done), np.empty((len(mentions_n), 0), np.int32)
    for path, part, stated, rows_cK in zip(paths, parts, facts, found, strict=True):
        if rows_cK is None:
            rows_cK = mine(mentions_n[part], progress.add)
            with publish(path, KIND) as draft:
                for name, artifact in inputs.items():
                    draft.reads(name, artifact)
                draft.facts = stated
                np.save(draft / ROWS, rows_cK)
        if not rows_nK.size:
            rows_nK = np.empty((len(mentions_n), rows_cK.shape[1]), np.int32)
        rows_nK[part] = rows_cK
    progress.close()
    return rows_nK


def _digest(rows_c: np.ndarray) -> str:
    return hashlib.sha256(rows_c.astype(np.int64).tobytes()).hexdigest()


def _read(path: pathlib.Path, inputs: Mapping[str, Artifact], stated: Mapping[str, Any]) -> np.ndarray | None:
    """What stands in a chunk; None where it has to be mined, after deleting one that is damaged or something else's."""
    if not exists(path):
        discard(path)
        return None
    try:
        chunk = open_artifact(path, KIND, inputs)
        chunk.settle()
        if chunk.facts == stated:
            return np.load(chunk / ROWS)
    except MelError as error:
        logging.warning("%s That is done now.", error)
    discard(path)
    return None
