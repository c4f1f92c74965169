"""Fetches DaMuEL archives from where they are published, and goes on where it was interrupted.

An archive is written into a draft beside its place and takes that place when it is whole: as long
as the server said, with the md5 that stands beside it (`<name>.md5`, on the server or in the
folder; where there is none, the log says so), and a tar of parts to its end.

`LINDAT` is the repository's address for a file of a published item, by handle and name. It follows
the pattern by which other items of the same repository are fetched, and could not be tried from
where this was written; nor could the names `damuel_1.0_<language>.tar` on that server. The
repository shows the md5 of each file on its page, but is not known to serve it as a file: to have it
compared, put it into `<name>.md5` in the folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import requests
from absl import logging

from mel.config import flag
from mel.corpora.archives import find_archive, list_parts
from mel.corpora.names import check_language
from mel.progress import Progress
from mel.types import MelError

LINDAT = "https://lindat.mff.cuni.cz/repository/server/api/core/bitstreams/handle/11234/1-5047"

_PIECE = 1 << 16
_MD5_TRIES = 3
_MD5 = re.compile(r"\s*([0-9a-fA-F]{32})\b")
_RANGE = re.compile(r"bytes (?:\*|(?P<first>\d+)-\d+)/(?P<total>\d+)")
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_FAULTS = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


@dataclasses.dataclass(frozen=True)
class Download:
    download: bool = flag(False, "Fetch the archives of --languages that --damuel lacks into it.")
    download_from: str = flag(LINDAT, "Address under which damuel_1.0_<language>.tar is published.")


@dataclasses.dataclass(frozen=True)
class Patience:
    """When to give up on a server.

    Attributes:
      tries: how many in a row may bring nothing.
      wait_s: after the first of them; each wait is twice the one before, or what the server asks for.
      longest_wait_s: most seconds of one wait.
      silence_s: seconds without a byte that end a try.
    """

    tries: int = 8
    wait_s: float = 1.0
    longest_wait_s: float = 60.0
    silence_s: float = 60.0


def fetch_archives(
    folder: pathlib.Path, languages: Iterable[str], address: str = LINDAT, patience: Patience = Patience()
) -> None:
    """Fetches the archive of each language that `folder` lacks; the folder is made if need be.

    Raises:
      MelError: the server has no such archive, gives up or is given up, what it gives is no archive
        or not the one that its md5 describes, or the disk is full.
    """
    if not address.startswith(("http://", "https://")):
        raise MelError(f"--download_from={address} is no address: it must begin with http:// or https://.")
    folder.mkdir(parents=True, exist_ok=True)
    for language in map(check_language, languages):
        if _is_there(folder, language):
            continue
        name = f"damuel_1.0_{language}.tar"
        with requests.Session() as session:
            session.headers["Accept-Encoding"] = "identity"
            _fetch(session, f"{address.rstrip('/')}/{name}", folder / name, patience)


def _is_there(folder: pathlib.Path, language: str) -> bool:
    """Whether the folder has an archive of the language, or several."""
    with contextlib.suppress(MelError):
        return bool(find_archive(folder, language))
    return any(True for ending in ("", ".tar") for _ in folder.glob(f"damuel_*_{language}{ending}"))


def _fetch(session: requests.Session, url: str, target: pathlib.Path, patience: Patience) -> None:
    draft = target.with_name(f".draft-{target.name}")
    try:
        with _only_writer(draft) as file:
            _fill(session, url, file, patience)
            os.fsync(file.fileno())
            _check(session, url, draft, target, patience)
            os.replace(draft, target)
    except OSError as error:  # requests' errors are OSErrors too
        raise MelError(f"{url} cannot be fetched into {target.parent}: {error}.") from error


@contextlib.contextmanager
def _only_writer(draft: pathlib.Path) -> Iterator[BinaryIO]:
    """The draft, at its end; only one process has it, and for as long as it lives. One without content goes away."""
    with open(draft, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MelError(f"Another process is fetching {draft}: wait until it is done.") from None
        try:
            yield file
        finally:
            if not file.tell():
                draft.unlink(missing_ok=True)


def _fill(session: requests.Session, url: str, file: BinaryIO, patience: Patience) -> None:
    """Appends to the draft until it is whole, however often the connection fails.

    Raises:
      MelError: the server refuses, or `patience` ends.
    """
    tries = 0
    while True:
        before, wait = file.tell(), 0.0
        try:
            with session.get(url, headers=_range(file), stream=True, timeout=patience.silence_s) as response:
                total = _begin(response, url, file)
                if total is not None and _receive(response, url, file, total):
                    return
                fault = f"it answered {response.status_code}"
                asked = response.headers.get("Retry-After", "")
                wait = float(asked) if asked.isdecimal() else 0.0  # the other form is a date
        except _FAULTS as error:
            fault = _reason(error, patience)
        tries = 0 if file.tell() > before else tries + 1
        if tries >= patience.tries:
            raise MelError(f"{url} cannot be fetched, {tries} tries brought nothing ({fault}): run again later.")
        wait = min(max(wait, patience.wait_s * 2 ** max(tries - 1, 0)), patience.longest_wait_s)
        logging.warning("%s: %s; going on from byte %d in %.0f s.", url, fault, file.tell(), wait)
        time.sleep(wait)


def _range(file: BinaryIO) -> dict[str, str]:
    return {"Range": f"bytes={file.tell()}-"} if file.tell() else {}


def _begin(response: requests.Response, url: str, file: BinaryIO) -> int | None:
    """How long the whole file is (0 if not told), the draft standing at the response's first byte.

    None if there is nothing to receive now: the server is busy, or the draft was of no use to it.

    Raises:
      MelError: the server does not give the file.
    """
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    match response.status_code:
        case 200:  # it gives no ranges
            _empty(file)
            return int(response.headers.get("Content-Length", 0))
        case 206 if found and found["first"] == str(file.tell()):
            return int(found["total"])
        case 416 if found and found["total"] == str(file.tell()):
            return int(found["total"])
        case 206 | 416:
            _empty(file)
            return None
        case busy if busy in _BUSY:
            return None
    raise MelError(
        f"{url} cannot be fetched: the server answers {response.status_code} {response.reason}; "
        "check --languages and --download_from."
    )


def _empty(file: BinaryIO) -> None:
    file.truncate(0)
    file.seek(0)


def _receive(response: requests.Response, url: str, file: BinaryIO, total: int) -> bool:
    """Appends what the response holds, and says whether the file is whole.

    Raises:
      MelError: the disk has no room for the rest.
    """
    if response.status_code == 416:
        return True
    free = shutil.disk_usage(os.path.dirname(file.name)).free
    if total - file.tell() > free:
        raise MelError(
            f"{url} needs {(total - file.tell()) >> 20:,} MB more, and {os.path.dirname(file.name)} has "
            f"{free >> 20:,} MB: free some space and run again."
        )
    megabytes = file.tell() >> 20
    progress = Progress(f"fetching {url.rpartition('/')[2]}", total >> 20, "MB", megabytes)
    for piece in response.iter_content(_PIECE):
        file.write(piece)
        progress.add((file.tell() >> 20) - megabytes)
        megabytes = file.tell() >> 20
    progress.close()
    return file.tell() >= total


def _reason(error: Exception, patience: Patience) -> str:
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return f"nothing came for {patience.silence_s:g} s"
    return f"the connection broke ({type(error).__name__})"


def _check(session: requests.Session, url: str, draft: pathlib.Path, target: pathlib.Path, patience: Patience) -> None:
    """Raises MelError, and takes the draft away, if it is not what was published."""
    expected = _md5_beside(session, url, target, patience)
    try:
        if expected and expected != (found := _md5(draft)):
            raise MelError(f"its md5 is {found}, and {expected} was published")
        list_parts(draft)
    except MelError as error:
        draft.unlink()
        raise MelError(f"What {url} gave is not the archive ({error}): check --download_from and run again.") from error


def _md5_beside(session: requests.Session, url: str, target: pathlib.Path, patience: Patience) -> str:
    """The md5 in `<name>.md5` in the folder, or else on the server; "" if there is none."""
    beside = target.with_name(f"{target.name}.md5")
    text = beside.read_text("utf-8", "replace") if beside.is_file() else _text_at(session, f"{url}.md5", patience)
    if match := _MD5.match(text):
        return match[1].lower()
    logging.warning("%s: no md5 is published beside it, so only its length and its layout are checked.", url)
    return ""


def _text_at(session: requests.Session, url: str, patience: Patience) -> str:
    """The text at an address, "" if there is none or it cannot be had."""
    for number in range(_MD5_TRIES):
        time.sleep(number * patience.wait_s)
        with contextlib.suppress(*_FAULTS):
            response = session.get(url, timeout=patience.silence_s)
            if response.status_code not in _BUSY:
                return response.text if response.status_code == 200 else ""
    return ""


def _md5(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
