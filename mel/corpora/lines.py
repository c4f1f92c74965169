"""Lines of files that others wrote: UTF-8 with or without a byte-order mark, and bounded in length.

A byte-order mark at the beginning of a file of lines is no part of its first line. UTF-16 is
recognised and refused by name.
"""

from __future__ import annotations

import codecs
import pathlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from mel.types import MelError

# A record with 2 MB of text, the most that a wiki page may have, and all its tokens takes about 40 MB.
MAX_LINE_BYTES = 64 << 20
# The parts of the largest archive hold well below 1 GB each.
MAX_FILE_BYTES = 64 << 30

_PIECE = 1 << 20
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def open_file(path: pathlib.Path) -> BinaryIO:
    """Opens a file for reading; what would block for ever, as a FIFO, is no file.

    Raises:
      MelError: it is not there, is no file, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise MelError(f"{path} is {'a folder' if path.is_dir() else 'a device or pipe'}, not a file.")
        return open(path, "rb")
    except OSError as error:
        raise MelError(f"{path} cannot be read: {error.strerror}.") from error


def without_mark(data: bytes, place: str) -> bytes:
    """The beginning of a file without its byte-order mark.

    Raises:
      MelError: it is UTF-16, by its mark or because one of the first two bytes alone is zero.
    """
    if is_utf16(data) or (len(data) > 1 and (data[0] == 0) != (data[1] == 0)):
        raise MelError(f"{place} is UTF-16: convert it to UTF-8, as with `iconv -f UTF-16 -t UTF-8`.")
    return data.removeprefix(codecs.BOM_UTF8)


def is_utf16(data: bytes) -> bool:
    """Whether data begins with the byte-order mark of UTF-16."""
    return data.startswith(_UTF16)


def read_lines(file: BinaryIO, place: str, skip: Callable[[int, str], None]) -> Iterator[tuple[int, bytes]]:
    """Yields (line number from 1, line with its end), holding one line in memory at a time; b"" for a line too long.

    Args:
      file: read from where it stands, which is its beginning.
      place: its name for messages.
      skip: is called with the number of each line that is longer than `MAX_LINE_BYTES`, and the reason.

    Raises:
      MelError: the file is UTF-16, or longer than `MAX_FILE_BYTES`.
    """
    number = size = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        size += len(line)
        if number == 1:
            line = without_mark(line, place)
        if len(line) <= MAX_LINE_BYTES:
            yield number, line
        else:
            while line and not line.endswith(b"\n"):
                line = file.readline(_PIECE)
                size += len(line)
                _check_size(size, place)
            skip(number, f"it is longer than {MAX_LINE_BYTES >> 20} MB")
            yield number, b""
        _check_size(size, place)


def _check_size(size: int, place: str) -> None:
    if size > MAX_FILE_BYTES:
        raise MelError(f"{place} holds more than {MAX_FILE_BYTES >> 30} GB: it is no part of a corpus; take it away.")
