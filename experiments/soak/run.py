"""Loops over the tiny world with random faults; each has to end as one that nobody disturbed, byte for byte.

Every command of a loop, from archives to links, is killed, told to end, run beside itself or short of
disk at a random moment, or finds a damaged file; then it is run until it ends well, and where it
refuses, what it says is done. Prints a matrix of stages, faults and outcomes, and writes it with every
fault and the seed to --results. The same command goes on where it was.

  python -m experiments.soak.run --faults=200 --seed=0
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import sys
import time

from experiments.soak import processes
from experiments.soak.loop import World, ending, undisturbed
from experiments.soak.soak import Event, Loop
from mel.artifacts import write_text

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def main() -> int:
    """The exit status: 1 if a promise was broken."""
    options = _parser().parse_args()
    folder, until = options.folder.absolute(), time.monotonic() + options.seconds
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # compiled programs, and what is remembered of files
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    processes.load()
    world = World.make(folder / "world")
    wanted, seconds = _reference(world, folder)
    results = options.results or folder / "results.json"
    events, problems, loops = _done(results, options.seed)
    print(f"--seed={options.seed}: {len(events)} faults in {loops} loops so far", flush=True)
    while len(events) < options.faults and time.monotonic() < until:
        found, broken = _loop(loops, world, folder, wanted, seconds, options.seed)
        loops, events, problems = loops + 1, events + found, problems + broken
        print(f"loop {loops}: {len(events)} faults, {len(problems)} problems", *broken, sep="\n  ", flush=True)
        _write(results, options.seed, loops, events, problems)
    print(matrix(events))
    print(*problems or ["No promise was broken."], sep="\n")
    return int(bool(problems))


def _reference(world: World, folder: pathlib.Path) -> tuple[dict[str, str | bytes], dict[str, float]]:
    """How a loop ends that nobody disturbs, whether or not all rounds are one command; and seconds a stage."""
    endings, seconds = [], {}
    for whole in (True, False):  # the first one compiles
        run = folder / "undisturbed"
        shutil.rmtree(run, ignore_errors=True)
        seconds |= undisturbed(world, run, whole, folder / "undisturbed.log")
        endings.append(ending(run))
    seconds["rounds"] = sum(seconds[stage] for stage in ("start", "mine", "train", "mine", "train", "evaluate"))
    if endings[0] != endings[1]:
        raise SystemExit("Two loops that nobody disturbed end otherwise: there is nothing to compare with.")
    return endings[0], seconds


def _loop(number, world, folder, wanted, seconds, seed) -> tuple[list[Event], list[str]]:
    path = folder / f"loop-{number}"
    shutil.rmtree(path, ignore_errors=True)
    loop = Loop(number, world, path, seconds, seed)
    try:
        loop.go(wanted)
    except (RuntimeError, TimeoutError) as error:
        loop.problems.append(f"loop {number} was given up: {error}")
    if not loop.problems:
        shutil.rmtree(path)
    return loop.events, loop.problems


def _done(results: pathlib.Path, seed: int) -> tuple[list[Event], list[str], int]:
    """What an earlier command with this seed has found."""
    if not results.exists():
        return [], [], 0
    said = json.loads(results.read_text("utf-8"))
    if said["seed"] != seed:
        raise SystemExit(f"{results} is of --seed={said['seed']}: give other --results.")
    return [Event(**event) for event in said["events"]], said["problems"], said["loops"]


def _write(results: pathlib.Path, seed: int, loops: int, events: list[Event], problems: list[str]) -> None:
    said = {
        "seed": seed, "loops": loops, "faults": len(events), "kinds": len({event.fault for event in events}),
        "problems": problems, "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "matrix": matrix(events).splitlines(), "events": [dataclasses.asdict(event) for event in events],
    }  # fmt: skip
    results.parent.mkdir(parents=True, exist_ok=True)
    write_text(results, json.dumps(said, indent=1) + "\n")


def matrix(events: list[Event]) -> str:
    """Stages by faults: how often each outcome came."""
    counts = collections.Counter((event.stage, event.fault.split(":")[0], event.outcome) for event in events)
    lines = ["| stage | fault | outcomes |", "|---|---|---|"]
    for stage, fault in dict.fromkeys((stage, fault) for stage, fault, _ in sorted(counts)):
        outcomes = [(count, each[2]) for each, count in counts.items() if each[:2] == (stage, fault)]
        said = ", ".join(f"{count} {outcome}" for count, outcome in sorted(outcomes, reverse=True))
        lines.append(f"| {stage} | {fault} | {said} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200, help="stop when there were so many")
    parser.add_argument("--seconds", type=float, default=7200.0, help="begin no loop after that")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build" / "soak", help="to run in")
    parser.add_argument("--results", type=pathlib.Path, help="file that is written; in --folder by default")
    return parser


if __name__ == "__main__":
    sys.exit(main())
