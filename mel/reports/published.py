"""What others published on Mewsli-9, to be shown beside a result on the same data and never without its mark."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

FILE = pathlib.Path(__file__).with_name("published_mewsli9.json")


def published_beside(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The published systems, where `report` is on all of Mewsli-9; otherwise none.

    Returns:
      Of each system: "system"; "source", its "title", "arxiv" and "year" (None if unknown);
      "damuel", the version it was trained on, or None; "unverified", true for figures that nobody has
      found in the source's own text; a "note", where there is more to say; "r@1" by language, "micro" and "macro";
      "r@10" and "r@100" where they are known.
    """
    rows = _read()
    data = report["dataset"], sorted(report["by_language"]), report["limit"]
    return rows["systems"] if data == (rows["dataset"], rows["languages"], 0) else []


def label(row: Mapping[str, Any]) -> str:
    """The name of a published system, marked as such."""
    return f"{row['system']} (published{', unverified' if row['unverified'] else ''})"


def notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the figures of published systems come from, a sentence or two each, and which systems have none here."""
    return [_citation(row) for row in [*rows, *_read()["without_figures"]]] if rows else []


def _citation(row: Mapping[str, Any]) -> str:
    source = row["source"]
    where = ", ".join(filter(None, [source["arxiv"] and f"arXiv {source['arxiv']}", str(source["year"] or "")]))
    data = f" Trained on DaMuEL {row['damuel']}." if row.get("damuel") else ""
    doubt = " Quoted from memory: compare with the paper before citing." if row.get("unverified") else ""
    note = f" {row['note']}" if "note" in row else ""
    return f"{row['system']}: {source['title']}{where and f' ({where})'}.{data}{doubt}{note}"


@functools.cache
def _read() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))
