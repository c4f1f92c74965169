"""TREC files, which trec_eval, pytrec_eval and ranx score: a run of candidates and the golds (qrels).

Scorers order candidates by score, single precision, and equal scores by name. So that they see our
order, a score that is not below the one before it is written one step of single precision below it.
They leave out mentions without candidates unless told otherwise: `trec_eval -c`.

A file whose name ends in .gz is compressed; a run of 24,000 mentions is 117 MB otherwise.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from mel.corpora.strings import Strings
from mel.evaluation.ranking import Ranking
from mel.types import NIL, EntityId

# What would break a line, or be taken for our own marks.
_RESERVED = re.compile(r"[\s%#]")


def names_of(mention_ids: Iterable[str]) -> Iterator[str]:
    """One word a mention, no two alike: white space, "%" and "#" become %XX, the second of one id gets "#2"."""
    seen: Counter[str] = Counter()
    for mention_id in mention_ids:
        name = _word(mention_id)
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}#{seen[name]}"


def write_run(path: str | os.PathLike, mention_ids: Iterable[str], ranking: Ranking, ids: Strings, tag: str) -> None:
    """Writes `mention Q0 entity place score tag` for every candidate, places counted from 1.

    Args:
      path: the file.
      mention_ids: of the Q mentions.
      ranking: their candidates.
      ids: the id of each entity number.
      tag: the name of the run.
    """
    found_QK, end = ranking.entities_QK != NIL, f" {_word(tag)}\n"
    entities_d, places_n = np.unique(ranking.entities_QK[found_QK], return_inverse=True)
    words = np.array([_word(ids[entity]) for entity in entities_d.tolist()], object)[places_n].tolist()
    scores = _strictly_falling(ranking.scores_QK)[found_QK].tolist()
    first = 0
    with _open(path) as file:
        for name, count in zip(names_of(mention_ids), found_QK.sum(1).tolist(), strict=True):
            candidates = enumerate(zip(words[first : first + count], scores[first : first + count], strict=True), 1)
            file.write("".join([f"{name} Q0 {word} {rank} {score:.9g}{end}" for rank, (word, score) in candidates]))
            first += count


def write_qrels(path: str | os.PathLike, mention_ids: Iterable[str], golds: Iterable[EntityId]) -> None:
    """Writes `mention 0 entity 1`, the gold of every mention; NIL, and a gold that no KB knows, are never found."""
    with _open(path) as file:
        file.writelines(f"{name} 0 {_word(gold)} 1\n" for name, gold in zip(names_of(mention_ids), golds, strict=True))


def _open(path: str | os.PathLike) -> io.TextIOBase:
    if not os.fspath(path).endswith(".gz"):
        return open(path, "w", encoding="utf-8", newline="\n")
    # Without the time of writing, the same run is the same file.
    return io.TextIOWrapper(gzip.GzipFile(path, "wb", 1, mtime=0), encoding="utf-8", newline="\n")


def _strictly_falling(scores_QK: np.ndarray) -> np.ndarray:
    """Single precision scores, each below the one before it and otherwise as they are."""
    scores_QK = scores_QK.astype(np.float32)
    for rank in range(1, scores_QK.shape[1]):
        below_Q = np.nextafter(scores_QK[:, rank - 1], np.float32(-np.inf))
        np.minimum(scores_QK[:, rank], below_Q, out=scores_QK[:, rank])
    return scores_QK


def _word(text: str) -> str:
    return _RESERVED.sub(lambda match: urllib.parse.quote(match[0]), text)
