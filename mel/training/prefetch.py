"""Batches made on a thread of their own, a few ahead of the step."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from mel.types import Batch

AHEAD = 2


def prefetch(make_batch: Callable[[int], Batch], start: int, end: int) -> Iterator[tuple[int, Batch]]:
    """Yields (n, make_batch(n)) for n from `start` to `end`; an error of `make_batch` is raised here."""
    ready: queue.Queue = queue.Queue(AHEAD)
    stopped = threading.Event()

    def offer(item) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for n in range(start, end):
                if stopped.is_set():
                    return
                offer((n, make_batch(n)))
        except BaseException as error:  # carried over to the consumer's thread
            offer(error)

    thread = threading.Thread(target=produce, daemon=True, name="prefetch")
    thread.start()
    try:
        for _ in range(start, end):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
