"""What readers skip: malformed records are counted, logged with their place, and fatal if they are too many.

Two bounds hold. `limit` is a number, over everything that one command reads. `share` is a part of
one source (a file, the archive of a language), looked at when the source has been read: a file of
which a fifth cannot be used was written or fetched wrongly, and its rest says nothing about the
whole. Of fewer than `FEW` records a share says nothing, but a source of which nothing can be used
is always refused.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from absl import logging

from mel.types import MelError

LOGGED = 20
FEW = 10
MAX_SHARE = 0.2

_REASONS = 3  # of the first records, in a final message
_REASON_CHARACTERS = 300


class MalformedRecord(NamedTuple):
    """Where a record that could not be used stands, and why it could not."""

    place: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.place}:{self.line} ({self.reason})"


class Malformed:
    """The records that readers skipped, and how many they did not.

    A worker process fills `Malformed(limit, log=False)` from one part and returns it; its parent
    calls `merge` in the order of the parts, so that what is logged does not depend on the workers,
    and `finish` after the last part of each source.

    Attributes:
      records: every malformed record, in the order found.
      well_formed: how many others were read; readers count them here.
      dropped: how many well-formed records were not wanted, by reason.
    """

    def __init__(self, limit: int, share: float = MAX_SHARE, log: bool = True):
        """Raises MelError where a bound is none."""
        if limit < 0:
            raise MelError(f"--max_malformed={limit} must not be below 0.")
        if not 0 <= share <= 1:
            raise MelError(f"--max_malformed_share={share:g} is not a share: give 0 to 1.")
        self.limit = limit
        self.share = share
        self.log = log
        self.records: list[MalformedRecord] = []
        self.well_formed = 0
        self.dropped: Counter[str] = Counter()
        self._finished = (0, 0)  # how many records, and well-formed ones, the sources before have

    def __len__(self) -> int:
        return len(self.records)

    def add(self, place: str, line: int, reason: str) -> None:
        """Counts one malformed record; logs it if it is among the first `LOGGED`.

        Raises:
          MelError: it is one more than `limit`.
        """
        record = MalformedRecord(place, line, reason[:_REASON_CHARACTERS])
        self.records.append(record)
        if self.log and len(self) <= LOGGED:
            rest = "; from here on they are only counted" if len(self) == LOGGED else ""
            logging.warning("%s:%d: skipped a malformed record: %s%s", place, line, record.reason, rest)
        if len(self) > self.limit:
            raise MelError(
                f"More than {self.limit} records are malformed, the last one at {record}, the first: "
                f"{self._reasons(0)}: {self._way_out()}"
            )

    def merge(self, other: Malformed) -> None:
        """Adds everything that `other` holds, in its order.

        Raises:
          MelError: together they are more than `limit`.
        """
        self.dropped.update(other.dropped)
        self.well_formed += other.well_formed
        for record in other.records:
            self.add(*record)

    def finish(self, source: str) -> None:
        """Judges what was read since the last call, all of it from `source`.

        Raises:
          MelError: nothing of it could be used, or more than `share` of `FEW` records and more could not.
        """
        first, before = self._finished
        self._finished = len(self), self.well_formed
        malformed, read = len(self) - first, len(self) - first + self.well_formed - before
        if malformed and (malformed == read or (read >= FEW and malformed > self.share * read)):
            if malformed == read:
                bound, way_out = "all of them", "repair the input, or give another."
            else:
                bound, way_out = f"more than a share of {self.share:g}", self._way_out()
            raise MelError(
                f"{malformed} of {read} records of {source} were malformed, {bound}, the first: "
                f"{self._reasons(first)}: {way_out}"
            )

    def tally(self) -> str:
        """What was read, for a message that says why nothing came of it: "2 of 2 records were malformed, …"."""
        read = len(self) + self.well_formed
        parts = [f"{count} of {read} were dropped: {reason}" for reason, count in sorted(self.dropped.items())]
        if self.records:
            parts.insert(0, f"{len(self)} of {read} records were malformed, the first: {self._reasons(0)}")
        return "; ".join(parts) or f"{read} records were read"

    def _reasons(self, first: int) -> str:
        return ", ".join(str(record) for record in self.records[first : first + _REASONS])

    def _way_out(self) -> str:
        return (
            f"repair the input, or allow more with --max_malformed (now {self.limit}) "
            f"and --max_malformed_share (now {self.share:g})."
        )
