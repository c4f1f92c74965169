"""Which mentions are trained on, all that are usable or an even sample of some languages, and in which order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mel.artifacts import Artifact
from mel.corpora.names import check_distinct
from mel.shards.datasets import RowSet
from mel.shards.permutation import permuted
from mel.types import MelError

SELECTION = 2**32  # stands where `permuted` wants an epoch, and no training has so many
MENTIONS_AT_ONCE = 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class MentionOrder:
    """Which mentions batch n draws: a function of the seed and n.

    Each mention occurs once an epoch, whose incomplete last batch is left out.

    Attributes:
      mentions_n: the rows of the mentions to draw from.
      batch_size: mentions a batch.
      seed: of the order.

    Raises:
      MelError: there are fewer mentions than a batch takes.
    """

    mentions_n: np.ndarray
    batch_size: int
    seed: int

    def __post_init__(self):
        if not 0 < self.batch_size <= len(self.mentions_n):
            usable = f"{len(self.mentions_n)} mentions whose gold is in the KB"
            raise MelError(f"--batch_size={self.batch_size} is not between 1 and the {usable}.")

    @property
    def batches_an_epoch(self) -> int:
        return len(self.mentions_n) // self.batch_size

    def batch(self, n: int) -> np.ndarray:
        """The rows of the mentions of batch n, in its order."""
        epoch, batch = divmod(n, self.batches_an_epoch)
        first = batch * self.batch_size
        return self._drawn(first, first + self.batch_size, epoch)

    def asked(self, first: int, last: int) -> np.ndarray:
        """The mentions of the batches first .. last - 1, each once, ascending; all of them for an epoch or more."""
        if last - first >= self.batches_an_epoch:
            return np.sort(self.mentions_n)
        drawn = []
        while first < last:
            epoch, batch = divmod(first, self.batches_an_epoch)
            batches = min(last - first, self.batches_an_epoch - batch)
            ends = batch * self.batch_size, (batch + batches) * self.batch_size
            for start in range(*ends, MENTIONS_AT_ONCE):
                drawn.append(self._drawn(start, min(start + MENTIONS_AT_ONCE, ends[1]), epoch))
            first += batches
        return np.unique(np.concatenate(drawn)) if drawn else self.mentions_n[:0]

    def _drawn(self, first: int, last: int, epoch: int) -> np.ndarray:
        return self.mentions_n[permuted(np.arange(first, last), len(self.mentions_n), self.seed, epoch)]


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


def read_mixture(languages: Sequence[str]) -> dict[str, int]:
    """How many mentions of each language are trained on, 0 for all, from "LANGUAGE" or "LANGUAGE:COUNT" of each.

    Raises:
      MelError: a count is no whole number above 0, or a language occurs twice.
    """
    check_distinct("train_languages", [value.partition(":")[0] for value in languages])
    mixture: dict[str, int] = {}
    for value in languages:
        language, colon, count = value.partition(":")
        if colon and not (count.isdecimal() and int(count)):
            raise MelError(f"--train_languages={value} asks for no number of mentions: write {language}:1000, say.")
        mixture[language] = int(count or 0)
    return mixture


def usable_mentions(
    mentions: RowSet, known: Sequence[str], languages: Sequence[str] = (), limit: int = 0, seed: int = 0
) -> np.ndarray:
    """The mentions to train on: gold in the KB, of these languages, at most so many.

    Args:
      mentions: N training mentions.
      known: the languages that `mentions.languages_N` counts.
      languages: those to train on, all if empty, each with a count or without; see `read_mixture`.
      limit: how many mentions, drawn evenly from all of these together; 0 for all. What a smaller limit or count
        chooses, a larger one chooses too.
      seed: of the draw.

    Returns:
      rows of `mentions`, int64, ascending.

    Raises:
      MelError: a language is not there, or there are fewer mentions of it than its count, or of all than `limit`.
    """
    mixture = read_mixture(languages)
    if missing := [language for language in mixture if language not in known]:
        raise MelError(f"--train_languages={missing[0]} was not prepared: choose among {', '.join(known)}.")
    wanted_N = np.asarray(mentions.entity_rows_N) >= 0
    if mixture:
        wanted_N &= np.isin(mentions.languages_N, [known.index(language) for language in mixture])
    for language, count in mixture.items():
        if count:
            of_language_n = np.flatnonzero(wanted_N & (np.asarray(mentions.languages_N) == known.index(language)))
            if count > len(of_language_n):
                raise MelError(
                    f"--train_languages={language}:{count} is above the {len(of_language_n)} mentions that there are."
                )
            wanted_N[of_language_n] = False
            wanted_N[_sample(of_language_n, count, seed)] = True
    usable = np.flatnonzero(wanted_N)
    if not limit:
        return usable
    if not 0 < limit <= len(usable):
        raise MelError(f"--train_mentions={limit} is not between 0, for all, and the {len(usable)} that there are.")
    return np.sort(_sample(usable, limit, seed))


def _sample(rows_n: np.ndarray, count: int, seed: int) -> np.ndarray:
    return rows_n[permuted(np.arange(count), len(rows_n), seed, SELECTION)]
