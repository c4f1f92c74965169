"""One writer: who writes a target holds a lock on it, which dies with the process.

The lock is a record lock of the system (fcntl) on the file `.lock-<name>` beside the target. The system
drops it when the process ends, however it ends; children do not inherit it; it holds between the
machines that share a network file system. The file says who holds it, for those who come second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Iterator

from absl import logging

from mel.types import MelError

PREFIX = ".lock-"
PATIENCE = 0.2  # seconds: a holder may be about to let go, or may not have said yet who it is
PAUSE = 0.05


@dataclasses.dataclass
class _Held:
    """A lock of this process: a thread may claim again what it holds."""

    descriptor: int
    thread: int
    claims: int = 1


_held: dict[str, _Held] = {}
_changing = threading.Lock()  # of `_held`; closing any descriptor of a lock file would drop the lock


def _forget_after_fork() -> None:
    """A child holds none of its parent's locks."""
    global _changing
    _held.clear()
    _changing = threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)


@contextlib.contextmanager
def claim(path: str | os.PathLike, wait: bool = False, patience: float = PATIENCE) -> Iterator[None]:
    """Makes this process the only one that may write `path`, until the block or the process ends.

    The thread that holds a claim may claim the same path again. Readers ask nobody.

    Args:
      path: a file or folder, which need not exist; its parents are made.
      wait: for the process that holds it, rather than to refuse.
      patience: seconds before refusing.

    Raises:
      MelError: another process or thread holds it, or the file system has no locks.

    Example:
      with claim(work.round(0).training):
          train()
    """
    path = pathlib.Path(os.path.realpath(pathlib.Path(path).parent), pathlib.Path(path).name)
    path.parent.mkdir(parents=True, exist_ok=True)
    _acquire(path, wait, patience)
    try:
        yield
    finally:
        _release(path)


def is_claimed_here(path: str | os.PathLike) -> bool:
    """Whether this process, in any thread, holds `path`."""
    path = pathlib.Path(path)
    return os.path.join(os.path.realpath(path.parent), path.name) in _held


def lock_file(path: pathlib.Path) -> pathlib.Path:
    """The file that is locked for `path`."""
    return path.with_name(PREFIX + path.name)


def _acquire(path: pathlib.Path, wait: bool, patience: float) -> None:
    until, told = time.monotonic() + patience, False
    while True:
        holder = _try(path)
        if holder is None:
            return
        if not wait and time.monotonic() >= until:
            raise MelError(
                f"{path} is being written by {holder}: wait until that is done, or stop it, and run the same "
                "command again."
            )
        if wait and not told and time.monotonic() >= until:
            logging.info("Waiting for %s to be written by %s.", path, holder)
            told = True
        time.sleep(PAUSE)


def _try(path: pathlib.Path) -> str | None:
    """Takes the lock and returns None, or returns who has it."""
    with _changing:
        held = _held.get(str(path))
        if held and held.thread != threading.get_ident():
            return "another thread of this process"
        if held:
            held.claims += 1
            return None
        file = lock_file(path)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None  # what the user knows of
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_the_file(descriptor, file):  # who held it has removed the file meanwhile
                os.close(descriptor)
                return "a process that has just ended"
            _write_holder(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return _read_holder(file)
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise MelError(
                    f"The file system of {path.parent} has no locks ({error.strerror}), so nothing would keep two "
                    "commands from writing the same: put the folder on a local disk, NFS 4, or Lustre mounted with "
                    "flock."
                ) from error
            raise
        _held[str(path)] = _Held(descriptor, threading.get_ident())
        return None


def _release(path: pathlib.Path) -> None:
    with _changing:
        held = _held.get(str(path))
        if held is None:  # in a child that was forked within the block
            return
        held.claims -= 1
        if not held.claims:
            with contextlib.suppress(OSError):
                lock_file(path).unlink()
            os.close(held.descriptor)
            del _held[str(path)]


def _is_the_file(descriptor: int, file: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int) -> None:
    said = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": os.path.basename(sys.argv[0]) if sys.argv else "",
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(said).encode(), 0)


def _read_holder(file: pathlib.Path) -> str:
    """Who holds a lock, as part of a sentence."""
    try:
        said = json.loads(file.read_bytes())
        command = f" ({said['command']})" if said["command"] else ""
        return f"process {said['pid']} on {said['host']}{command} since {said['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has not said so yet, or has just let go
        return "another process"
