"""A tree in the layout of Mewsli-9 -> documents: `<language>/{docs.tsv, mentions.tsv, text/<docid>}`.

Mewsli-9 is published as its TSVs and scripts that cut the texts out of dumps of WikiNews: in
dense_representations_for_entity_retrieval/mel of github.com/google-research/google-research,
get-mewsli-9.sh makes the tree mewsli-9/output/dataset. `check_counts` says whether all of it is there.

How the TSVs are read is stated in `mel.corpora.tables`. Of a mention, `docid`, `position`,
`length`, `mention` and `qid` are needed; every other column may be missing, blank or unreadable and
costs nothing. A number that went through a data frame is one: `3.0` is 3. The QID of a mention whose
entity is in no knowledge base is `NIL`.

Positions count the characters of the text whose md5 docs.tsv tells. A byte-order mark in front of
a text, and line ends, are characters of it. Where the md5 does not fit a text as it is, but fits it
without the mark or with its line ends translated back, that is the text that is meant: it is read
so, and a warning says what was done to it.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from absl import logging

from mel.corpora.lines import is_utf16, open_file
from mel.corpora.malformed import Malformed
from mel.corpora.names import check_language, check_name, shown
from mel.corpora.redirects import Redirects
from mel.corpora.sources import Source, Sources
from mel.corpora.tables import read_table
from mel.types import NIL_ID, EntityId, MelError, Mention, Span, parse_qid

MAX_TEXT_BYTES = 64 << 20
# The mentions of each language of Mewsli-9, the unusable one included.
MEWSLI_9 = {
    "ar": 7_367, "de": 65_592, "en": 80_242, "es": 56_716, "fa": 535, "ja": 34_463, "sr": 35_669, "ta": 2_692,
    "tr": 5_811,
}  # fmt: skip

TABLES = "docs.tsv", "mentions.tsv"
_DOCUMENT_COLUMNS = ("docid", "title", "text_md5")
_BESIDE_MENTIONS = ("docs.tsv", "text", "mentions.tsv?*")
_MENTION_COLUMNS = ("docid", "position", "length", "mention", "qid")
_IN_REFERENCES = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_FREQUENCY_BINS = range(6)
_WHOLE_SHARE = 0.5  # a tree with fewer of Mewsli-9's mentions is made of some of it


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
    """The languages of a tree, sorted; a folder that holds texts or descriptions and no mentions is named.

    Raises:
      MelError: it has none, or a folder's name cannot be one.
    """
    languages = _languages(directory)
    beside = {path.parent.name for name in _BESIDE_MENTIONS for path in pathlib.Path(directory).glob(f"*/{name}")}
    if without := sorted(beside - set(languages)):
        logging.warning("%s: not read, for they hold no mentions.tsv: %s.", directory, ", ".join(without))
    return languages


def _languages(directory: str | os.PathLike) -> list[str]:
    languages = sorted(path.parent.name for path in pathlib.Path(directory).glob("*/mentions.tsv"))
    if not languages:
        raise MelError(f"{directory} is no Mewsli-9 tree: it has no <language>/mentions.tsv.")
    return [check_language(language) for language in languages]


def read_documents(
    directory: str | os.PathLike, language: str, malformed: Malformed, redirects: Redirects | None = None,
    sources: Sources | None = None,
) -> Iterator[Document]:  # fmt: skip
    """Yields the documents of a language that have mentions, one text in memory at a time.

    Args:
      directory: the tree.
      language: one of its languages.
      malformed: where rows that cannot be parsed are reported.
      redirects: where the golds that were merged into others went.
      sources: is told every file that is read, under the names of `sources_now`.

    Raises:
      MelError: the language, a column or a text is missing, a text is not the one that docs.tsv
        describes, or too many rows are malformed.
    """
    if language not in (languages := _languages(directory)):
        raise MelError(f"{directory} has no language {shown(language)}, only {', '.join(languages)}.")
    folder = pathlib.Path(directory) / language
    path = folder / "mentions.tsv"
    sources = {} if sources is None else sources
    sources.update(sources_now(directory, [language]))
    described = _read_descriptions(folder / "docs.tsv", malformed)
    by_docid = _read_mentions(path, malformed, redirects or Redirects())
    if not by_docid:
        logging.warning("%s holds no mention: nothing is read of %r.", path, language)
    if described and (unknown := [docid for docid in by_docid if docid not in described]):
        docs = folder / "docs.tsv"
        logging.warning("%s tells neither title nor md5 of %d texts, the first is %s.", docs, len(unknown), unknown[0])
    for docid, rows in by_docid.items():
        title, md5 = described.get(docid, ("", ""))
        text, sources[f"{language}/text/{docid}"] = _read_text(folder / "text" / docid, md5)
        mentions, dropped = _usable(rows, language, docid, title, text, path)
        yield Document(docid, title, text, mentions, dropped)


def _usable(
    rows: Sequence[_Row], language: str, docid: str, title: str, text: str, path: pathlib.Path
) -> tuple[tuple[Mention, ...], Counter[str]]:
    """The mentions of a text whose span covers their surface form, and how many others there are, by reason."""
    mentions, dropped = [], Counter()
    for row in rows:
        if reason := _fault(row, text):
            dropped[reason] += 1
            logging.log_first_n(logging.WARNING, "%s:%d: dropped a mention: %s.", 20, path, row.line, reason)
            continue
        name, span = f"{docid}:{row.position}:{row.length}", Span(row.position, row.position + row.length)
        about = {"document": docid, "frequency_bin": row.frequency_bin, "in_references": row.in_references}
        mentions.append(Mention(name, language, text, span, row.gold, title=title, **about))
    return tuple(mentions), dropped


def sources_now(directory: str | os.PathLike, languages: Iterable[str], texts: Iterable[str] = ()) -> Sources:
    """The tables of some languages of a tree, with their digests, and texts.

    `texts` are named as `read_documents` tells them, "en/text/en-1"; only their sizes are looked at.
    """
    directory, found = pathlib.Path(directory), {}
    for name in [f"{language}/{table}" for language in languages for table in TABLES]:
        if (path := directory / name).is_file():
            with open_file(path) as file:
                sha256 = hashlib.sha256(file.read()).hexdigest()
            found[name] = Source(path.stat().st_size, sha256, f"{name} of {directory.name}")
    for name in texts:
        with contextlib.suppress(FileNotFoundError):
            found[name] = Source((directory / name).stat().st_size, place=f"{name} of {directory.name}")
    return found


def check_counts(directory: str | os.PathLike, counts: Mapping[str, int]) -> None:
    """Says whether what was read of a tree is what Mewsli-9 has, if the tree is Mewsli-9: one line in the log.

    Args:
      directory: the tree.
      counts: how many mentions each language gave, those that were dropped included.
    """
    there = set(_languages(directory))
    expected = {language: MEWSLI_9[language] for language in counts if language in MEWSLI_9}
    if there != set(MEWSLI_9) or not expected or sum(counts.values()) < _WHOLE_SHARE * sum(expected.values()):
        return
    others = [
        f"{name} {counts[name]:,} instead of {count:,}" for name, count in expected.items() if counts[name] != count
    ]
    if others:
        logging.warning("%s is not Mewsli-9 as it was published; mentions: %s.", directory, ", ".join(others))
    else:
        logging.info("%s has as many mentions in each language as were published of Mewsli-9.", directory)


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
        logging.warning("%s is not there: no mention has the title of its page, and no text is checked.", path)
        return {}
    described = {}
    for _, row in read_table(path, _DOCUMENT_COLUMNS, malformed):
        malformed.well_formed += 1
        described[row["docid"]] = row["title"], row["text_md5"].strip().lower()
    malformed.finish(str(path))
    return described


def _read_mentions(path: pathlib.Path, malformed: Malformed, redirects: Redirects) -> dict[str, list[_Row]]:
    """The rows by docid: documents in the order of their first row, rows in the order of the file."""
    by_docid: dict[str, list[_Row]] = {}
    for line, row in read_table(path, _MENTION_COLUMNS, malformed):
        try:
            docid = check_name(row["docid"], "docid")
            position, length = _whole(row["position"]), _whole(row["length"])
            gold = _gold(row["qid"].strip(), redirects)
        except (ValueError, MelError) as error:
            malformed.add(str(path), line, str(error))
            continue
        malformed.well_formed += 1
        in_references = _IN_REFERENCES.get(row.get("qid_in_refs", "").strip().lower())
        frequency_bin = _frequency_bin(row.get("freq_bin", ""))
        parsed = _Row(line, position, length, row["mention"], gold, frequency_bin, in_references)
        by_docid.setdefault(docid, []).append(parsed)
    malformed.finish(str(path))
    return by_docid


def _gold(text: str, redirects: Redirects) -> EntityId:
    """Raises MelError if it is neither a QID nor NIL."""
    return NIL_ID if text == NIL_ID else redirects.resolve(parse_qid(text))


def _whole(text: str) -> int:
    """A whole number, also where a data frame made it `3.0`.

    Raises:
      ValueError: it is none.
    """
    whole, point, zeros = text.strip().partition(".")
    if len(whole) > 18 or zeros.strip("0") or (point and not zeros):
        raise ValueError(f"{shown(text)} is not a whole number")
    return int(whole)


def _frequency_bin(text: str) -> int:
    """The bin, or -1 where it is blank, not a number or none of Mewsli-9's."""
    try:
        found = _whole(text)
    except ValueError:
        return -1
    return found if found in _FREQUENCY_BINS else -1


