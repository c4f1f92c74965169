"""Prints the Markdown table of `experiments/README.md` from the JSON files of the benchmarks.

python -m experiments.benchmarks.table [RESULTS]
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.benchmarks.harness import RESULTS, device
from mel.reports.report import table

HEADER = "measure", "ours", "the other", "ratio", "asked", "verdict", "GPU or vectors", "command"


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """One row a result; below it the machines and versions they were measured with."""
    lines = [*table(HEADER, map(_row, results)), ""]
    for line in dict.fromkeys(_circumstances(result) for result in results):
        names = [f"`{result['name']}`" for result in results if _circumstances(result) == line]
        lines.append(f"{', '.join(names)}: {line}")
    return "\n".join(lines)


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    """All results of a folder, by name."""
    return [json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("*.json"))]


def _row(result: Mapping[str, Any]) -> list[str]:
    sides = [f"{_number(side['median'])} {result['unit']}".strip() for side in result["sides"].values()]
    ours, other = (sides + [""])[:2]
    sign = "≥" if result["at_least"] else "≤"
    asked = " / ".join(f"{sign} {bound:g}" for bound in (result["passes"], result["stretch"]) if bound is not None)
    ratio, command = f"**{_number(result['ratio'])}**", f"`{result['command']}`"
    return [result["measure"], ours, other, ratio, asked, result["verdict"], device(result["machine"]), command]


def _number(value: float) -> str:
    """Three digits that matter, and all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _circumstances(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    devices = [f"{machine['cores']} cores of {machine['processor']}", *machine["gpus"]]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{', '.join(devices)}; Python {machine['python']}, {versions}; commit {result['commit'] or 'unknown'}."


if __name__ == "__main__":
    print(markdown(read(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)))
