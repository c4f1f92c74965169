"""DaMuEL archives as they are: a tar of parts or a folder of parts, read line by line, never unpacked."""

from __future__ import annotations

import bz2
import dataclasses
import io
import lzma
import os
import pathlib
import re
import tarfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from absl import logging

from mel.types import MelError

_ARCHIVE = re.compile(r"damuel_[^_]+_(?P<language>.+?)(\.tar)?")
_PART = re.compile(r"(?P<stem>part-\d+)(?P<compression>\.xz|\.bz2|)")
_PREFERENCE = (".xz", ".bz2", "")


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A range of bytes holding JSON lines, xz or bz2 compressed if its name says so.

    It can be sent to another process and read there without the rest of its archive.

    Attributes:
      path: the file it lies in, a tar or the part itself.
      name: "part-00000.xz".
      offset: where it begins in the file.
      size: how many bytes it has there.
    """

    path: pathlib.Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return str(self.path) if self.path.name == self.name else f"{self.path}:{self.name}"


def find_archive(directory: str | os.PathLike, language: str) -> pathlib.Path:
    """The archive of a language: `damuel_*_<language>.tar`, a folder of that name, or `directory` itself.

    `directory` itself is the archive of every language if parts lie directly in it.

    Raises:
      MelError: `directory` is no folder, or holds none or several archives of the language.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise MelError(f"{directory} is not a folder: give the one that holds damuel_*_{language}.tar.")
    archives: dict[str, list[pathlib.Path]] = {}
    for path in sorted(directory.iterdir()):
        if (match := _ARCHIVE.fullmatch(path.name)) and (path.is_dir() or path.suffix == ".tar"):
            archives.setdefault(match["language"], []).append(path)
    match archives.get(language, []):
        case [archive]:
            return archive
        case [] if any(_PART.fullmatch(path.name) for path in directory.iterdir()):
            return directory
        case []:
            there = ", ".join(archives) or "none"
            raise MelError(f"{directory} has no damuel_*_{language}.tar; languages there: {there}.")
        case several:
            names = ", ".join(path.name for path in several)
            raise MelError(f"{directory} has several archives of {language!r} ({names}): leave only one there.")


def list_parts(archive: str | os.PathLike) -> list[Part]:
    """The parts of a tar or of a folder, sorted by name, each in one compression only.

    Raises:
      MelError: there are none, or the tar cannot be read to its end.
    """
    archive = pathlib.Path(archive)
    found = _parts_of_folder(archive) if archive.is_dir() else _parts_of_tar(archive)
    parts: dict[str, Part] = {}
    for part in sorted(found, key=_by_preference):
        stem = _PART.fullmatch(part.name)["stem"]
        if parts.setdefault(stem, part) is not part:
            logging.warning("%s is not read: %s has the same records.", part, parts[stem].name)
    if not parts:
        raise MelError(f"{archive} holds no part-NNNNN.xz, part-NNNNN.bz2 or part-NNNNN: it is no DaMuEL archive.")
    return sorted(parts.values(), key=lambda part: part.name)


def read_lines(part: Part) -> Iterator[tuple[int, bytes]]:
    """Yields (line number from 1, line without its end) for each line that is not blank.

    Raises:
      MelError: the part cannot be read, is truncated or damaged.
    """
    try:
        with open(part.path, "rb") as file, _decompressed(part, file) as lines:
            for number, line in enumerate(lines, 1):
                if line := line.strip():
                    yield number, line
    except EOFError:
        raise MelError(f"{part} is truncated: fetch it again.") from None
    except (OSError, lzma.LZMAError) as error:
        raise MelError(f"{part} cannot be read ({error}): fetch it again.") from error


class _Slice(io.RawIOBase):
    """The next `size` bytes of an open file."""

    def __init__(self, file: BinaryIO, size: int):
        self._file = file
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._file.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


def _decompressed(part: Part, file: BinaryIO) -> BinaryIO:
    file.seek(part.offset)
    data = io.BufferedReader(_Slice(file, part.size), buffer_size=1 << 16)
    if part.name.endswith(".xz"):
        return lzma.open(data)
    if part.name.endswith(".bz2"):
        return bz2.open(data)
    return data


def _by_preference(part: Part) -> tuple[str, int]:
    match = _PART.fullmatch(part.name)
    return match["stem"], _PREFERENCE.index(match["compression"])


def _parts_of_folder(folder: pathlib.Path) -> Iterable[Part]:
    files = (path for path in folder.iterdir() if path.is_file() and _PART.fullmatch(path.name))
    return [Part(path, path.name, 0, path.stat().st_size) for path in files]


def _parts_of_tar(archive: pathlib.Path) -> Iterable[Part]:
    try:
        with open(archive, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = [(pathlib.PurePosixPath(member.name).name, member) for member in tar if member.isfile()]
            # tarfile takes a damaged header behind the first member for the end; the true end is a block of zeros.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                last = members[-1][0] if members else "its beginning"
                raise MelError(f"{archive} is truncated or damaged behind {last}: fetch it again.")
    except tarfile.TarError as error:
        raise MelError(f"{archive} is truncated or not an uncompressed tar ({error}): fetch it again.") from error
    except OSError as error:
        raise MelError(f"{archive} cannot be read ({error.strerror}): give a DaMuEL archive.") from error
    return [Part(archive, name, member.offset_data, member.size) for name, member in members if _PART.fullmatch(name)]
