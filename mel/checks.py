"""What is read is what was published: files are compared with their digests beside the work.

Opening an artefact hands its files to threads that read them whole. Whatever makes something of them
calls `settle` before it lets anybody see it, and that raises where a file was not as published.

A large file that passed is remembered in the user's cache folder, by its size, inode and times of
change; as long as none of these is another, the next process does not read it for this. What a disk
changes by itself, `mel-verify` finds, which remembers nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import threading
import time
from collections import deque
from collections.abc import Iterable

from absl import logging

from mel.progress import Progress
from mel.types import MelError

BLOCK = 1 << 20
AT_ONCE = 1 << 20  # a smaller file is compared when it is opened, and its reader never meets nonsense
REMEMBERED = 64 << 20  # a smaller file is read again faster than a record of it is found
STILL_SECONDS = 2.0  # a file changed so recently may change again within one tick of its file system's clock
SAYING_SECONDS = 1.0

Identity = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a file has to hold.

    Attributes:
      file: its path.
      sha256: in hexadecimal.
      remedy: what to do where it holds something else, as the end of a sentence.
    """

    file: pathlib.Path
    sha256: str
    remedy: str

    @property
    def damage(self) -> str:
        """The sentence for a file that holds something else."""
        return f"{self.file} is damaged, its content is not what was published: {self.remedy}."


