"""All entities of a bundle in one file for other programs: entities.safetensors.

embeddings               float32 [rows, size], of unit length
ids, titles, languages   uint8, the UTF-8 of all rows' strings one after the other
ids_ends, titles_ends, languages_ends
                         int64 [rows], where the string of each row ends

An entity has a row for each of its languages. String i is bytes ends[i - 1] to ends[i]; the first begins at 0.

It is written in blocks of rows, so that it may be larger than memory; 8 bytes a row and column of strings are held. The
safetensors library writes arrays that are held whole, so the head of the file is ours: its length in 8 bytes, then
JSON with the type, shape and place of each array.
"""

from __future__ import annotations

import json
import math
import pathlib
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from mel.corpora.kb import KnowledgeBase
from mel.evaluation.evidence import Evidence
from mel.shards.blocks import grouped

FILE = "entities.safetensors"
ROWS_AT_ONCE = 65_536
TYPES = {"F32": 4, "I64": 8, "U8": 1}  # what safetensors calls them, with their bytes


class _Column(NamedTuple):
    """An array of the file, and its bytes in pieces."""

    name: str
    kind: str
    shape: tuple[int, ...]
    pieces: Iterable[bytes]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * TYPES[self.kind]


def write_entities(folder: pathlib.Path, evidence: Evidence) -> None:
    """Writes the file into `folder`."""
    rows, size = evidence.embeddings_ED.shape
    blocks = (evidence.embeddings_ED[start : start + ROWS_AT_ONCE] for start in range(0, rows, ROWS_AT_ONCE))
    columns = [_Column("embeddings", "F32", (rows, size), (block.astype("<f4").tobytes() for block in blocks))]
    strings = []
    for name, read in _strings(evidence.kb).items():
        ends_N = np.cumsum(np.fromiter((len(each.encode()) for each in read()), "<i8", rows), dtype="<i8")
        columns.append(_Column(f"{name}_ends", "I64", (rows,), [ends_N.tobytes()]))
        strings.append(_Column(name, "U8", (int(ends_N[-1]),), _utf8(read())))
    _write(folder / FILE, [*columns, *strings])  # the wider types first, so that all of them are aligned


def _write(path: pathlib.Path, columns: list[_Column]) -> None:
    about, end = {}, 0
    for column in columns:
        place = [end, end + column.size]
        about[column.name] = {"dtype": column.kind, "shape": column.shape, "data_offsets": place}
        end = place[1]
    head = json.dumps(about).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for column in columns:
            file.writelines(column.pieces)


def _utf8(strings: Iterable[str]) -> Iterator[bytes]:
    return ("".join(block).encode() for block in grouped(strings, ROWS_AT_ONCE))


def _strings(kb: KnowledgeBase) -> dict[str, Callable[[], Iterable[str]]]:
    return {
        "ids": lambda: (kb.ids[number] for number in map(int, kb.entities_E)),
        "titles": lambda: kb.titles,
        "languages": lambda: (kb.languages[place] for place in map(int, kb.languages_E)),
    }
