"""QIDs that were merged into others: one map for every place where a QID enters."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping

from mel.types import EntityId, MelError, parse_qid


class Redirects:
    """Where each merged QID went, chains followed to their end.

    Example:
      Redirects({"Q900": "Q901", "Q901": "Q100"}).resolve("Q900")  # "Q100"
    """

    def __init__(self, targets: Mapping[EntityId, EntityId] | None = None):
        """Follows all chains; a QID that is its own target was not moved.

        Raises:
          MelError: QIDs lead to each other in a cycle.
        """
        targets = {old: new for old, new in (targets or {}).items() if old != new}
        self._ends: dict[EntityId, EntityId] = {}
        for old in targets:
            chain = dict.fromkeys([old])
            while (last := next(reversed(chain))) in targets and last not in self._ends:
                if (target := targets[last]) in chain:
                    cycle = list(chain)[list(chain).index(target) :]
                    names = " → ".join((*cycle[:5], target))
                    raise MelError(f"Redirects lead in a cycle of {len(cycle)} QIDs, {names}: take one of them out.")
                chain[target] = None
            self._ends.update((qid, self._ends.get(last, last)) for qid in chain if qid in targets)

    @classmethod
    def read(cls, path: str | os.PathLike) -> Redirects:
        """Reads a JSON object {old QID: new QID}; "" is none.

        Raises:
          MelError: there is no such file, it is something else, it says two things of one QID, or
            QIDs lead to each other in a cycle.
        """
        if not path:
            return cls()
        try:
            pairs = json.loads(pathlib.Path(path).read_bytes(), object_pairs_hook=_once)
            targets = {parse_qid(old): parse_qid(new) for old, new in pairs.items()}
        except (OSError, ValueError, AttributeError, RecursionError, MelError) as error:
            raise MelError(f'--redirects={path} is no JSON object of QIDs, as {{"Q1": "Q2"}}: {error}') from error
        return cls(targets)

    def __len__(self) -> int:
        return len(self._ends)

    def __contains__(self, qid: EntityId) -> bool:
        return qid in self._ends

    def resolve(self, qid: EntityId) -> EntityId:
        """The QID that stands for this one now: itself where it was not moved."""
        return self._ends.get(qid, qid)

    @property
    def digest(self) -> str:
        """Equal for two maps that move the same QIDs to the same ends, in whatever steps; hexadecimal."""
        lines = sorted(f"{old} {new}\n" for old, new in self._ends.items())
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _once(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise ValueError(f"it says two things of {key!r}")
    return found
