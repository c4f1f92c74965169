"""When and by which versions a report was made: for its page only, since a report itself holds no time."""

from __future__ import annotations

import datetime
import pathlib
import subprocess

import mel
from mel.seals import package_versions

SHOWN = ("jax", "flax", "scann")
CHECKOUT = pathlib.Path(mel.__file__).resolve().parents[1]


def origin(now: datetime.datetime, checkout: pathlib.Path = CHECKOUT) -> dict[str, str]:
    """The time, the versions, and the commit where mel runs from a checkout, by name."""
    versions = package_versions()
    known = {"mel": mel.__version__} | {name: versions[name] for name in SHOWN if name in versions}
    commit = _commit(checkout)
    time = now.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"on": time} | known | ({"commit": commit} if commit else {})


def _commit(checkout: pathlib.Path) -> str:
    """A short name of what is checked out, with "-dirty" where files differ from it; "" where that is not known."""
    if not (checkout / ".git").exists():
        return ""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
