"""A function over parts in worker processes, its results in the order of the parts.

Workers never outlive their parent, whatever kills it: the system kills them with it, and each watches
a pipe whose other end the parent alone holds.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mel.types import MelError

_PR_SET_PDEATHSIG = 1
SIGNAL_SECONDS = 0.2
# Each worker has one core; and after a signal, what a dead parent held is cleared away without a word.
_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning"}


def map_in_order(function: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterator[Any]:
    """Yields `function(item)` for each item, in order; at most two items a worker are in flight.

    Args:
      function: can be pickled.
      workers: how many processes; 1 for this one, 0 for one a core.

    Raises:
      MelError: `function` raised it, or a worker was killed.
    """
    workers = min(workers or os.cpu_count() or 1, len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    with _environment():
        yield from _map_in_processes(function, items, workers, "lower --workers")


def in_another_process(function: Callable[[Any], Any], item: Any, remedy: str) -> Any:
    """`function(item)`, computed where the memory that it takes is given back when it is done.

    Args:
      function: can be pickled.
      item: what it is given.
      remedy: what to do where the system kills the process for want of memory, as part of a sentence.

    Raises:
      MelError: `function` raised it, or the process was killed.
    """
    (result,) = _map_in_processes(function, [item], 1, remedy)
    return result


def _map_in_processes(function: Callable[[Any], Any], items: Sequence[Any], workers: int, remedy: str) -> Iterator[Any]:
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_die_with_parent, initargs=(theirs, os.getpid())
    )
    try:
        running: deque = deque()
        for item in items:
            running.append(_submit(pool, function, item))
            if len(running) >= 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
        pool.shutdown()
    except concurrent.futures.process.BrokenProcessPool as error:
        time.sleep(SIGNAL_SECONDS)  # a signal to the whole group has reached this process too: it is told first
        raise MelError(
            f"A worker process was killed, most likely for want of memory: {remedy} and run again."
        ) from error
    finally:
        ours.close()  # ends workers that are still busy, where nobody wants their results
        # After a signal nobody may hold this any more, and a thread of the pool, which cannot wait for itself, ends it.
        with contextlib.suppress(OSError):  # where the program ends, Python may have closed the pool's pipes already
            pool.shutdown(wait=threading.current_thread() is threading.main_thread(), cancel_futures=True)
        theirs.close()


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What processes that are started here find in their environment, where nobody has said otherwise."""
    added = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _submit(pool: concurrent.futures.ProcessPoolExecutor, function: Callable[[Any], Any], item: Any) -> Any:
    try:
        with _deaf_to_the_keyboard():
            return pool.submit(function, item)
    except OSError as error:
        if error.errno is not None:
            raise
        # A worker was killed just now, and Python has closed the pipes that the next one was to have.
        raise concurrent.futures.process.BrokenProcessPool(str(error)) from error


@contextlib.contextmanager
def _deaf_to_the_keyboard() -> Iterator[None]:
    """Processes that are started here never see the SIGINT of a terminal, which goes to their parent as well."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die_with_parent(parent: multiprocessing.connection.Connection, pid: int) -> None:
    """In a worker: ends it when process `pid` dies, or closes the other end of `parent`."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != pid:  # it died before it was watched
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True, name="parent").start()


def _watch(parent: multiprocessing.connection.Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        parent.recv_bytes()
    os._exit(1)
