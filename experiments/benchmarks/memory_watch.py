"""How much memory the processes of a benchmark hold that is no mapped file, watched from beside them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading

SAMPLE_SECONDS = 0.05


class MemoryWatch:
    """The most anonymous memory, in MB, that a child of this process, its own children, and all of them held at once.

    What is mapped from files does not count: the system takes it back where it is short of memory.

    Example:
      with MemoryWatch() as watch:
          ...
      watch.parent, watch.worker, watch.all
    """

    def __init__(self):
        self.parent = self.worker = self.all = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            parents = children_of(os.getpid())
            held = [anonymous_mb(pid) for pid in parents]
            of_workers = [anonymous_mb(pid) for parent in parents for pid in children_of(parent)]
            self.parent = max(self.parent, *held, 0.0)
            self.worker = max(self.worker, *of_workers, 0.0)
            self.all = max(self.all, sum(held) + sum(of_workers))


def children_of(pid: int) -> list[int]:
    """The processes that a process has started; none where it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text("ascii").split())
    return found


def anonymous_mb(pid: int | str = "self") -> float:
    """The memory of a process that is no mapped file; 0 where it is gone."""
    with contextlib.suppress(OSError, StopIteration):
        status = pathlib.Path(f"/proc/{pid}/status").read_text("utf-8")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) / 1024
    return 0.0