def _read_text(path: pathlib.Path, md5: str) -> tuple[str, Source]:
    """The text as it is: decoding bytes keeps every line end, so offsets stay true. And its file."""
    with open_file(path) as file:
        data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise MelError(f"The text {path} is longer than {MAX_TEXT_BYTES >> 20} MB: it is no document; take it away.")
    source = Source(len(data), hashlib.sha256(data).hexdigest())
    if md5 not in ("", found := _md5(data)):
        data = _restored(path, data, md5, found)
    try:
        return data.decode("utf-8"), source
    except UnicodeDecodeError as error:
        kind = "UTF-16" if is_utf16(data) else f"not UTF-8 ({error})"
        raise MelError(f"The text {path} is {kind}: fetch the tree again.") from error


def _restored(path: pathlib.Path, data: bytes, md5: str, found: str) -> bytes:
    """The bytes that have the md5 that was published, if they can be told.

    Raises:
      MelError: they cannot.
    """
    lines = data.replace(b"\r\n", b"\n")
    translated = "newline translation changed its line ends"
    changes = {lines: translated, lines.replace(b"\n", b"\r\n"): translated}
    for change, what in list(changes.items()):
        changes[change.removeprefix(codecs.BOM_UTF8)] = what
    changes[data.removeprefix(codecs.BOM_UTF8)] = "a byte-order mark was put in front of it"
    for change, what in changes.items():
        if _md5(change) == md5:
            logging.log_first_n(logging.WARNING, "The text %s is read as docs.tsv describes it: %s.", 20, path, what)
            return change
    kind = "is UTF-16, and " if is_utf16(data) else ""
    raise MelError(f"The text {path} {kind}has md5 {found}, but docs.tsv expects {md5}: fetch the tree again.")


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
