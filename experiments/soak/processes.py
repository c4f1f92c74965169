"""Commands as processes of their own that start in no time: forked from this one, which has imported everything.

A process is as real as one from a shell: it can be killed, stopped and bounded, and has a session of
its own, by which whatever it leaves behind is found.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence

BINARIES = ("prepare_data", "train", "mine_negatives", "run_rounds", "evaluate", "export", "link", "verify")
# What the binaries import only when they need it.
LATE = (
    "matplotlib", "mel.linking.linker", "optax", "orbax.checkpoint", "rapidfuzz", "tensorboardX", "tensorflow_datasets",
    "transformers",
)  # fmt: skip
PARENT_DEATH = 1  # PR_SET_PDEATHSIG
GRACE_SECONDS = 5.0  # for what a killed process leaves to notice it
CRASHED = 99


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line of mel.

    Attributes:
      stage: what it is for, as the matrix calls it.
      binary: "train" for mel-train.
      flags: its arguments.
    """

    stage: str
    binary: str
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"mel-{self.binary.replace('_', '-')}"


class Process:
    """A command that runs, or has run."""

    def __init__(self, pid: int, log: pathlib.Path, scribe: subprocess.Popen | None = None):
        """`scribe` writes the log, if the process does not itself."""
        self.pid, self.log_file, self._scribe = pid, log, scribe
        self.status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, negative for the signal that killed it; None while it runs."""
        if self.status is None:
            pid, waited = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(waited)
                if self._scribe:
                    self.left()  # as long as they live, the log is not whole
                    self._scribe.wait()
        return self.status

    def wait(self, seconds: float = 600.0) -> int:
        """Its exit status; one that does not end in time is killed.

        Raises:
          TimeoutError: it did not end.
        """
        until = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > until:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"process {self.pid} did not end in {seconds:.0f} seconds: {self.log_file}")
            time.sleep(0.002)
        return self.status

    def send(self, number: int, group: bool = False) -> None:
        """Sends it a signal if it still runs; with `group`, to its workers as well."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)

    def workers(self) -> list[int]:
        """The processes that it has started and that live, without Python's own that cleans up after them."""
        return [pid for pid in _session(self.pid) if pid != self.pid and not _is_tracker(pid)]

    def left(self) -> list[int]:
        """What still lives of its session after it has ended, and some grace; that is killed."""
        until = time.monotonic() + GRACE_SECONDS
        while (pids := _session(self.pid)) and time.monotonic() < until:
            time.sleep(0.01)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    @property
    def said(self) -> str:
        """The sentence that it ended with."""
        lines = [line for line in self.log.splitlines() if line.startswith("mel-")]
        return lines[-1] if lines else ""


def load() -> None:
    """Imports what the commands need; nothing of it may start a thread of Python or touch a device."""
    for name in (*(f"mel.bin.{binary}" for binary in BINARIES), *LATE):
        importlib.import_module(name)


def start(command: Command, log: pathlib.Path, most_bytes: int = 0) -> Process:
    """Starts a command; no file that it writes may grow beyond `most_bytes`, but for its log, if that is not 0."""
    scribe = None
    if most_bytes:
        scribe = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=open(log, "wb"))
    pid = os.fork()
    if pid:
        if scribe:
            scribe.stdin.close()
        return Process(pid, log, scribe)
    status = CRASHED
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets background jobs ignore it
        descriptor = (
            scribe.stdin.fileno()
            if scribe
            else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        )
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        os.close(descriptor)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)
        if most_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        status = _run(command.binary, [command.name, *command.flags])
    finally:
        os._exit(status)


def _run(binary: str, arguments: Sequence[str]) -> int:
    sys.argv = list(arguments)
    status = CRASHED
    try:
        sys.modules[f"mel.bin.{binary}"].console()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    return status


def _session(leader: int) -> list[int]:
    """The living processes of the session that `leader` began."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            state, _, _, session, *_ = pathlib.Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            if int(session) == leader and state not in "ZX":
                found.append(int(name))
    return found


def _is_tracker(pid: int) -> bool:
    try:
        return b"multiprocessing.resource_tracker" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False
