"""A tree in the layout of Mewsli-9 -> documents: `<language>/{docs.tsv, mentions.tsv, text/<docid>}`."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from absl import logging

from mel.corpora.malformed import Malformed
from mel.types import EntityId, MelError, Mention, Span, parse_qid

_DOCUMENT_COLUMNS = ("docid", "title", "text_md5")
_MENTION_COLUMNS = ("docid", "position", "length", "mention", "qid")
_IN_REFERENCES = {"True": True, "False": False}


class Document(NamedTuple):
    """A text and its mentions, in the order of mentions.tsv.

    Attributes:
      docid: the name of the text, unique over all languages.
      title: "" if docs.tsv does not tell.
      text: the context of all `mentions`.
      mentions: those whose span covers their surface form.
      dropped: how many others there were, by reason.
    """

    docid: str
    title: str
    text: str
    mentions: tuple[Mention, ...]
    dropped: Counter[str]


class _Row(NamedTuple):
    line: int
    position: int
    length: int
    surface_form: str
    gold: EntityId
    frequency_bin: int
    in_references: bool | None


def list_languages(directory: str | os.PathLike) -> list[str]:
    """The languages of a tree, sorted.

    Raises:
      MelError: it has none.
    """
    languages = sorted(path.parent.name for path in pathlib.Path(directory).glob("*/mentions.tsv"))
    if not languages:
        raise MelError(f"{directory} is no Mewsli-9 tree: it has no <language>/mentions.tsv.")
    return languages


def read_documents(directory: str | os.PathLike, language: str, malformed: Malformed) -> Iterator[Document]:
    """Yields the documents of a language that have mentions, one text in memory at a time.

    Args:
      directory: the tree.
      language: one of its languages.
      malformed: where rows that cannot be parsed are reported.

    Raises:
      MelError: the language, a column or a text is missing, a text is not the one that docs.tsv
        describes, or too many rows are malformed.
    """
    if language not in (languages := list_languages(directory)):
        raise MelError(f"{directory} has no language {language!r}, only {', '.join(languages)}.")
    folder = pathlib.Path(directory) / language
    path = folder / "mentions.tsv"
    described = _read_descriptions(folder / "docs.tsv", malformed)
    for docid, rows in _read_mentions(path, malformed).items():
        title, md5 = described.get(docid, ("", ""))
        text = _read_text(folder / "text" / docid, md5)
        mentions, dropped = [], Counter()
        for row in rows:
            if reason := _fault(row, text):
                dropped[reason] += 1
                logging.log_first_n(logging.WARNING, "%s:%d: dropped a mention: %s.", 20, path, row.line, reason)
                continue
            span = Span(row.position, row.position + row.length)
            mention_id = f"{docid}:{row.position}:{row.length}"
            about = {"document": docid, "frequency_bin": row.frequency_bin, "in_references": row.in_references}
            mentions.append(Mention(mention_id, language, text, span, row.gold, title=title, **about))
        yield Document(docid, title, text, tuple(mentions), dropped)


def _fault(row: _Row, text: str) -> str:
    """Why a row is not a mention of the text, "" if it is one."""
    end = row.position + row.length
    if not 0 <= row.position < end <= len(text):
        return "span outside its text"
    if text[row.position : end] != row.surface_form:
        return "surface form differs from the text"
    return ""


def _read_descriptions(path: pathlib.Path, malformed: Malformed) -> dict[str, tuple[str, str]]:
    """{docid: (title, md5 of the text)}; empty if there is no such file."""
    if not path.exists():
        return {}
    rows = _read_rows(path, _DOCUMENT_COLUMNS, malformed)
    return {row["docid"]: (row["title"], row["text_md5"]) for _, row in rows}


def _read_mentions(path: pathlib.Path, malformed: Malformed) -> dict[str, list[_Row]]:
    """The rows by docid: documents in the order of their first row, rows in the order of the file."""
    by_docid: dict[str, list[_Row]] = {}
    for line, row in _read_rows(path, _MENTION_COLUMNS, malformed):
        try:
            position, length = int(row["position"]), int(row["length"])
            in_references = _IN_REFERENCES.get(row.get("qid_in_refs", ""))
            frequency_bin = int(row.get("freq_bin") or -1)
            gold = parse_qid(row["qid"])
            parsed = _Row(line, position, length, row["mention"], gold, frequency_bin, in_references)
        except (ValueError, MelError) as error:
            malformed.add(str(path), line, str(error))
        else:
            by_docid.setdefault(row["docid"], []).append(parsed)
    return by_docid


def _read_rows(
    path: pathlib.Path, columns: tuple[str, ...], malformed: Malformed
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line number from 1, {column: value}) behind the header; quotes mean nothing."""
    with open(path, "rb") as file:
        header = file.readline().decode("utf-8", "replace").rstrip("\r\n").split("\t")
        if missing := [column for column in columns if column not in header]:
            raise MelError(f"{path} has no column {', '.join(missing)}: its header must name {', '.join(columns)}.")
        for line, data in enumerate(file, 2):
            try:
                values = data.decode("utf-8").rstrip("\r\n").split("\t")
            except UnicodeDecodeError as error:
                malformed.add(str(path), line, str(error))
                continue
            if len(values) == len(header):
                yield line, dict(zip(header, values))
            else:
                malformed.add(str(path), line, f"it has {len(values)} columns, not {len(header)}")


def _read_text(path: pathlib.Path, md5: str) -> str:
    """The text as it is: decoding bytes keeps every line end, so offsets stay true."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise MelError(f"The text {path} cannot be read ({error.strerror}): fetch the tree again.") from error
    except UnicodeDecodeError as error:
        raise MelError(f"The text {path} is not UTF-8 ({error}): fetch the tree again.") from error
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 not in ("", found):
        raise MelError(f"The text {path} has md5 {found}, but docs.tsv expects {md5}: fetch the tree again.")
    return text
