"""Which mentions are trained on: all that are usable, or an even sample of some languages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mel.artifacts import Artifact
from mel.shards.datasets import RowSet
from mel.shards.permutation import permuted
from mel.types import MelError

SELECTION = 2**32  # stands where `permuted` wants an epoch, and no training has so many


def require_mentions(tokens: Artifact) -> None:
    """Refuses to train on, or mine for, the mentions of a knowledge base that was prepared without any.

    Raises:
      MelError: there are none.
    """
    if not tokens.facts["rows"]:
        raise MelError(
            f"{tokens.path} holds no mentions, so nothing can be learned from them: prepare some with --mentions or "
            "--damuel in another --workdir, or use the encoder before training, which is --round=-1."
        )


def usable_mentions(
    mentions: RowSet, known: Sequence[str], languages: Sequence[str] = (), limit: int = 0, seed: int = 0
) -> np.ndarray:
    """The mentions to train on: gold in the KB, of these languages, at most so many.

    Args:
      mentions: N training mentions.
      known: the languages that `mentions.languages_N` counts.
      languages: those to train on, all if empty.
      limit: how many mentions, drawn evenly from all of these languages together; 0 for all. What a
        smaller limit chooses, a larger one chooses too.
      seed: of the draw.

    Returns:
      rows of `mentions`, int64, ascending.

    Raises:
      MelError: a language is not there, or there are fewer mentions than `limit`.
    """
    if missing := [language for language in languages if language not in known]:
        raise MelError(f"--train_languages={missing[0]} was not prepared: choose among {', '.join(known)}.")
    wanted_N = np.asarray(mentions.entity_rows_N) >= 0
    if languages:
        wanted_N &= np.isin(mentions.languages_N, [known.index(language) for language in languages])
    usable = np.flatnonzero(wanted_N)
    if not limit:
        return usable
    if not 0 < limit <= len(usable):
        raise MelError(f"--train_mentions={limit} is not between 0, for all, and the {len(usable)} that there are.")
    return usable[np.sort(permuted(np.arange(limit), len(usable), seed, SELECTION))]
