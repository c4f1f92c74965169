"""What others published on Mewsli-9, to be shown beside a result on the same data and never without its mark."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

FILE = pathlib.Path(__file__).with_name("published_mewsli9.json")


def published_beside(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The published systems, where `report` is on all of Mewsli-9; otherwise none.

    Returns:
      Of each system: "system"; "source", the paper's "title", "arxiv" and "year" (None if unknown);
      "damuel", the version it was trained on, or None; "unverified", true for figures that nobody has
      compared with the paper; "r@1" by language, "micro" and "macro"; "r@10" and "r@100" where they are known.
    """
    rows = _read()
    data = report["dataset"], sorted(report["by_language"]), report["limit"]
    return rows["systems"] if data == (rows["dataset"], rows["languages"], 0) else []


def label(row: Mapping[str, Any]) -> str:
    """The name of a published system, marked as such."""
    return f"{row['system']} (published{', unverified' if row['unverified'] else ''})"


def citation(row: Mapping[str, Any]) -> str:
    """Where the figures of a published system come from, in one sentence."""
    source = row["source"]
    where = ", ".join(filter(None, [source["arxiv"] and f"arXiv {source['arxiv']}", str(source["year"] or "")]))
    data = f" Trained on DaMuEL {row['damuel']}." if row["damuel"] else ""
    doubt = " Quoted from memory: compare with the paper before citing." if row["unverified"] else ""
    return f"{row['system']}: {source['title']}{where and f' ({where})'}.{data}{doubt}"


@functools.cache
def _read() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))
