"""Reads TREC files, as pytrec_eval and ranx take them."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable


def read_run(path: str | os.PathLike) -> dict[str, dict[str, float]]:
    """{mention: {entity: score}} of a run file, in the order of its lines."""
    return _read(path, 6, 4, float)


def read_qrels(path: str | os.PathLike) -> dict[str, dict[str, int]]:
    """{mention: {entity: relevance}} of a qrels file."""
    return _read(path, 4, 3, int)


def _read(path: str | os.PathLike, columns: int, column: int, parse: Callable) -> dict[str, dict]:
    result: dict[str, dict] = {}
    with (gzip.open if os.fspath(path).endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        for line in file:
            words = line.split()
            assert len(words) == columns, line
            result.setdefault(words[0], {})[words[2]] = parse(words[column])
    return result
