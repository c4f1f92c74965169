"""What each stage cost: wall time, memory and hardware, one JSON line a finished stage.

Costs differ from run to run, so they stand beside the artefacts and never in one.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import platform
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

FILE = "cost.jsonl"
STATUS = pathlib.Path("/proc/self/status")


@contextlib.contextmanager
def record_cost(folder: str | os.PathLike, stage: str, **figures: Any) -> Iterator[dict[str, Any]]:
    """Appends a line to `folder`/cost.jsonl when the block ends well or the user interrupts it.

    A process that is killed leaves no line, and the run that resumes its stage counts its own seconds only.

    Args:
      folder: made if missing.
      stage: its name ("train round 0"); the runs of one name add up.
      figures: what else the line says: numbers are counts of what this run did (tokens, mentions) and add up
        over runs, strings (accelerator) do not.

    Yields:
      the figures, for the block to add to.

    Example:
      with record_cost(workdir, "train round 0", accelerator="1 x H100") as figures:
          figures["tokens"] = train()
    """
    started = time.monotonic()
    try:
        yield figures
    except KeyboardInterrupt:
        _append(folder, _line(stage, started, figures))
        raise
    _append(folder, _line(stage, started, figures))


def read_cost(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """The cost of each stage, in the order in which the stages first ended; empty if nothing was recorded.

    Several runs of a stage are one: numbers are summed, the peak memory is the highest, different
    strings are listed, and "runs" counts them. "tokens_seconds" are the seconds of the runs that counted
    their tokens, which an interrupted one may not have. A line that a crash tore is passed over.
    """
    path = pathlib.Path(folder) / FILE
    stages: dict[str, dict[str, Any]] = {}
    for data in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            line = dict(json.loads(data))
            stage, values = line.pop("stage"), line | {"runs": 1}
            if "tokens" in line:
                values["tokens_seconds"] = line["seconds"]
            stages[stage] = {"stage": stage} | _merged(stages.get(stage, {}), values)
    return list(stages.values())


def hardware() -> str:
    """The CPU's model and how many of its threads this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{count} x {model}"


def peak_memory_mb() -> int:
    """The most resident memory, in MB, that this process has had so far; its children not counted."""
    # What getrusage says survives fork and exec, so a process that a larger one started would be as large.
    with contextlib.suppress(OSError, StopIteration):
        lines = STATUS.read_text("ascii", "replace").splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(kilobytes) * 1024 // 10**6
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 10**6


def _line(stage: str, started: float, figures: dict[str, Any]) -> dict[str, Any]:
    seconds = round(time.monotonic() - started, 3)
    measured = {"stage": stage, "seconds": seconds, "peak_memory_mb": peak_memory_mb(), "hardware": hardware()}
    return measured | figures


def _append(folder: str | os.PathLike, line: dict[str, Any]) -> None:
    path = pathlib.Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # torn by a crash: it must not swallow this line
                file.write(b"\n")
        file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def _merged(before: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = dict(before)
    for name, value in values.items():
        old = merged.get(name)
        if old is None:
            merged[name] = value
        elif name == "peak_memory_mb":
            merged[name] = max(old, value)
        elif isinstance(value, str):
            merged[name] = old if value in old.split("; ") else f"{old}; {value}"
        else:
            merged[name] = old + value
    return merged
