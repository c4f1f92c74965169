"""What happens to a command: killed, told to end, short of disk, beside another; and to files between commands."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import signal
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from experiments.soak.loop import files_by_kind
from experiments.soak.processes import Command, Process, start

LIMITS = 200, 200_000  # bytes: between a manifest and the largest file of the loop
LATE = 1.2  # a fault may come when the command should be over, and is not
TICK = 0.02


class Scene(NamedTuple):
    """Where a fault happens.

    Attributes:
      command: what runs.
      run: its working directory.
      logs: a folder for what processes say.
      seconds: how long the command takes when nothing happens.
      rng: draws when and where.
    """

    command: Command
    run: pathlib.Path
    logs: pathlib.Path
    seconds: float
    rng: random.Random

    def start(self, name: str = "disturbed", most_bytes: int = 0) -> Process:
        return start(self.command, self.logs / f"{name}.log", most_bytes)

    def pause(self, share: float = LATE) -> None:
        """Some of the time that the command takes."""
        time.sleep(self.rng.uniform(0, share * self.seconds))


Fault = Callable[[Scene], list[Process]]


def _signal(*numbers: int, group: bool = False) -> Fault:
    def fault(scene: Scene) -> list[Process]:
        process = scene.start()
        for number in numbers:
            scene.pause(LATE / len(numbers))
            process.send(number, group)
        process.wait()
        return [process]

    return fault


def _kill_worker(scene: Scene) -> list[Process]:
    process = scene.start()
    scene.pause()
    while process.poll() is None and not (workers := process.workers()):
        time.sleep(TICK)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(scene.rng.choice(workers), signal.SIGKILL)
    process.wait()
    return [process]


def _full(scene: Scene) -> list[Process]:
    """No file may grow beyond a bound, which is how a disk looks to it that is full."""
    low, high = LIMITS
    process = scene.start(most_bytes=int(low * (high / low) ** scene.rng.random()))
    process.wait()
    return [process]


def _second(scene: Scene) -> list[Process]:
    """The same command again while it runs."""
    first = scene.start()
    scene.pause(1)
    second = scene.start("second")
    for process in (first, second):
        process.wait()
    return [first, second]


def _second_and_kill(scene: Scene) -> list[Process]:
    """The same command beside it, and whoever came first is killed."""
    first = scene.start()
    scene.pause(0.5)
    second = scene.start("second")
    scene.pause(0.5)
    first.send(signal.SIGKILL)
    for process in (first, second):
        process.wait()
    return [first, second]


def _suspended(scene: Scene) -> list[Process]:
    """It is stopped, the same command comes, and it goes on."""
    first = scene.start()
    scene.pause(1)
    first.send(signal.SIGSTOP)
    second = scene.start("second")
    second.wait()
    first.send(signal.SIGCONT)
    first.wait()
    return [first, second]


DURING: Mapping[str, Fault] = {
    "kill": _signal(signal.SIGKILL, group=True),
    "kill the parent": _signal(signal.SIGKILL),
    "kill a worker": _kill_worker,
    "TERM": _signal(signal.SIGTERM),
    "INT": _signal(signal.SIGINT),
    "Ctrl-C": _signal(signal.SIGINT, group=True),
    "TERM twice": _signal(signal.SIGTERM, signal.SIGTERM),
    "file too large": _full,
    "second command": _second,
    "second, first killed": _second_and_kill,
    "suspended, second": _suspended,
}


def kill_after_a_step(scene: Scene) -> None:
    """Kills training as soon as a step is saved, if it can be caught."""
    process = scene.start("killed")
    folder = scene.run / "rounds"
    while process.poll() is None and not any(path.name.isdecimal() for path in folder.glob("*/training/checkpoints/*")):
        time.sleep(TICK)
    process.send(signal.SIGKILL)
    process.wait()


def flip(file: pathlib.Path, rng: random.Random) -> None:
    """One bit of it is another."""
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    _write_over(file, bytes(content))


def cut(file: pathlib.Path, rng: random.Random) -> None:
    """Its end is gone."""
    _write_over(file, file.read_bytes()[: rng.randrange(file.stat().st_size)])


def lose(file: pathlib.Path, rng: random.Random) -> None:
    """It is gone."""
    file.unlink()


BETWEEN: Mapping[str, Callable[[pathlib.Path, random.Random], None]] = {
    "flipped bit": flip,
    "cut file": cut,
    "lost file": lose,
}


def damage(scene: Scene, how: str, kind: str = "") -> tuple[str, pathlib.Path] | None:
    """Damages a file of one kind, drawn where none is asked for; returns kind and file, None if there is none."""
    files = files_by_kind(scene.run)
    if not files or kind and kind not in files:
        return None
    kind = kind or scene.rng.choice(sorted(files))
    file = scene.rng.choice(files[kind])
    BETWEEN[how](file, scene.rng)
    return kind, file


def _write_over(file: pathlib.Path, content: bytes) -> None:
    """In place, as a disk does it; files that share the inode change too, as they would."""
    with open(file, "r+b") as opened:
        opened.write(content)
        opened.truncate()
