"""One line every few seconds on how far a long task has come, how fast it is, and when it ends."""

from __future__ import annotations

import time

from absl import logging

SECONDS = 10.0


class Progress:
    """Counts units of work and logs count, rate and time left, at most every `SECONDS`.

    The first units may wait for something to be compiled, so the rate and the time left, which is that of
    this work alone, are by the clock from when they are done.

    Example:
      progress = Progress("embedding entities", total=1000, unit="rows")
      progress.add(100)  # embedding entities: 100/1000 rows · 50 rows/s · 0:18 left
    """

    def __init__(self, what: str, total: int, unit: str, done: int = 0):
        self._what, self._total, self._unit = what, total, unit
        self._done = self._started_with = self._began_with = done
        self._began = self._started = self._said = time.monotonic()
        self._first = True

    def add(self, units: int = 1, note: str = "") -> None:
        """Counts `units` as done; `note` is put at the end of the line if one is due."""
        self._done += units
        now = time.monotonic()
        if self._first:
            self._first, self._started, self._started_with = False, now, self._done
        elif now - self._said >= SECONDS:
            self._said = now
            rate = (self._done - self._started_with) / (now - self._started)
            left = duration((self._total - self._done) / rate) if rate and self._total else "?"
            total = self._total or "?"
            how_far = f"{self._what}: {self._done}/{total} {self._unit}"
            logging.info("%s · %s %s/s · %s left%s", how_far, _short(rate), self._unit, left, note and f" · {note}")

    def close(self) -> None:
        """Logs the total and the mean rate."""
        elapsed = time.monotonic() - self._began
        rate = (self._done - self._began_with) / max(elapsed, 1e-9)
        logging.info(
            "%s: %d %s in %s · %s %s/s", self._what, self._done, self._unit, duration(elapsed), _short(rate), self._unit
        )


def duration(seconds: float) -> str:
    """93 -> '1:33', 3725 -> '1:02:05'."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _short(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
