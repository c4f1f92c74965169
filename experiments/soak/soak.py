"""One loop with faults: every command is disturbed, then run until it ends well, and the end is compared."""

from __future__ import annotations

import dataclasses
import pathlib
import random
import re
import shutil
import time
from collections.abc import Mapping, Sequence

from experiments.soak.faults import BETWEEN, DURING, Scene, damage, kill_after_a_step
from experiments.soak.loop import World, ending, rubbish, verification
from experiments.soak.processes import CRASHED, Command, Process, start

ALLOWED = {0, 1, 130, 143, -9}  # exit statuses of a command in trouble
MOST_REMEDIES = 12  # of one command: a damaged file is named, what was made from it may have to go, and so on
DAMAGE_SHARE = 0.35  # of faults that come between commands
WITH_WORKERS = ("prepare",)
_DELETE = re.compile(r"\bdelete (/[^\s;:,]+|it)\b")
_AGAIN = re.compile(r"\brun mel-([a-z-]+) (?:or mel-[a-z-]+ )?again")
_PATH = re.compile(r"(?<!\S)/[^\s;:,]+")


@dataclasses.dataclass
class Event:
    """A fault and what became of it."""

    loop: int
    stage: str
    fault: str
    outcome: str
    seconds: float = 0.0


class Loop:
    """A loop in a folder of its own.

    Attributes:
      events: the faults so far.
      problems: whatever broke a promise, as sentences.
    """

    def __init__(self, number: int, world: World, folder: pathlib.Path, seconds: Mapping[str, float], seed: int):
        self.number, self.folder, self.run = number, folder, folder / "run"
        self.rng = random.Random(f"{seed} {number}")
        self.whole = self.rng.random() < 0.4
        self.commands = world.commands(self.run, self.whole)
        self.events: list[Event] = []
        self.problems: list[str] = []
        self._seconds = seconds
        self._deleted: set[pathlib.Path] = set()  # because a message said so
        self._damaged: tuple[Event, pathlib.Path] | None = None
        self.run.mkdir(parents=True)

    def go(self, wanted: Mapping[str, str | bytes]) -> None:
        """Runs it to its end, which has to be `wanted`."""
        for place, command in enumerate(self.commands):
            for _ in range(self.rng.choice((1, 2, 2, 3))):
                self._disturb(command)
            self._finish(place)
        self._verify()
        self._compare(wanted)

    def _scene(self, command: Command) -> Scene:
        return Scene(command, self.run, self.folder, self._seconds.get(command.stage, 1.0), self.rng)

    def _disturb(self, command: Command) -> None:
        started = time.monotonic()
        if self._damaged is None and self.rng.random() < DAMAGE_SHARE:
            event = self.damage(command, self.rng.choice(sorted(BETWEEN)))
        else:
            names = [name for name in sorted(DURING) if name != "kill a worker" or command.stage in WITH_WORKERS]
            name = self.rng.choice(names)
            processes = DURING[name](self._scene(command))
            event = Event(self.number, command.stage, name, " + ".join(map(_outcome, processes)))
            self._judge(event, processes)
        if event:
            event.seconds = round(time.monotonic() - started, 2)
            self.events.append(event)

    def damage(self, command: Command, how: str, kind: str = "") -> Event | None:
        """Damages a file before a command, which may be a checkpoint by step; the outcome is found later."""
        scene = self._scene(command)
        if command.stage in ("train", "rounds") and (kind == "step checkpoint" or not kind and self.rng.random() < 0.5):
            kill_after_a_step(scene)
        damaged = damage(scene, how, kind)
        if damaged is None:
            return None
        event = Event(self.number, command.stage, f"{how}: {damaged[0]}", "")
        self._damaged = event, damaged[1]
        return event

    def _judge(self, event: Event, processes: Sequence[Process]) -> None:
        """What no process may do, whatever happens to it."""
        for process in processes:
            where = f"{event.stage}, {event.fault}"
            # Orbax's threads print tracebacks of a full disk; who asks for a checkpoint gets a sentence all the same.
            told = event.fault == "file too large" and process.status == 1 and process.said
            if process.status not in ALLOWED or ("Traceback" in process.log and not told):
                self._trouble(f"{where}: exit status {process.status}", process)
            if left := process.left():
                self._trouble(f"{where}: {len(left)} processes are left", process)
        if self._damaged is None:
            verify = start(verification(self.run), self.folder / "verify.log")
            if verify.wait() and "holds nothing that was published" not in verify.said:
                self._trouble(f"{event.stage}, {event.fault}: what is published is wrong: {verify.said}", verify)

    def _finish(self, place: int) -> None:
        """Runs the command until it ends well, doing literally what it says has to be done."""
        command = self.commands[place]
        for _ in range(MOST_REMEDIES):
            process = start(command, self.folder / f"{command.stage}.log")
            status = process.wait()
            self._look_for_damage(command.stage, process)
            if status == 0:
                return
            if status == CRASHED or "Traceback" in process.log or not self._remedy(process.said, place):
                break
        self._trouble(f"{command.stage} cannot be ended well: {process.said}", process)
        raise RuntimeError(self.problems[-1])

    def _remedy(self, said: str, place: int) -> bool:
        """Deletes what a message says and runs what it names; False if it says nothing of the kind."""
        named = _DELETE.findall(said)
        for path in named:
            path = pathlib.Path((_PATH.search(said)[0] if path == "it" else path).rstrip("."))
            if not path.is_relative_to(self.folder):
                return False
            self._deleted.add(path)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for binary in dict.fromkeys(_AGAIN.findall(said)):
            earlier = self.commands[: place + 1]
            same = [each for each in earlier if each.binary == binary.replace("-", "_")]
            # Who runs all rounds with one command, or evaluates, does it with mel-run-rounds.
            for each in same or [each for each in earlier if each.binary == "run_rounds"]:
                start(each, self.folder / "remedy.log").wait()
        return bool(named)

    def _look_for_damage(self, stage: str, process: Process) -> None:
        """Whether the process tells of the damage that is waited for."""
        if self._damaged is None:
            return
        event, file = self._damaged
        names = {str(path) for path in (file, *file.parents) if path.is_relative_to(self.run) and path != self.run}
        if process.status and any(name in process.said for name in names):
            event.outcome = "named by mel-verify" if stage == "verify" else f"refused by {stage}"
        elif any(
            name in line and re.search("damaged|missing", line) for line in process.log.splitlines() for name in names
        ):
            event.outcome = f"rebuilt by {stage}"
        if event.outcome:
            self._damaged = None

    def _verify(self) -> None:
        """Everything is sound at the end, or is made so."""
        verify = verification(self.run)
        for _ in range(MOST_REMEDIES):
            process = start(verify, self.folder / "verify.log")
            status = process.wait()
            self._look_for_damage("verify", process)
            if status == 0:
                break
            if not self._remedy(process.said, len(self.commands)):
                self._trouble(f"mel-verify has no way out: {process.said}", process)
                break
            for place in range(len(self.commands)):
                self._finish(place)
        if self._damaged:  # nothing has read it, and it is gone or was no damage
            event, file = self._damaged
            event.outcome = "unnoticed, harmless" if file.exists() else "gone, not missed"

    def _compare(self, wanted: Mapping[str, str | bytes]) -> None:
        found = ending(self.run)
        # What no later command needs, an index that was mined with, is not made again.
        gone = {name for name in wanted if name not in found and self._deleted & {*(self.run / name).parents}}
        wanted = {name: value for name, value in wanted.items() if name not in gone}
        if different := sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name)):
            if self._damaged:
                self._damaged[0].outcome = "SILENT CHANGE"
            self.problems.append(f"loop {self.number} ended otherwise: {', '.join(different)}")
        if left := rubbish(self.run):
            self.problems.append(f"loop {self.number} has left {', '.join(left)}")

    def _trouble(self, what: str, process: Process) -> None:
        kept = self.folder / f"trouble-{len(self.problems)}.log"
        shutil.copy(process.log_file, kept)
        self.problems.append(f"loop {self.number}: {what} ({kept})")


def _outcome(process: Process) -> str:
    """What became of a process."""
    if process.status == 0:
        return "done"
    if process.status < 0:
        return "killed"
    if "which is saved" in process.said:
        return "saved a step"
    if "is being written by" in process.said:
        return "refused"
    return {130: "ended", 143: "ended"}.get(process.status, "a sentence")
