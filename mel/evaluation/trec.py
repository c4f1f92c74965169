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

from mel.evaluation.recall import Ranking
from mel.types import NIL, MelError, Qid, format_qid

# What would break a line, or be taken for our own marks.
_RESERVED = re.compile(r"[\s%#]")


def names_of(mention_ids: Iterable[str]) -> Iterator[str]:
    """One word a mention, no two alike: white space, "%" and "#" become %XX, the second of one id gets "#2"."""
    seen: Counter[str] = Counter()
    for mention_id in mention_ids:
        name = _word(mention_id)
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}#{seen[name]}"


def write_run(path: str | os.PathLike, mention_ids: Iterable[str], ranking: Ranking, tag: str) -> None:
    """Writes `mention Q0 QID place score tag` for every candidate, places counted from 1.

    Args:
      path: the file.
      mention_ids: of the Q mentions.
      ranking: their candidates.
      tag: the name of the run.
    """
    tag, scores_QK = _word(tag), _strictly_falling(ranking.scores_QK)
    with _open(path, "w") as file:
        for name, qids_K, scores_K in zip(names_of(mention_ids), ranking.qids_QK, scores_QK):
            candidates = enumerate(zip(qids_K[qids_K != NIL].tolist(), scores_K.tolist()), 1)
            file.writelines(f"{name} Q0 Q{qid} {place} {score:.9g} {tag}\n" for place, (qid, score) in candidates)


def write_qrels(path: str | os.PathLike, mention_ids: Iterable[str], gold_Q: np.ndarray) -> None:
    """Writes `mention 0 QID 1`, the gold of every mention; a gold outside any KB is NIL and never found."""
    with _open(path, "w") as file:
        for name, gold in zip(names_of(mention_ids), gold_Q.tolist()):
            file.write(f"{name} 0 {format_qid(Qid(gold))} 1\n")


def read_run(path: str | os.PathLike) -> dict[str, dict[str, float]]:
    """{mention: {QID: score}} of a run file, in the order of its lines, as pytrec_eval and ranx take it.

    Raises:
      MelError: a line has not six columns, or a score is not a number.
    """
    return _read(path, 6, "mention Q0 QID place score tag", 4, float)


def read_qrels(path: str | os.PathLike) -> dict[str, dict[str, int]]:
    """{mention: {QID: relevance}} of a qrels file.

    Raises:
      MelError: a line has not four columns, or the relevance is not a whole number.
    """
    return _read(path, 4, "mention 0 QID relevance", 3, int)


def _read(path: str | os.PathLike, columns: int, layout: str, column: int, parse: type) -> dict[str, dict]:
    result: dict[str, dict] = {}
    with _open(path, "r") as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            try:
                if len(words) != columns:
                    raise ValueError
                result.setdefault(words[0], {})[words[2]] = parse(words[column])
            except ValueError:
                raise MelError(f"{path}:{number} reads {line.strip()!r}, not {layout!r}: write it again.") from None
    return result


def _open(path: str | os.PathLike, mode: str) -> io.TextIOBase:
    if not os.fspath(path).endswith(".gz"):
        return open(path, mode, encoding="utf-8", newline="\n")
    # Without the time of writing, the same run is the same file.
    return io.TextIOWrapper(gzip.GzipFile(path, f"{mode}b", 1, mtime=0), encoding="utf-8", newline="\n")


def _strictly_falling(scores_QK: np.ndarray) -> np.ndarray:
    """Single precision scores, each below the one before it and otherwise as they are."""
    scores_QK = scores_QK.astype(np.float32)
    for place in range(1, scores_QK.shape[1]):
        below_Q = np.nextafter(scores_QK[:, place - 1], np.float32(-np.inf))
        np.minimum(scores_QK[:, place], below_Q, out=scores_QK[:, place])
    return scores_QK


def _word(text: str) -> str:
    return _RESERVED.sub(lambda found: urllib.parse.quote(found[0]), text)
