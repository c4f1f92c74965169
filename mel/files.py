"""Files on disk: written whole or not at all, with all their space taken, read with suspicion."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np

from mel.faults import first_line
from mel.types import MelError

DRAFT = ".draft-"  # begins the name of what is being written
MOST_BYTES_OF_JSON = 256 << 20


def allocate(path: pathlib.Path, shape: tuple[int, ...], dtype: Any) -> np.memmap:
    """A new .npy file mapped into memory for writing, with all its space taken at once.

    Writing to a mapped file that the disk has no room for would kill the process.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a small file whole or not at all, replacing what was there; the caller is its one writer."""
    draft = path.with_name(f"{DRAFT}{path.name}")
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def read_json(path: pathlib.Path, remedy: str = "delete it and run the same command again") -> dict[str, Any]:
    """Reads a file that holds a JSON object.

    Args:
      path: of the file.
      remedy: what to do where it is damaged, as the end of a sentence.

    Raises:
      FileNotFoundError: there is none.
      MelError: it is no JSON object, or absurdly large.
    """
    size = path.stat().st_size
    if size > MOST_BYTES_OF_JSON:
        raise MelError(f"{path} is damaged, {size:,} bytes are too many for what it should hold: {remedy}.")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise MelError(f"{path} is damaged ({first_line(error)}): {remedy}.") from None
    if not isinstance(value, dict):
        raise MelError(f"{path} is damaged, it holds no JSON object: {remedy}.")
    return value


def read_json_lines(path: pathlib.Path, remedy: str) -> list[dict[str, Any]]:
    """Reads a file of JSON objects, one a line; a last line that is still being written is passed over.

    Args:
      path: of the file; where there is none, there are no lines.
      remedy: what to do where a line is damaged, as the end of a sentence.

    Raises:
      MelError: a line is no JSON object.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    values = []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise MelError(f"{path}:{number} is damaged ({first_line(error)}): {remedy}.") from None
        if not isinstance(values[-1], dict):
            raise MelError(f"{path}:{number} is damaged, it is no JSON object: {remedy}.")
    return values


def sync_file(path: pathlib.Path) -> None:
    """Waits until the content of a file is on disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: pathlib.Path) -> None:
    """Waits until the names in a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
