"""Stages of one task that run at the same time, each on a thread of its own, in order.

An error of any stage ends all of them, and is raised where the task was begun.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
WAITING = 1  # made ahead of whoever takes it, beside what either is at
AGAIN_SECONDS = 0.05  # until a thread that waits looks whether it is still wanted
# Python lets a thread that computes go on for 5 ms while another one waits that only has to start the next thing.
TURN_SECONDS = 2e-4


class _End:
    """Follows the last item."""


class _Abandoned(Exception):
    """Nobody wants what comes any more."""


class _Passage:
    """Hands items from one thread to another."""

    def __init__(self):
        self._items: queue.Queue[Any] = queue.Queue(WAITING)
        self._closed = threading.Event()

    def give(self, item: Any) -> None:
        while not self._closed.is_set():
            try:
                return self._items.put(item, timeout=AGAIN_SECONDS)
            except queue.Full:
                continue
        raise _Abandoned

    def take(self) -> Any:
        while not self._closed.is_set():
            try:
                return self._items.get(timeout=AGAIN_SECONDS)
            except queue.Empty:
                continue
        raise _Abandoned

    def close(self) -> None:
        self._closed.set()


@contextlib.contextmanager
def ahead(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """In the block, items that are made on a thread of their own while the ones before them are used."""
    passage = _Passage()

    def make() -> None:
        try:
            for item in items:
                passage.give(item)
            passage.give(_End())
        except _Abandoned:
            pass
        except BaseException as error:  # is raised where the items are taken
            with contextlib.suppress(_Abandoned):
                passage.give(_Failed(error))
        finally:
            close = getattr(items, "close", None)  # of a generator, which may hold a file open
            if close is not None:
                close()

    def taken() -> Iterator[Item]:
        while not isinstance(item := passage.take(), _End):
            if isinstance(item, _Failed):
                raise item.error
            yield item

    thread = threading.Thread(target=make, daemon=True, name="ahead")
    thread.start()
    try:
        yield taken()
    finally:
        passage.close()
        thread.join()


@contextlib.contextmanager
def behind(use: Callable[[Iterator[Item]], None]) -> Iterator[Callable[[Item], None]]:
    """In the block, a function that hands items to `use`, which is given all of them on a thread of its own.

    The block ends when `use` has; what that raised is raised by the next call, or at the end of the block.
    """
    passage, failed = _Passage(), []

    def taken() -> Iterator[Item]:
        while not isinstance(item := passage.take(), _End):
            yield item

    def work() -> None:
        try:
            use(taken())
        except _Abandoned:
            pass
        except BaseException as error:  # is raised where the items are given
            failed.append(error)
        finally:
            passage.close()

    def give(item: Item | _End) -> None:
        try:
            passage.give(item)
        except _Abandoned:
            raise failed[0] if failed else RuntimeError("whoever uses the items has left before the last one") from None

    thread = threading.Thread(target=work, daemon=True, name="behind")
    thread.start()
    try:
        yield give
        give(_End())
        thread.join()
    finally:
        passage.close()
        thread.join()
    if failed:
        raise failed[0]


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    """In the block, threads do not wait long for one that computes in Python: what they start runs beside it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, TURN_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class _Failed:
    """Follows the last item that could be made."""

    def __init__(self, error: BaseException):
        self.error = error
