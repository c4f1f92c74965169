"""Tab-separated files with a header, as data frame libraries write them and as others do.

Data frame libraries put a field that holds a tab, a quote or a line end between quotes and double
the quotes inside, so a record may span lines. Other files were never quoted: there a quote is a
character like any other, also at the beginning of a field. A file does not say which it is, and two
may have been joined, so each record and each field is judged by itself:

1. A line with as many tabs as the header is a record. Any other line is one only if quoted fields,
   its own or continued on the lines after it, give it exactly the columns of the header.
2. A field is read as quoted if it is enclosed in quotes, all quotes inside are doubled, and one of
   the characters that need quoting is inside: `"5"" disk"` is `5" disk`. But `"Moon"`, `"Moon` and
   `5" disk` are what they look like. Where every field of the header is enclosed, the writer quoted
   everything, and a field needs no such character.

A file that was never quoted has no field of the second kind: it would have to hold each of its own
quotes twice.
"""

from __future__ import annotations

import pathlib
import re
from collections import deque
from collections.abc import Iterator

from mel.corpora.lines import open_file, read_lines
from mel.corpora.malformed import Malformed
from mel.types import MelError

MAX_RECORD_LINES, MAX_RECORD_BYTES = 100, 1 << 20

_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=\t|\r?\n?\Z)')
_PLAIN = re.compile(r"[^\t]*")
_NEEDS_QUOTING = re.compile(r'["\t\r\n]')

_Line = tuple[int, bytes]


def read_table(
    path: pathlib.Path, columns: tuple[str, ...], malformed: Malformed
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (number of the first line, {column: value}) for each record after the header.

    Args:
      path: the file.
      columns: those that the header must name.
      malformed: where lines that are no record, or not UTF-8, are reported; well-formed ones are for
        the caller to count.

    Raises:
      MelError: the file cannot be read, is UTF-16, lacks a column, or too many lines are malformed.
    """
    with open_file(path) as file:
        lines = read_lines(file, str(path), lambda line, reason: malformed.add(str(path), line, reason))
        header_line = next(lines, (1, b""))[1].decode("utf-8", "replace").rstrip("\r\n")
        header = header_line.split("\t")
        all_quoted = all(_QUOTED.fullmatch(name) for name in header)
        if all_quoted:
            header = [name[1:-1] for name in header]
        if missing := [column for column in columns if column not in header]:
            raise MelError(f"{path} has no column {', '.join(missing)}: its header must name {', '.join(columns)}.")
        ahead: deque[_Line] = deque()
        while ahead or (line := next(lines, None)):
            number, data = ahead.popleft() if ahead else line
            if not data.rstrip(b"\r\n"):  # b"" for a line that was too long
                continue
            try:
                fields = _plain_fields(data.decode("utf-8"), len(header))
                fields = fields or _quoted_fields(data, len(header), lines, ahead)
            except ValueError as error:  # UnicodeDecodeError is one
                malformed.add(str(path), number, str(error))
                continue
            yield number, {column: _unquoted(field, all_quoted) for column, field in zip(header, fields, strict=True)}


def _plain_fields(line: str, columns: int) -> list[str] | None:
    """The fields of a line with the right number of tabs, None for another line."""
    fields = line.rstrip("\r\n").split("\t")
    return fields if len(fields) == columns else None


def _quoted_fields(data: bytes, columns: int, lines: Iterator[_Line], ahead: deque[_Line]) -> list[str]:
    """The fields, as they are, of a record that begins with a line and may take those after it.

    Lines that were read but not taken are left in `ahead`.

    Raises:
      ValueError: there is no such record.
    """
    found = len(data.split(b"\t"))
    record, taken = data, 0
    while True:
        if record.count(b'"') % 2 == 0 and (fields := _split(record.decode("utf-8"))) and len(fields) == columns:
            for _ in range(taken):
                ahead.popleft()
            return fields
        if b'"' not in data or taken == MAX_RECORD_LINES or len(record) > MAX_RECORD_BYTES:
            break
        if taken == len(ahead):
            if not (line := next(lines, None)):
                break
            ahead.append(line)
        record += ahead[taken][1]
        taken += 1
    raise ValueError(f"it has {found} columns, not {columns}")


def _split(record: str) -> list[str] | None:
    """The fields of a record, quotes and all, where tabs and line ends between quotes separate nothing.

    None if a line end stands outside quotes before the end.
    """
    fields, place = [], 0
    while True:
        match = _QUOTED.match(record, place) or _PLAIN.match(record, place)
        assert match is not None  # a plain field may be empty
        field = match[0]
        if match.re is _PLAIN and "\n" in field.rstrip("\r\n"):
            return None
        place = match.end()
        fields.append(field)
        if record[place : place + 1] != "\t":
            fields[-1] = field.rstrip("\r\n") if match.re is _PLAIN else field
            return fields
        place += 1


def _unquoted(field: str, all_quoted: bool) -> str:
    if (match := _QUOTED.fullmatch(field)) and (all_quoted or _NEEDS_QUOTING.search(match[1])):
        return match[1].replace('""', '"')
    return field
