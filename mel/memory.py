"""How much memory this process may still take: of the machine, and of the containers that it runs in."""

from __future__ import annotations

import contextlib
import math
import pathlib
from typing import NamedTuple

ROOT = pathlib.Path("/")


class _Group(NamedTuple):
    """What the files of a control group are called.

    Attributes:
      folder: where the groups stand.
      limit, usage: the most bytes that it may have, and those that it has.
      files: the lines of memory.stat that count pages of files, which the system takes back when memory is wanted.
    """

    folder: str
    limit: str
    usage: str
    files: tuple[str, str]


_GROUPS = {
    "": _Group("sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file")),
    "memory": _Group(
        "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
}  # fmt: skip


def free_memory(root: pathlib.Path = ROOT) -> float:
    """The bytes that are free for this process; infinite where the system does not say.

    What is left under the limit of a container counts where it is less than what the machine has left.

    Args:
      root: of the file system, in which the system tells of itself.
    """
    free = math.inf
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return min([free, *(_left(folder, group) for folder, group in _groups(root))])


def _groups(root: pathlib.Path) -> list[tuple[pathlib.Path, _Group]]:
    """The folders of the groups that this process is in, and of those that these are in."""
    inside = dict.fromkeys(_GROUPS, "/")  # a container may see its own group as the topmost
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            inside |= {name: path for name in controllers.split(",") if name in _GROUPS}
    found = []
    for name, group in _GROUPS.items():
        path = pathlib.PurePosixPath(inside[name].lstrip("/"))
        found += [(root / group.folder / each, group) for each in (path, *path.parents)]
    return found


def _left(folder: pathlib.Path, group: _Group) -> float:
    """What is left of the bytes that a group may have."""
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        left = int((folder / group.limit).read_text("ascii")) - int((folder / group.usage).read_text("ascii"))
        with contextlib.suppress(OSError, ValueError):
            counted = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
            left += sum(int(counted.get(name, 0)) for name in group.files)
        return max(0, left)
    return math.inf
