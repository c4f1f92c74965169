"""How long a command takes from SIGTERM to its end: while it compiles, steps, saves, mines and prepares.

Five times each, at a random moment of the phase, on the tiny world with an encoder large enough for each
phase to be met. Prints a table and writes --results.

  python -m experiments.soak.signals
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from experiments.soak import processes
from experiments.soak.loop import World
from experiments.soak.processes import Command, Process, start
from mel.artifacts import write_text

HERE = pathlib.Path(__file__).parent
TRAINING = (
    "--rounds=1", "--steps_per_round=400", "--batch_size=64", "--encoder=random:4x128x4", "--learning_rate=1e-3",
    "--log_every=1", "--round=0",
)  # fmt: skip
MINING = ("--index=exact", "--negatives_per_mention=2", "--pool=4", "--round=-1")
TICK = 0.001


class Phase(NamedTuple):
    """A part of a command.

    Attributes:
      binary, flags: the command, without --workdir.
      begun: whether it is in it, by its log and its working directory.
      spread: the signal comes up to so many seconds later.
      compiled: whether its programs are compiled already, by the repeat before.
    """

    binary: str
    flags: tuple[str, ...]
    begun: Callable[[str, pathlib.Path], bool]
    spread: float
    compiled: bool = True


def phases(world: World) -> dict[str, Phase]:
    sources = (f"--damuel={world.path}/damuel", f"--mewsli={world.path}/mewsli", f"--tokenizer={world.path}/tokenizer")
    preparation = (*sources, "--languages=en,ru,ar,ja", "--workers=2")
    return {
        "compiling": Phase("train", TRAINING, lambda log, run: "Batch layout" in log, 1.0, False),
        "a step": Phase("train", TRAINING, lambda log, run: "step 3/400" in log, 0.5),
        "saving": Phase(
            "train", (*TRAINING, "--save_every=2"),
            lambda log, run: any(run.glob("rounds/0/training/checkpoints/*orbax-checkpoint-tmp*")), 0.01,
        ),
        "mining": Phase("mine_negatives", MINING, lambda log, run: "Computing in" in log, 1.0),
        "preparing": Phase("prepare_data", preparation, lambda log, run: "reading entities" in log, 0.5),
    }  # fmt: skip


def measure(phase: Phase, prepared: pathlib.Path, folder: pathlib.Path, rng: random.Random) -> tuple[float, int]:
    """Seconds from the signal to the end, and the exit status."""
    run, cache = folder / "run", folder / ("compiled" if phase.compiled else "to_compile")
    for path in (run, folder / "to_compile"):
        shutil.rmtree(path, ignore_errors=True)
    if phase.binary != "prepare_data":
        shutil.copytree(prepared, run)
    flags = phase.flags if phase.binary == "prepare_data" else (*phase.flags, f"--compilation_cache={cache}")
    process = start(Command("", phase.binary, (f"--workdir={run}", *flags)), folder / "signal.log")
    while process.poll() is None and not phase.begun(process.log if process.log_file.exists() else "", run):
        time.sleep(TICK)
    time.sleep(rng.uniform(0, phase.spread))
    sent = time.monotonic()
    process.send(signal.SIGTERM)
    status = process.wait()
    seconds = time.monotonic() - sent
    if left := process.left():
        raise RuntimeError(f"{len(left)} processes are left")
    return seconds, status


def prepare(world: World, prepared: pathlib.Path) -> None:
    """Publishes what is trained on and the encoder before training."""
    if not (prepared / "rounds" / "start" / "checkpoint").exists():
        shutil.rmtree(prepared, ignore_errors=True)
        flags = phases(world)["preparing"].flags
        for binary, own in (("prepare_data", flags), ("train", (*TRAINING[:-1], "--round=-1"))):
            process: Process = start(Command("", binary, (f"--workdir={prepared}", *own)), prepared.with_suffix(".log"))
            if process.wait():
                raise RuntimeError(process.log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=pathlib.Path, default=HERE.parents[1] / "build" / "signals", help="to run in")
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results" / "signals.json")
    options = parser.parse_args()
    folder, rng = options.folder.absolute(), random.Random(options.seed)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    processes.load()
    world = World.make(folder / "world")
    prepare(world, folder / "prepared")
    said = {}
    print("| while | median s | all | exit statuses |\n|---|---:|---|---|")
    for name, phase in phases(world).items():
        found = [measure(phase, folder / "prepared", folder, rng) for _ in range(options.repeats)]
        seconds = [round(each, 2) for each, _ in found]
        statuses = sorted({status for _, status in found})
        said[name] = {"median": statistics.median(seconds), "seconds": seconds, "statuses": statuses}
        print(f"| {name} | {statistics.median(seconds):.2f} | {seconds} | {statuses} |", flush=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.results, json.dumps({"seed": options.seed, "phases": said}, indent=1) + "\n")


if __name__ == "__main__":
    main()