class Checks:
    """The files that this process has opened, and which of them were compared with their digests.

    Args:
      threads: that read files at the same time.
    """

    def __init__(self, threads: int | None = None):
        self._threads = threads or min(4, max(1, (os.cpu_count() or 1) // 2))
        self._start_anew()

    def _start_anew(self) -> None:
        """Nothing is opened and nothing runs: how a process begins, a forked one too."""
        self._changed = threading.Condition()
        self._waiting: deque[Expected] = deque()
        self._running: list[Expected] = []
        self._known: dict[tuple[str, str], Identity] = {}
        self._failed: dict[str, Expected] = {}
        self._busy = 0
        self._bytes_done = 0

    def expect(self, files: Iterable[Expected]) -> None:
        """Has files compared that were not yet: small ones at once, the others beside what follows.

        Raises:
          MelError: a small one is damaged, or one is missing.
        """
        for each in files:
            try:
                identity = _identity(each.file)
            except OSError:
                raise MelError(each.damage) from None
            with self._changed:
                self._failed.pop(str(each.file), None)  # it may have been made again; if not, it fails again
                if self._known.get((str(each.file), each.sha256)) == identity or each in self._running:
                    continue
                if identity[0] > AT_ONCE:
                    if each not in self._waiting:
                        self._waiting.append(each)
                        self._start_thread()
                    continue
            self._compare(each)
            if str(each.file) in self._failed:
                raise MelError(each.damage)

    def trust(self, files: Iterable[Expected]) -> None:
        """Notes files that this process wrote and digested itself: it need not read them again."""
        with self._changed:
            for each in files:
                self._known[str(each.file), each.sha256] = _identity(each.file)
                self._failed.pop(str(each.file), None)

    def settle(self, folder: str | os.PathLike | None = None) -> None:
        """Waits until every file is compared that was opened, in `folder` or anywhere.

        Raises:
          MelError: one is damaged.
        """
        with self._changed:
            if folder is not None:
                self._waiting = deque(sorted(self._waiting, key=lambda each: not _within(each.file, folder)))
            self._wait(folder)
            damaged = [each.damage for name, each in sorted(self._failed.items()) if _within(each.file, folder)]
        if damaged:
            raise MelError(damaged[0])

    def forget(self, folder: str | os.PathLike | None = None) -> None:
        """Drops what is known of the files in `folder`, or of all: it is being deleted."""
        with self._changed:
            self._waiting = deque(each for each in self._waiting if not _within(each.file, folder))
            self._wait(folder)
            self._known = {key: value for key, value in self._known.items() if not _within(key[0], folder)}
            self._failed = {name: each for name, each in self._failed.items() if not _within(name, folder)}

    def _wait(self, folder: str | os.PathLike | None) -> None:
        """With the condition held, until nothing in `folder` is left to be compared."""
        started, done, progress = time.monotonic(), self._bytes_done, None
        while left := [each for each in (*self._running, *self._waiting) if _within(each.file, folder)]:
            self._changed.wait(0.1)
            if progress is None and time.monotonic() - started >= SAYING_SECONDS:
                total = sum(_size(each.file) for each in left) >> 20
                logging.info("Comparing %d MB that were read with their digests", total)
                progress = Progress("comparing files with their digests", total, "MB")
            if progress and (megabytes := (self._bytes_done - done) >> 20):
                done += megabytes << 20
                progress.add(megabytes)
        if progress:
            progress.close()

    def _start_thread(self) -> None:
        if self._busy < self._threads:
            self._busy += 1
            # A daemon, so that a program which has failed does not read on to the end.
            threading.Thread(target=self._work, args=(self._changed,), daemon=True, name="checks").start()

    def _work(self, changed: threading.Condition) -> None:
        while True:
            with changed:
                if not self._waiting:
                    self._busy -= 1
                    return
                each = self._waiting.popleft()
                self._running.append(each)
            try:
                self._compare(each)
            finally:
                with changed:
                    self._running.remove(each)
                    changed.notify_all()

    def _compare(self, expected: Expected) -> None:
        try:
            before = _identity(expected.file)
            sound = _is_remembered(expected, before) or self._digest(expected.file) == expected.sha256
            still = before == _identity(expected.file)
        except OSError:
            sound = still = False
        with self._changed:
            if not sound:
                self._failed[str(expected.file)] = expected
            elif still:
                self._known[str(expected.file), expected.sha256] = before
        if sound and still:
            _remember(expected, before)

    def _digest(self, file: pathlib.Path) -> str:
        def count(size: int) -> None:
            self._bytes_done += size

        return file_digest(file, count)


def file_digest(file: str | os.PathLike, progress=lambda size: None) -> str:
    """The SHA-256 of a file in hexadecimal; `progress` is told how many more bytes are read."""
    digest, block = hashlib.sha256(), memoryview(bytearray(BLOCK))
    with open(file, "rb", buffering=0) as opened:
        while size := opened.readinto(block):
            digest.update(block[:size])
            progress(size)
    return digest.hexdigest()


def _identity(file: pathlib.Path) -> Identity:
    """Size, inode and times of change: what differs when a file was written to or replaced."""
    status = file.stat()
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _size(file: pathlib.Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _within(file: str | os.PathLike, folder: str | os.PathLike | None) -> bool:
    return folder is None or pathlib.Path(file).is_relative_to(folder)


def _record(file: pathlib.Path) -> pathlib.Path:
    """Where is remembered that a file passed."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = hashlib.sha256(os.fsencode(os.path.realpath(file))).hexdigest()
    return pathlib.Path(cache, "mel", "checked", f"{name}.json")


def _is_remembered(expected: Expected, identity: Identity) -> bool:
    if identity[0] < REMEMBERED:
        return False
    try:
        return json.loads(_record(expected.file).read_bytes()) == _remembered(expected, identity)
    except (OSError, ValueError):
        return False


def _remember(expected: Expected, identity: Identity) -> None:
    changed = max(identity[2:]) / 1e9
    if identity[0] < REMEMBERED or time.time() - changed < STILL_SECONDS:
        return
    record = _record(expected.file)
    draft = record.with_name(f"{record.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(_remembered(expected, identity)), encoding="utf-8")
        os.replace(draft, record)
    except OSError:  # a full or read-only home costs reading the file again, and no more
        pass


def _remembered(expected: Expected, identity: Identity) -> dict:
    return {"file": os.path.realpath(expected.file), "sha256": expected.sha256, "identity": list(identity)}


CHECKS = Checks()
os.register_at_fork(after_in_child=CHECKS._start_anew)
