"""Files of records that users write: JSON lines (.jsonl) or CSV (.csv), compressed or not, as their names say.

CSV is read as the standard library's csv module has it: commas, and quotes around fields that hold a comma, a quote
or a line end. Its first line names the columns. A list is written with "|" between its items, an object as JSON; an
empty field is as if it were not there. Columns that nobody reads are named once for each file.
"""

from __future__ import annotations

import contextlib
import csv
import io
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, BinaryIO, cast

import orjson
from absl import logging

from mel.corpora import compression
from mel.corpora.lines import MAX_LINE_BYTES, open_file, read_lines
from mel.corpora.malformed import Malformed
from mel.corpora.names import shown
from mel.types import MelError

FORMATS = (".jsonl", ".csv")
SEPARATOR = "|"  # of the items of a list in CSV

_WHOLE = re.compile(r"(-?\d{1,18})(\.0*)?")  # data frames make 3.0 of 3 where a column has gaps
_KINDS = {str: "text", int: "whole number", list: "list of texts", dict: "object of whole numbers"}
_NAMED = 10  # columns that are not read, in a warning

Columns = Mapping[str, type]
Record = dict[str, Any]


def read_records(
    path: pathlib.Path, columns: Columns, required: Collection[str], malformed: Malformed
) -> Iterator[tuple[int, Record]]:
    """Yields (number of its first line, record) for each record that has what is required.

    Args:
      path: the file.
      columns: those that are read, with their types: str, int, list (of str) or dict (of str to int). A record has
        a value for each, an empty one where the file has none. A JSON number will do for a text.
      required: those that have to be there and not be blank.
      malformed: where records that cannot be used are reported; the others are for the caller to count.

    Raises:
      MelError: the name of the file tells no format, it cannot be read, is damaged or UTF-16, its header lacks a
        column, its quotes are not closed, or too many records are malformed.
    """
    read = _read_csv if format_of(path) == ".csv" else _read_json_lines
    unread: dict[str, None] = {}
    with open_decompressed(path) as data:
        for line, values in read(data, path, required, malformed):
            unread.update(dict.fromkeys(name for name in values if name not in columns))
            try:
                record = {name: _value(name, kind, values.get(name)) for name, kind in columns.items()}
                if missing := [name for name in required if _is_blank(record[name])]:
                    raise ValueError(f"it has no {missing[0]}")
            except ValueError as error:
                malformed.add(str(path), line, str(error))
            else:
                yield line, {name: columns[name]() if each is None else each for name, each in record.items()}
    if unread:
        names = ", ".join(shown(name) for name in list(unread)[:_NAMED])
        more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
        logging.warning("%s: not read: %s%s. What is read: %s.", path, names, more, ", ".join(columns))


@contextlib.contextmanager
def open_decompressed(path: pathlib.Path) -> Iterator[BinaryIO]:
    """What a file holds, decompressed where its name says that it is compressed.

    Raises:
      MelError: it is no file, or cannot be read to the end, also in the block.
    """
    try:
        with open_file(path) as file:
            yield compression.decompressed(cast(io.BufferedReader, file), _compression(path))
    except EOFError:
        raise MelError(f"{path} is truncated: write it again.") from None
    except compression.ERRORS as error:
        raise MelError(f"{path} cannot be read ({error}): write it again.") from error


def format_of(path: pathlib.Path) -> str:
    """One of `FORMATS`, by the name of a file.

    Raises:
      MelError: it is another.
    """
    name = path.with_suffix("") if _compression(path) else path
    if name.suffix not in FORMATS:
        suffixes = ", ".join(filter(None, compression.SUFFIXES))
        raise MelError(f"{path} is named neither .jsonl nor .csv, with or without {suffixes}: rename or convert it.")
    return name.suffix


def _compression(path: pathlib.Path) -> str:
    return path.suffix if path.suffix in compression.SUFFIXES else ""


def _read_json_lines(
    file: BinaryIO, path: pathlib.Path, required: Collection[str], malformed: Malformed
) -> Iterator[tuple[int, Record]]:
    for number, line in read_lines(file, str(path), lambda line, reason: malformed.add(str(path), line, reason)):
        if not line.strip():
            continue
        try:
            values = orjson.loads(line)
            if not isinstance(values, dict):
                raise ValueError("it is no JSON object")
        except ValueError as error:  # orjson's errors are ValueErrors too
            malformed.add(str(path), number, str(error))
        else:
            yield number, values


def _read_csv(
    file: BinaryIO, path: pathlib.Path, required: Collection[str], malformed: Malformed
) -> Iterator[tuple[int, Record]]:
    """Bytes that are no UTF-8 become lone surrogates, so that the record that has them is found whole."""
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = read_lines(file, str(path), lambda line, reason: malformed.add(str(path), line, reason))
    rows = csv.reader((line.decode("utf-8", "surrogateescape") for _, line in lines), strict=True)
    header = _header(rows, path, required)
    while True:
        first = rows.line_num + 1
        try:
            fields = next(rows)
            if not fields:  # a blank line
                continue
            if len(fields) != len(header):
                raise ValueError(f"it has {len(fields)} columns, not {len(header)}")
            "".join(fields).encode()
        except StopIteration:
            return
        except UnicodeEncodeError:
            malformed.add(str(path), first, "it is not UTF-8")
        except (csv.Error, ValueError) as error:
            if str(error) == "unexpected end of data":
                raise MelError(f"{path}:{first} opens a quote that is never closed: close it, or double it.") from None
            lines_read = f", with the lines up to {rows.line_num}" if rows.line_num > first else ""
            malformed.add(str(path), first, f"{error}{lines_read}")
        else:
            yield first, dict(zip(header, fields, strict=True))


def _header(rows: Iterator[list[str]], path: pathlib.Path, required: Collection[str]) -> list[str]:
    try:
        header = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise MelError(f"The header of {path} is no CSV ({error}): write it with a comma between columns.") from None
    if missing := [name for name in required if name not in header]:
        raise MelError(
            f"{path} has no column {', '.join(missing)}, its header is {shown(','.join(header))}: it must name "
            f"{', '.join(required)}, with commas between."
        )
    if twice := [name for name in header if header.count(name) > 1]:
        raise MelError(f"{path} has the column {shown(twice[0])} twice: name each once.")
    return header


def _value(name: str, kind: type, value: Any) -> Any:
    """What a record says of a column, None if nothing.

    Raises:
      ValueError: it is of another type; a text may stand for any, as CSV has it.
    """
    if isinstance(value, str) and kind is not str:
        value = _from_text(name, kind, value.strip())
    elif kind is str and type(value) is int:
        value = str(value)
    if value is None:
        return None
    if kind is dict and isinstance(value, dict):
        fits = all(type(count) is int and count >= 0 for count in value.values())
    elif kind is list and isinstance(value, list):
        fits = all(isinstance(item, str) for item in value)
    else:
        fits = type(value) is kind
    if not fits:
        raise ValueError(f"{name} is {shown(str(value))}, no {_KINDS[kind]}")
    return value


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _from_text(name: str, kind: type, text: str) -> Any:
    if not text:
        return None
    if kind is list:
        return text.split(SEPARATOR)
    if kind is int and (match := _WHOLE.fullmatch(text)):
        return int(match[1])
    if kind is dict:
        try:
            return orjson.loads(text)
        except ValueError:
            pass
    return text
