"""The line of waiting requests: what is done together, in which order, and what becomes of the others."""

import asyncio
import threading

import pytest

from mel.serving.batching import Batches, Busy
from mel.types import MelError


class Work:
    """Doubles numbers; keeps the batches; -1 is wrong and -2 a bug."""

    def __init__(self):
        self.batches, self.gate = [], threading.Event()
        self.gate.set()

    def __call__(self, group, items):
        self.batches.append((group, list(items)))
        assert self.gate.wait(30)
        if -1 in items:
            raise MelError("-1 is wrong.")
        if -2 in items:
            raise RuntimeError("a bug")
        return [2 * item for item in items]


@pytest.fixture
def work():
    return Work()


def run(work, *questions, **bounds):
    """Asks while the work is held up by a first question, which is 0."""

    async def ask():
        batches = Batches(work, **{"max_waiting": 100, "max_weight": 4} | bounds)
        work.gate.clear()
        first = asyncio.ensure_future(batches.result_of(0))
        while not work.batches:
            await asyncio.sleep(0.001)
        asked = []
        for question in questions:
            asked.append(asyncio.ensure_future(batches.result_of(*question)))
            await asyncio.sleep(0)
        if bounds.get("wait_seconds"):
            await asyncio.sleep(3 * bounds["wait_seconds"])
        work.gate.set()
        results = await asyncio.gather(first, *asked, return_exceptions=True)
        await asyncio.to_thread(batches.close)
        return results[1:]

    return asyncio.run(ask())


def test_what_waits_together_is_done_together_in_its_order(work):
    assert run(work, (1,), (2,), (3,)) == [2, 4, 6]
    assert work.batches == [(None, [0]), (None, [1, 2, 3])]


def test_a_batch_has_one_group_and_a_bounded_weight(work):
    assert run(work, (1, "a", 2), (2, "b", 1), (3, "a", 2), (4, "a", 1), (5, "b", 9)) == [2, 4, 6, 8, 10]
    assert work.batches[1:] == [("a", [1, 3]), ("b", [2]), ("a", [4]), ("b", [5])]


def test_one_wrong_item_does_not_spoil_the_others(work):
    one, wrong, other = run(work, (1,), (-1,), (2,))
    assert (one, other) == (2, 4) and isinstance(wrong, MelError)


def test_a_bug_is_told_to_all_of_its_batch_and_to_no_other(work):
    results = run(work, (1, "a"), (-2, "a"), (2, "b"))
    assert [type(result) for result in results] == [RuntimeError, RuntimeError, int]


def test_who_comes_when_the_line_is_full_is_sent_away(work):
    *served, refused = run(work, (1,), (2,), (3,), max_waiting=2)
    assert served == [2, 4] and isinstance(refused, Busy) and (refused.status, refused.retry_after) == (429, 1)


def test_who_waits_too_long_is_sent_away(work):
    (late,) = run(work, (1,), wait_seconds=0.01)
    assert isinstance(late, Busy) and late.status == 503 and work.batches == [(None, [0])]


def test_who_has_gone_is_not_worked_for(work):
    async def ask():
        batches = Batches(work, 10, 4)
        work.gate.clear()
        first = asyncio.ensure_future(batches.result_of(0))
        while not work.batches:
            await asyncio.sleep(0.001)
        gone = asyncio.ensure_future(batches.result_of(1))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        work.gate.set()
        assert await first == 0 and await batches.result_of(2) == 4
        await asyncio.to_thread(batches.close)
        with pytest.raises(Busy, match="about to end"):
            await batches.result_of(3)

    asyncio.run(ask())
    assert work.batches == [(None, [0]), (None, [2])]


def test_closing_answers_all_who_wait(work):
    async def ask():
        batches = Batches(work, 10, 1)
        asked = [asyncio.ensure_future(batches.result_of(number)) for number in range(5)]
        await asyncio.sleep(0)
        await asyncio.to_thread(batches.close)
        return await asyncio.gather(*asked)

    assert asyncio.run(ask()) == [0, 2, 4, 6, 8]
