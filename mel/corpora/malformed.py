"""What readers skip: malformed records are counted, logged with their place, and fatal above a limit."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from absl import logging

from mel.types import MelError

LOGGED = 20


class MalformedRecord(NamedTuple):
    """Where a record that could not be used stands, and why it could not."""

    place: str
    line: int
    reason: str


class Malformed:
    """The records that readers skipped.

    A worker process fills `Malformed(limit, log=False)` from one part and returns it; its parent
    calls `merge` in the order of the parts, so that what is logged does not depend on the workers.

    Attributes:
      records: every malformed record, in the order found.
      dropped: how many well-formed records were not wanted, by reason.
    """

    def __init__(self, limit: int, log: bool = True):
        self.limit = limit
        self.log = log
        self.records: list[MalformedRecord] = []
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.records)

    def add(self, place: str, line: int, reason: str) -> None:
        """Counts one malformed record; logs it if it is among the first `LOGGED`.

        Raises:
          MelError: it is one more than `limit`.
        """
        self.records.append(MalformedRecord(place, line, reason))
        if self.log and len(self) <= LOGGED:
            rest = "; from here on they are only counted" if len(self) == LOGGED else ""
            logging.warning("%s:%d: skipped a malformed record: %s%s", place, line, reason, rest)
        if len(self) > self.limit:
            raise MelError(
                f"More than {self.limit} records are malformed, the last one at {place}:{line} ({reason}): "
                "repair the input or allow more."
            )

    def merge(self, other: Malformed) -> None:
        """Adds everything that `other` holds, in its order.

        Raises:
          MelError: together they are more than `limit`.
        """
        self.dropped.update(other.dropped)
        for record in other.records:
            self.add(*record)
