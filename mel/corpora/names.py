"""Names that come from outside, checked before they become part of a path or of an id."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from mel.types import MelError

MAX_NAME_BYTES = 200  # file systems take 255, and a draft's prefix and a suffix come on top

_LANGUAGE = re.compile(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f/\\]")
_SHOWN = 60  # characters of a bad name that a message shows


def check_name(name: str, what: str) -> str:
    """Returns a name that can stand for one file in one folder.

    Args:
      name: the name as it was found.
      what: what it names, for the message: "docid".

    Raises:
      MelError: it is empty, "." or "..", longer than `MAX_NAME_BYTES` in UTF-8, or holds a path
        separator or a control character.
    """
    if not name.strip() or name in (".", ".."):
        fault = "it names no file"
    elif len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        fault = f"it is longer than {MAX_NAME_BYTES} bytes"
    elif found := _FORBIDDEN.search(name):
        fault = f"it holds {found[0]!r}"
    else:
        return name
    raise MelError(f"The {what} {shown(name)} cannot be used as a name: {fault}.")


def check_language(language: str) -> str:
    """Returns a language's code: letters and digits, in groups joined by "-" or "_", as in "zh-min-nan".

    Raises:
      MelError: it is something else.
    """
    if len(language) > MAX_NAME_BYTES or not _LANGUAGE.fullmatch(language):
        raise MelError(f"{shown(language)} is not a language: letters and digits are expected, as in 'en'.")
    return language


def check_distinct(flag: str, names: Sequence[str]) -> None:
    """Refuses a flag's list that has a name twice."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise MelError(f"--{flag} names {twice[0]} twice: once is enough.")


def shown(text: str) -> str:
    """A value for a message: quoted, and cut if it is long."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}… ({len(text)} characters)"
