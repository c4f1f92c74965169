"""A function over parts in worker processes, its results in the order of the parts."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mel.types import MelError


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
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each worker has one core
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context)
    try:
        running: deque = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) >= 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise MelError(
            "A worker process was killed, most likely for want of memory: lower --workers and run again."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        del os.environ["TOKENIZERS_PARALLELISM"]
