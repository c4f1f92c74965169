"""Stages on threads of their own: order, errors of each, and that nothing is left running."""

import threading

import pytest

from mel.linking.stages import ahead, behind


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name in ("ahead", "behind")]


def endless(closed):
    """Items without an end, which note when they are closed."""
    try:
        yield from range(10**9)
    finally:
        closed.append(True)


def test_items_pass_through_all_stages_in_order():
    used = []
    with ahead(range(100)) as made, behind(used.extend) as give:
        for item in made:
            give(2 * item)
    assert used == list(range(0, 200, 2))


def test_the_next_item_is_made_and_the_last_one_used_while_one_is_at_work():
    second_is_made, first_is_used = threading.Event(), threading.Event()

    def items():
        yield 1
        second_is_made.set()
        yield 2

    def use(given):
        for _ in given:
            first_is_used.set()

    with ahead(items()) as made, behind(use) as give:
        for item in made:
            assert second_is_made.wait(10)
            give(item)
            assert first_is_used.wait(10)


def test_an_error_of_the_first_stage_follows_what_it_made_and_the_last_stage_ends():
    used, closed = [], []

    def items():
        try:
            yield 1
            raise ValueError("broken")
        finally:
            closed.append(True)

    with pytest.raises(ValueError, match="broken"), ahead(items()) as made, behind(used.extend) as give:
        for item in made:
            give(item)
    assert closed == [True] and set(used) <= {1}


def test_an_error_of_the_last_stage_ends_the_others():
    closed = []

    def use(given):
        next(given)
        raise OSError("full")

    with pytest.raises(OSError, match="full"), ahead(endless(closed)) as made, behind(use) as give:
        for item in made:
            give(item)
    assert closed == [True]


def test_an_error_after_the_last_item_is_raised_too():
    def use(given):
        list(given)
        raise OSError("full")

    with pytest.raises(OSError, match="full"), behind(use) as give:
        give(1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_between_ends_all(error):
    closed, used = [], []

    def use(given):
        try:
            used.extend(given)
        finally:
            closed.append(True)

    with pytest.raises(error), ahead(endless(closed)) as made, behind(use) as give:
        for item in made:
            give(item)
            if item == 3:
                raise error
    assert closed == [True, True]


def test_whoever_stops_before_the_last_item_is_told_of():
    with pytest.raises(RuntimeError, match="has left before the last one"), behind(lambda given: next(given)) as give:
        for item in range(10):
            give(item)


def test_nothing_at_all():
    used = []
    with ahead([]) as made, behind(used.extend) as give:
        for item in made:
            give(item)
    assert used == []
