"""How every benchmark here is run: its sides in turn, warm-up apart, medians, and one JSON file of it all.

A side is what is compared: ours, or a rival. It is either a function that returns its measured value,
run in this process, or a loop in a process of its own (`child`), which matters where memory is
measured or where the thread pools of two frameworks would fight.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
PACKAGES = (
    "accelerate array-record datasets faiss-cpu flax grain jax jaxlib numpy optax orbax-checkpoint scann "
    "sentence-transformers tensorflow-datasets tokenizers torch transformers"
).split()
# Rivals draw progress bars, and on a GPU jax would take the memory that another side needs.
CHILD_ENVIRONMENT = {"TQDM_DISABLE": "1", "XLA_PYTHON_CLIENT_MEM_FRACTION": ".45"}
FAREWELL_SECONDS = 10
# What makes XLA, oneDNN, MKL and PyTorch compute as on a CPU without AVX-512.
ISA_CHOICE = {
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Target:
    """What a ratio has to reach: at least `passes`, or at most, where `at_least` is False."""

    passes: float
    stretch: float | None = None
    at_least: bool = True

    def verdict(self, ratio: float) -> str:
        """ "stretch", "pass" or "short"; a ratio that is not a number is short."""
        for word, bound in (("stretch", self.stretch), ("pass", self.passes)):
            if bound is not None and (ratio >= bound if self.at_least else ratio <= bound):
                return word
        return "short"


class Run(NamedTuple):
    """One run of a child: its wall time, its process's peak memory so far, and what it chose to tell."""

    seconds: float
    peak_mb: float
    value: Any


def parser(description: str | None, repeats: int = 5, workdir: str = "") -> argparse.ArgumentParser:
    """The flags that every benchmark has, and --workdir where `workdir` says what it holds; parse with `options`."""
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--quick", action="store_true", help="tiny shapes, one repeat, nothing written: a smoke test")
    flags.add_argument("--repeats", type=int, default=repeats, help="interleaved runs of each side")
    flags.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder of the JSON files")
    if workdir:
        flags.add_argument("--workdir", type=pathlib.Path, required=True, help=workdir)
    return flags


def options(flags: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses; --quick means one repeat and no results."""
    chosen = flags.parse_args(argv)
    if chosen.repeats < 1:
        flags.error(f"--repeats={chosen.repeats} must be at least 1.")
    if chosen.quick:
        chosen.repeats, chosen.results = 1, None
    return chosen


def timed(run: Callable[[], Any]) -> Callable[[], float]:
    """The same function, returning its wall time in seconds."""

    def seconds() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return seconds


def interleave(sides: Mapping[str, Callable[[], Any]], repeats: int, warmups: int = 1) -> dict[str, list[Any]]:
    """Runs all sides in turn and returns what each returned, the warm-ups left out.

    Every other round goes backwards, so that a machine that slows down steadily favours no side.
    """
    runs: dict[str, list[Any]] = {name: [] for name in sides}
    for repeat in range(-warmups, repeats):
        for name in list(sides)[:: -1 if repeat % 2 else 1]:
            value = sides[name]()
            if repeat >= 0:
                runs[name].append(value)
                print(f"run {repeat + 1} of {repeats}, {name}: {_shown(value)}", file=sys.stderr, flush=True)
    return runs


def _shown(value: Any) -> str:
    value = value.seconds if isinstance(value, Run) else value
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)


def in_turn(sides: Mapping[str, Sequence[Any]], repeats: int, warmups: int = 1) -> dict[str, list[Run]]:
    """`interleave` for sides in processes of their own: by name, the arguments of `child`."""
    with contextlib.ExitStack() as processes:
        runs = {name: processes.enter_context(child(*side)) for name, side in sides.items()}
        return interleave(runs, repeats, warmups)


def second_run(side: Sequence[Any]) -> Run:
    """What a side, the arguments of `child`, does alone and warm."""
    with child(*side) as run:
        run()
        return run()


@contextlib.contextmanager
def child(side: Callable[..., None], *arguments, environment: Mapping[str, str] | None = None):
    """Yields a function that makes `side`, in a fresh process, do one more run, and returns its `Run`.

    `side(turn, *arguments)` is a function of a module, called in the new process. It works in a loop
    and calls `turn()` or `turn(value)` at the end of each run; its first run includes all its imports
    and compilation. While it waits for its turn its process is stopped, threads and all.

    Args:
      side: what runs.
      arguments: what it is given; they are pickled.
      environment: variables set for its process alone.

    Raises:
      RuntimeError: the process ended before its turn did; its traceback is on stderr.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, side, arguments))  # no daemon: sides may have workers
    with _environment(CHILD_ENVIRONMENT | dict(environment or {})):
        process.start()
    there.close()

    def run() -> Run:
        os.kill(process.pid, signal.SIGCONT)
        try:
            here.send(None)
            report = here.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            process.join()
            raise RuntimeError(f"{side.__name__} ended with exit code {process.exitcode} in its turn.") from None
        os.kill(process.pid, signal.SIGSTOP)
        return report

    try:
        yield run
    finally:
        if process.is_alive():
            os.kill(process.pid, signal.SIGCONT)
        here.close()
        process.join(FAREWELL_SECONDS)
        process.kill()
        process.join()


