"""Two ways in which a working directory was once spoilt, tried again and again: each has to end as it should.

- compiled programs: training is told to end, then some of the compiled programs that it kept are lost,
  cut, emptied or damaged, and it goes on. The checkpoint has to be the same.
- two commands: two mel-mine-negatives in one working directory, one of which may be killed, and the same
  command once more. Everything that is published has to be the same, and sound.

  python -m experiments.soak.poison --tries=20 --seed=0
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import time

from experiments.soak import processes
from experiments.soak.faults import cut, flip, lose
from experiments.soak.loop import World, ending, verification
from experiments.soak.processes import Command, start
from mel.artifacts import write_text

HERE = pathlib.Path(__file__).parent


class Ground:
    """Where it is tried.

    Attributes:
      prepared: a working directory with data; `started` has the encoder before training as well.
      train, mine: the commands, without --workdir.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder, self.world = folder, World.make(folder / "world")
        self.cache, self.run, self.log = folder / "programs", folder / "run", folder / "poison.log"
        commands = self.world.commands(folder / "started", whole=False)
        if not (folder / "started" / "rounds" / "start" / "checkpoint").exists():
            shutil.rmtree(folder / "started", ignore_errors=True)
            for command in commands[:2]:
                self.must(command)
        self.train, self.mine = commands[3], commands[2]

    def command(self, like: Command) -> Command:
        flags = (f"--workdir={self.run}", *like.flags[1:], f"--compilation_cache={self.cache}")
        return Command(like.stage, like.binary, flags)

    def must(self, command: Command) -> None:
        process = start(command, self.log)
        if process.wait() or process.left():
            raise RuntimeError(f"{command.name} failed:\n{process.log}")

    def fresh(self, mined: bool) -> None:
        """A working directory in which nothing was trained; with `mined`, its first negatives are there."""
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.folder / "started", self.run)
        if mined:
            self.must(self.command(self.mine))

    def verified(self) -> bool:
        return not start(verification(self.run), self.log).wait()


def programs(ground: Ground, rng: random.Random) -> str:
    """Some compiled programs are not what they were when training goes on."""
    command = ground.command(ground.train)
    shutil.rmtree(ground.cache)
    shutil.copytree(ground.folder / "all programs", ground.cache)
    process = start(command, ground.log)
    folder = ground.run / "rounds/0/training/checkpoints"
    while process.poll() is None and not any(path.name.isdecimal() for path in folder.glob("*")):
        time.sleep(0.005)
    process.send(signal.SIGKILL)
    process.wait()
    kept = [path for path in sorted(ground.cache.rglob("*")) if path.is_file() and path.stat().st_size]
    way = rng.choice(("lost", "cut", "emptied", "damaged", "all lost"))
    for file in kept if way == "all lost" else rng.sample(kept, rng.randint(1, len(kept))):
        {"cut": cut, "damaged": flip, "emptied": lambda path, _: path.write_bytes(b"")}.get(way, lose)(file, rng)
    ground.must(command)
    return way


def pairs(ground: Ground, rng: random.Random) -> str:
    """Two of the same command, at nearly the same time."""
    command = ground.command(ground.mine)
    first = start(command, ground.log)
    time.sleep(rng.uniform(0, 0.5))
    second = start(command, ground.folder / "second.log")
    killed = rng.choice((None, first, second))
    if killed:
        time.sleep(rng.uniform(0, 1))
        killed.send(signal.SIGKILL)
    statuses = first.wait(), second.wait()
    if first.left() or second.left():
        raise RuntimeError("a process is left")
    ground.must(command)
    return "both done" if statuses == (0, 0) else "one killed" if -9 in statuses else "one refused"


def attempt(ground: Ground, way, tries: int, rng: random.Random) -> dict[str, object]:
    """Tries it so often; says how it went, and how often the end was another."""
    mined = way is programs
    shutil.rmtree(ground.cache, ignore_errors=True)
    ground.fresh(mined)
    ground.must(ground.command(ground.train if mined else ground.mine))
    shutil.rmtree(ground.folder / "all programs", ignore_errors=True)
    shutil.copytree(ground.cache, ground.folder / "all programs")
    wanted, wrong, ways = ending(ground.run), 0, collections.Counter()
    for _ in range(tries):
        ground.fresh(mined)
        try:
            ways[way(ground, rng)] += 1
        except RuntimeError as error:
            ways[str(error)[-300:]] += 1
            wrong += 1
            continue
        wrong += ending(ground.run) != wanted or not ground.verified()
        print(f"{way.__name__}: {sum(ways.values())} tries, {wrong} wrong", flush=True)
    return {"tries": tries, "wrong": wrong, "ways": dict(sorted(ways.items()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--ways", default="pairs,programs", help="which to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=pathlib.Path, default=HERE.parents[1] / "build" / "poison", help="to run in")
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results" / "poison.json")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["XDG_CACHE_HOME"] = str(options.folder.absolute() / "cache")
    processes.load()
    ground, rng = Ground(options.folder.absolute()), random.Random(options.seed)
    said: dict[str, object] = {"seed": options.seed}
    for way in [each for each in (pairs, programs) if each.__name__ in options.ways.split(",")]:
        said[way.__name__] = attempt(ground, way, options.tries, rng)
        print(way.__name__, said[way.__name__], flush=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.results, json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
