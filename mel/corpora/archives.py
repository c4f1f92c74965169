"""DaMuEL archives as they are: a tar of parts or a folder of parts, read line by line, never unpacked.

What is named like a part is read, or refused by name. Everything else in an archive that is not
one of the files published beside the parts (README, LICENSE, schema.json) is named in a warning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pathlib
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from absl import logging

from mel.corpora import compression
from mel.corpora.lines import open_file
from mel.corpora.lines import read_lines as read_bounded_lines
from mel.corpora.names import check_language
from mel.types import MelError

_ARCHIVE = re.compile(r"damuel_[^_]+_(?P<language>.+?)(\.tar)?")
_COMPRESSED_TAR = re.compile(r"damuel_[^_]+_(?P<language>.+?)\.(tar\.\w+|tgz|tbz2?|txz|zip)")
_PART = re.compile(rf"(?P<stem>part-\d+)(?P<suffix>{'|'.join(map(re.escape, compression.SUFFIXES))})")
_COMPANION = re.compile(r"(readme|licen[cs]e|schema|\.).*|.*\.md5", re.IGNORECASE)
_NAMED = 5  # of the things that are not read, in a warning
_LINKS = 16  # that may lead from one to the next


class Digest(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes, /) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A range of bytes holding JSON lines, compressed as its name says.

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

    @property
    def place(self) -> str:
        """Its name and that of its archive."""
        archive = self.path.parent if self.path.name == self.name else self.path
        return f"{self.name} of {archive.name}"


def find_archive(directory: str | os.PathLike, language: str) -> pathlib.Path:
    """The archive of a language: `damuel_*_<language>.tar`, a folder of that name, or `directory` itself.

    `directory` itself is the archive of every language if parts lie directly in it.

    Raises:
      MelError: `directory` is no folder, or holds none or several archives of the language, or
        `language` cannot be one.
    """
    directory, language = pathlib.Path(directory), check_language(language)
    if not directory.is_dir():
        raise MelError(f"{directory} is not a folder: give the one that holds damuel_*_{language}.tar.")
    paths = sorted(directory.iterdir())
    archives: dict[str, list[pathlib.Path]] = {}
    for path in paths:
        if (match := _ARCHIVE.fullmatch(path.name)) and (path.is_dir() or path.suffix == ".tar"):
            archives.setdefault(match["language"], []).append(path)
    matches = ((path, _COMPRESSED_TAR.fullmatch(path.name)) for path in paths)
    compressed = [str(path) for path, match in matches if match and match["language"] == language]
    unread = f"{', '.join(compressed)} is not read: decompress it to damuel_*_{language}.tar"
    match archives.get(language, []):
        case [archive]:
            if compressed:
                logging.warning("%s, or take it away; %s is read.", unread, archive.name)
            return archive
        case [] if any(_PART.fullmatch(path.name) for path in paths):
            return directory
        case []:
            there = ", ".join(archives) or "none"
            hint = f" {unread}." if compressed else ""
            raise MelError(f"{directory} has no damuel_*_{language}.tar; languages there: {there}.{hint}")
        case several:
            names = ", ".join(path.name for path in several)
            raise MelError(f"{directory} has several archives of {language!r} ({names}): leave only one there.")


def list_parts(archive: str | os.PathLike) -> list[Part]:
    """The parts of a tar or of a folder, sorted by name, each in one compression only.

    Links are followed inside a tar, and wherever they lead in a folder. Of two members of one name
    the last one counts, as when the tar is unpacked.

    Raises:
      MelError: there are none; the tar cannot be read to its end; or what is named like a part is
        no file, a sparse member, or lies in another folder than the others.
    """
    archive = pathlib.Path(archive)
    found, unread = _parts_of_folder(archive) if archive.is_dir() else _parts_of_tar(archive)
    _name_unread(archive, unread)
    parts: dict[str, Part] = {}
    places: dict[tuple[int, ...], Part] = {}
    for part in sorted(found, key=_by_preference):
        stem, place = _named(part)["stem"], _place(part)
        if parts.setdefault(stem, part) is not part:
            logging.warning("%s is not read: %s has the same records.", part, parts[stem].name)
        elif part.size and places.setdefault(place, part) is not part:
            logging.warning("%s is not read: it is a link to %s.", parts.pop(stem), places[place].name)
    if not parts:
        suffixes = ", ".join(f"part-NNNNN{suffix}" for suffix in compression.SUFFIXES)
        raise MelError(f"{archive} holds no {suffixes}: it is no DaMuEL archive.")
    return sorted(parts.values(), key=lambda part: part.name)


def read_lines(
    part: Part, skip: Callable[[int, str], None], digest: Digest | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yields (line number from 1, line without its end) for each line that is not blank.

    Args:
      part: what is read.
      skip: is called with the number of each line that is too long, and the reason.
      digest: is told all bytes of the part, as they lie in its file, by the time that the last line is read.

    Raises:
      MelError: the part cannot be read, is truncated, damaged or UTF-16.
    """
    try:
        with open(part.path, "rb") as file:
            began = os.fstat(file.fileno())
            file.seek(part.offset)
            data = io.BufferedReader(_Slice(file, part.size, digest), buffer_size=1 << 16)
            lines = compression.decompressed(data, _named(part)["suffix"])
            for number, line in read_bounded_lines(lines, str(part), skip):
                if line := line.strip():
                    yield number, line
            while data.read(1 << 16):  # what stands after the end of compressed data
                pass
            _require_unchanged(file, part, began)
    except EOFError:
        raise MelError(f"{part} is truncated: fetch it again.") from None
    except compression.ERRORS as error:
        raise MelError(f"{part} cannot be read ({error}): fetch it again.") from error