def _serve(connection, side: Callable[..., None], arguments: Sequence[Any]) -> None:
    with contextlib.suppress(EOFError):  # raised where nobody asks for a turn any more
        _take_turns(connection, side, arguments)


def _take_turns(connection, side: Callable[..., None], arguments: Sequence[Any]) -> None:
    connection.recv()
    start = time.perf_counter()

    def turn(value: Any = None) -> None:
        nonlocal start
        connection.send(Run(time.perf_counter() - start, peak_mb(), value))
        connection.recv()
        start = time.perf_counter()

    side(turn, *arguments)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def forget(files: Iterable[pathlib.Path]) -> None:
    """Has the system drop what it has of these files in memory; of maps of this process only what it lets go itself."""
    for file in files:
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak_mb() -> float:
    """The most memory this process has held so far, in MiB."""
    # Not getrusage: its maximum is inherited from the parent across fork and exec.
    status = pathlib.Path("/proc/self/status").read_text("utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def summary(values: Sequence[float]) -> dict[str, Any]:
    """The median, the spread (largest minus smallest, as a share of the median) and all values."""
    median = statistics.median(values)
    spread = (max(values) - min(values)) / abs(median) if median else 0.0
    return {"median": median, "spread": spread, "runs": list(values)}


def publish(
    name: str,
    measure: str,
    target: Target,
    runs: Mapping[str, Sequence[float]],
    unit: str,
    folder: pathlib.Path | None = RESULTS,
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Prints a line, and one of the details that are numbers; writes `folder/name.KIND.json`, and returns its content.

    KIND is that of the machine (`kind`): a result of one kind of machine does not take the place of another's.

    Args:
      name: of the script.
      measure: what the ratio is, for a table.
      target: what it has to reach.
      runs: the measured values of each side, ours first. The ratio is ours by the second side's,
        medians both; of a single side it is the median itself.
      unit: of the values.
      folder: where the file goes; None writes nothing.
      details: anything else worth keeping, as JSON.
    """
    sides = {side: summary(values) for side, values in runs.items()}
    medians = [side["median"] for side in sides.values()]
    ratio = medians[0] / medians[1] if len(medians) > 1 else medians[0]
    result = {
        "name": name, "measure": measure, "ratio": ratio, "verdict": target.verdict(ratio),
        **dataclasses.asdict(target), "unit": unit, "sides": sides, "details": dict(details or {}),
        "command": command(), "commit": commit(), "machine": machine(), "versions": versions(),
    }  # fmt: skip
    sign = "≥" if target.at_least else "≤"
    shown = ", ".join(f"{side} {stats['median']:.4g} ± {stats['spread'] / 2:.0%}" for side, stats in sides.items())
    print(f"{name}: {ratio:.4g} ({sign} {target.passes:g}: {result['verdict']}) · {shown} {unit} · {measure}")
    numbers = {name: value for name, value in result["details"].items() if type(value) in (int, float)}
    print("  " + ", ".join(f"{name}: {value:.7g}" for name, value in numbers.items()))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1, ensure_ascii=False)
        (folder / f"{name}.{kind(result['machine'])}.json").write_text(text + "\n", encoding="utf-8")
    return result


def command() -> str:
    """The command that runs this benchmark again, from the root of the repository."""
    script = pathlib.Path(sys.argv[0]).stem
    flags = [flag for flag in sys.argv[1:] if not flag.startswith("--results=")]
    chosen = [f"{name}={value}" for name, value in ISA_CHOICE.items()] if _chosen(os.environ) else []
    return " ".join([*chosen, "python -m", f"experiments.benchmarks.{script}", *flags])


def commit() -> str:
    """The commit that was measured, marked where files had been changed since; "" outside a checkout."""
    asked = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty", "--exclude=*"]
    with contextlib.suppress(OSError):
        return subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    return ""


def machine() -> dict[str, Any]:
    """Processor, its vectors, cores this process may use, GPUs, and how busy the machine was."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text("utf-8")
    model = re.search(r"model name\s*: (.+)", cpuinfo)
    return {
        "processor": model[1] if model else platform.machine(),
        "vectors": vectors(cpuinfo, os.environ),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": gpus(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def vectors(cpuinfo: str, environment: Mapping[str, str]) -> str:
    """The widest vectors of the CPU, or "AVX2 by choice" where `ISA_CHOICE` keeps all sides from using wider ones."""
    flags = set(cpuinfo.split())
    if _chosen(environment):
        return "AVX2 by choice"
    return "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else platform.machine()


def _chosen(environment: Mapping[str, str]) -> bool:
    return all(value in environment.get(name, "") for name, value in ISA_CHOICE.items())


def device(machine: Mapping[str, Any]) -> str:
    """The first GPU of a machine, or the vectors of its CPU; "–" where a result did not keep them."""
    return machine["gpus"][0] if machine["gpus"] else machine.get("vectors", "–")


def kind(machine: Mapping[str, Any]) -> str:
    """The kind of machine as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", device(machine).lower()).strip("-")


def gpus() -> list[str]:
    """The names of the NVIDIA GPUs; asking starts no framework."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    listed = subprocess.run(asked, capture_output=True, text=True)
    return listed.stdout.split("\n")[:-1] if listed.returncode == 0 else []


def versions() -> dict[str, str]:
    """The installed versions of all packages that take part."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
