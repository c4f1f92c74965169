"""What an artefact was made from that is no artefact: which files, how large and with which content.

A list of them stands in the artefact. Later their names and sizes are compared with what is there, and
of small ones the content, too; the digests of large ones are compared whenever they are read again.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from mel.types import MelError

FILE = "sources.json"


class Source(NamedTuple):
    """A file, or a part of one.

    Attributes:
      bytes: how large it is.
      sha256: of its content, "" where nobody has looked at it.
      place: what people call it, "part-00007.xz of damuel_1.0_en.tar"; it does not tell two sources apart.
    """

    bytes: int
    sha256: str = ""
    place: str = ""


Sources = dict[str, Source]  # by a name that stays the same wherever the files are: "en/part-00007.xz"


def write_sources(folder: str | os.PathLike, sources: Mapping[str, Source]) -> None:
    """Writes the list that `read_sources` reads."""
    listed = {name: [source.bytes, source.sha256] for name, source in sources.items()}
    (pathlib.Path(folder) / FILE).write_bytes(orjson.dumps(listed, option=orjson.OPT_SORT_KEYS))


def read_sources(folder: str | os.PathLike) -> Sources:
    """What an artefact was made from.

    Raises:
      MelError: it has no such list, or a damaged one.
    """
    path = pathlib.Path(folder) / FILE
    try:
        return {name: Source(size, sha256) for name, (size, sha256) in orjson.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise MelError(f"{path} is missing or damaged: delete {folder} and run mel-prepare-data again.") from error


def first_change(made_from: Mapping[str, Source], now: Mapping[str, Source], made: str) -> str:
    """What is not as it was, as a sentence without its end; "" if nothing is.

    Args:
      made_from: what `read_sources` says.
      now: what is there; a digest is compared where it is known.
      made: what was made, "kb".
    """
    changes = []
    for name in sorted(made_from.keys() | now.keys()):
        then, there = made_from.get(name), now.get(name)
        if there is None:
            changes.append(f"{name} is gone since {made} was made")
        elif then is None:
            changes.append(f"{there.place or name} is new since {made} was made")
        elif more := there.bytes - then.bytes:
            by = f"{abs(more):,} byte{'s' if abs(more) > 1 else ''} {'more' if more > 0 else 'fewer'}"
            changes.append(f"{there.place or name} has {by} than when {made} was made")
        elif there.sha256 not in ("", then.sha256):
            changes.append(f"{there.place or name} has another content than when {made} was made")
    others = f", and {len(changes) - 1} more changed" if len(changes) > 1 else ""
    return f"{changes[0]}{others}" if changes else ""