def digest_part(part: Part) -> str:
    """The SHA-256 of the bytes of a part, in hexadecimal.

    Raises:
      MelError: it cannot be read, or is truncated.
    """
    digest = hashlib.sha256()
    try:
        with open(part.path, "rb") as file:
            began = os.fstat(file.fileno())
            file.seek(part.offset)
            data = io.BufferedReader(_Slice(file, part.size, digest), buffer_size=1 << 20)
            while data.read(1 << 20):
                pass
            _require_unchanged(file, part, began)
    except EOFError:
        raise MelError(f"{part} is truncated: fetch it again.") from None
    except OSError as error:
        raise MelError(f"{part} cannot be read ({error}): fetch it again.") from error
    return digest.hexdigest()


def _require_unchanged(file: BinaryIO, part: Part, began: os.stat_result) -> None:
    """Raises MelError if the file of a part is not as it was when it was listed and opened."""
    now = os.fstat(file.fileno())
    grown = part.path.name == part.name and now.st_size != part.size
    if grown or (now.st_size, now.st_mtime_ns) != (began.st_size, began.st_mtime_ns):
        raise MelError(f"{part} changed while it was read: wait until nobody writes it any more, and run again.")


class _Slice(io.RawIOBase):
    """The next `size` bytes of an open file.

    Raises:
      EOFError: the file ends before.
    """

    def __init__(self, file: BinaryIO, size: int, digest: Digest | None):
        self._file, self._left, self._digest = file, size, digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._file.read(min(len(buffer), self._left))
        if self._left and not data:
            raise EOFError
        self._left -= len(data)
        if self._digest is not None:
            self._digest.update(data)
        buffer[: len(data)] = data
        return len(data)


def _by_preference(part: Part) -> tuple[str, int]:
    match = _named(part)
    return match["stem"], compression.SUFFIXES.index(match["suffix"])


def _named(part: Part) -> re.Match[str]:
    """The pieces of a part's name, which is one by the time that there is a `Part`."""
    match = _PART.fullmatch(part.name)
    assert match is not None
    return match


def _place(part: Part) -> tuple[int, ...]:
    """Equal for two parts that are the same bytes of the same file."""
    status = part.path.stat()
    return status.st_dev, status.st_ino, part.offset


def _name_unread(archive: pathlib.Path, names: list[str]) -> None:
    if names := [name for name in names if not _COMPANION.fullmatch(posixpath.basename(name))]:
        rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        logging.warning("%s: not read, for no part has such a name: %s%s.", archive, ", ".join(names[:_NAMED]), rest)


def _parts_of_folder(folder: pathlib.Path) -> tuple[list[Part], list[str]]:
    """The parts, and the names of everything else."""
    parts, unread = [], []
    for path in sorted(folder.iterdir()):
        if not _PART.fullmatch(path.name):
            if not (_ARCHIVE.fullmatch(path.name) and (path.is_dir() or path.suffix == ".tar")):
                unread.append(path.name)
            continue
        with open_file(path) as file:
            parts.append(Part(path, path.name, 0, os.fstat(file.fileno()).st_size))
    return parts, unread


def _parts_of_tar(archive: pathlib.Path) -> tuple[list[Part], list[str]]:
    """The parts, and the names of all other members that are no folders."""
    members: dict[str, tarfile.TarInfo] = {}
    try:
        with open_file(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            last = "its beginning"
            for member in tar:
                last = posixpath.normpath(member.name)
                if members.pop(last, None) and not member.isdir():
                    logging.warning("%s has several members %s: the last one is read.", archive, last)
                members[last] = member
            # tarfile takes a damaged header after the first member for the end; the true end is a block of zeros.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise MelError(f"{archive} is truncated or damaged after {last}: fetch it again.")
    except tarfile.TarError as error:
        raise MelError(f"{archive} is truncated or not an uncompressed tar ({error}): fetch it again.") from error
    except OSError as error:
        raise MelError(f"{archive} cannot be read ({error.strerror}): give a DaMuEL archive.") from error
    names = [name for name in members if _PART.fullmatch(posixpath.basename(name))]
    if len(folders := sorted({posixpath.dirname(name) for name in names})) > 1:
        raise MelError(f"{archive} holds parts in several folders ({', '.join(folders)}): make it of one of them.")
    parts = [_part_of_member(archive, name, members) for name in names]
    return parts, [name for name, member in members.items() if name not in names and not member.isdir()]


def _part_of_member(archive: pathlib.Path, name: str, members: dict[str, tarfile.TarInfo]) -> Part:
    """Raises MelError if the member, or what it links to, is no plain file of the tar."""
    member, links = members[name], 0
    while member.issym() or member.islnk():
        folder = posixpath.dirname(member.name) if member.issym() else ""
        target, links = members.get(posixpath.normpath(posixpath.join(folder, member.linkname))), links + 1
        if target is None or links > _LINKS:
            raise MelError(f"{archive}:{name} is a link to {member.linkname}, which the tar does not hold.")
        member = target
    if member.issparse() or not member.isfile():
        kind = "a sparse member" if member.issparse() else "no file"
        raise MelError(f"{archive}:{name} is {kind}, and cannot be read in place: make the tar of plain files.")
    return Part(archive, posixpath.basename(name), member.offset_data, member.size)
