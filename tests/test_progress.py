"""Lines of progress: count, rate and time left by a clock that starts after the first units."""

import pytest

from mel import progress
from mel.progress import Progress, duration


class Clock:
    """Time that moves when it is told to, and the lines that are logged."""

    def __init__(self):
        self.now, self.lines = 0.0, []

    def monotonic(self):
        return self.now

    def info(self, line, *values):
        self.lines.append(line % values)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "logging", clock)
    return clock


def test_rate_and_time_left_do_not_count_what_came_before_the_first_units(clock):
    counted = Progress("embedding", 100, "rows")
    for seconds in (60, 8, 8):  # the first ten rows wait for the compiler
        clock.now += seconds
        counted.add(10, note="n")
    assert clock.lines == ["embedding: 20/100 rows · 1.2 rows/s · 1:04 left · n"]
    counted.close()
    assert clock.lines[-1] == "embedding: 30 rows in 1:16 · 0.39 rows/s"


def test_what_was_done_before_counts_as_done_and_not_as_fast(clock):
    counted = Progress("fetching", 100, "MB", done=50)
    for _ in range(2):
        clock.now += 10
        counted.add(10)
    assert clock.lines == ["fetching: 70/100 MB · 1 MB/s · 0:30 left"]


def test_without_a_total_no_time_is_left(clock):
    counted = Progress("linking", 0, "mentions")
    for _ in range(2):
        clock.now += 10
        counted.add(5)
    assert clock.lines == ["linking: 10/? mentions · 0.5 mentions/s · ? left"]


@pytest.mark.parametrize("seconds, text", [(93, "1:33"), (3725, "1:02:05"), (0.9, "0:00")])
def test_durations(seconds, text):
    assert duration(seconds) == text
