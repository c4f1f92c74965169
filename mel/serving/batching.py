"""Requests of many clients, linked by one thread, those together that wait at the same time.

The encoder is fastest with many mentions at once, and one thread is all that it can use. What waits is bounded: who
comes when the line is full is sent away at once, and who has waited too long is, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from mel.types import MelError

WAIT_SECONDS = 30.0  # from the door to the beginning of the work


class Busy(Exception):
    """There is no room, or not soon enough.

    Attributes:
      status: of HTTP: 429 where too many wait, 503 where the service is too slow or ends.
      retry_after: seconds after which it is worth asking again.
    """

    def __init__(self, status: int, message: str, retry_after: int):
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class Waiting(NamedTuple):
    """Something to be done.

    Attributes:
      item: what.
      group: only what is of one group is done together.
      weight: how much of a batch it fills.
      future: of what comes of it, in the event loop `loop`.
      since: when it came.
    """

    item: Any
    group: Hashable
    weight: int
    future: asyncio.Future
    loop: asyncio.AbstractEventLoop
    since: float


class Batches:
    """A line of waiting items, and the thread that works through it."""

    def __init__(
        self, work: Callable[[Hashable, Sequence[Any]], Sequence[Any]], max_waiting: int, max_weight: int,
        wait_seconds: float = WAIT_SECONDS,
    ):  # fmt: skip
        """`work(group, items)` makes a result of each item; a batch weighs `max_weight`, or is one item."""
        self._work, self._max_waiting, self._max_weight = work, max_waiting, max_weight
        self._wait_seconds = wait_seconds
        self._line: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="linking", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return len(self._line)

    @property
    def is_open(self) -> bool:
        """Whether anything more is done."""
        return self._open and self._thread.is_alive()

    def check_room(self) -> None:
        """Raises Busy if nothing more may wait."""
        if not self.is_open:
            raise Busy(503, "The service is about to end.", 5)
        if len(self._line) >= self._max_waiting:
            raise Busy(429, f"{self._max_waiting} requests are waiting already.", 1)

    async def result_of(self, item: Any, group: Hashable = None, weight: int = 1) -> Any:
        """What comes of an item, when its turn has come.

        Raises:
          Busy: it may not wait, or has waited too long.
          Exception: what the work raised.
        """
        loop = asyncio.get_running_loop()
        waiting = Waiting(item, group, weight, loop.create_future(), loop, time.monotonic())
        with self._changed:
            self.check_room()
            self._line.append(waiting)
            self._changed.notify()
        return await waiting.future

    def close(self) -> None:
        """Lets nobody in any more, and returns when all that waited is done."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            live = [each for each in batch if not each.future.cancelled()]  # a client may have gone
            late = [each for each in live if time.monotonic() - each.since > self._wait_seconds]
            for each in late:
                _settle(each, Busy(503, f"No turn came within {self._wait_seconds:g} seconds.", 5))
            in_time = [each for each in live if each not in late]
            if in_time:
                self._do(in_time)

    def _next_batch(self) -> list[Waiting]:
        """The first that waits and the others of its group, as far as they fit; [] at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._line or not self._open)
            if not self._line:
                return []
            first = self._line.popleft()
            batch, weight, others = [first], first.weight, deque()
            for each in self._line:
                if each.group == first.group and weight + each.weight <= self._max_weight:
                    batch.append(each)
                    weight += each.weight
                else:
                    others.append(each)
            self._line = others
            return batch

    def _do(self, batch: list[Waiting]) -> None:
        try:
            results = self._work(batch[0].group, [each.item for each in batch])
        except Exception as error:  # is told to who asked, and the next one is served
            if len(batch) > 1 and isinstance(error, MelError):
                for each in batch:  # one of them is the cause: the others get their answers
                    self._do([each])
                return
            results = [error] * len(batch)
        for each, result in zip(batch, results, strict=True):
            _settle(each, result)


def _settle(waiting: Waiting, result: Any) -> None:
    def settle() -> None:
        if waiting.future.done():
            return
        if isinstance(result, BaseException):
            waiting.future.set_exception(result)
        else:
            waiting.future.set_result(result)

    with contextlib.suppress(RuntimeError):  # its event loop is closed: nobody waits there any more
        waiting.loop.call_soon_threadsafe(settle)
