"""DaMuEL records -> pages: an entity, and the mentions that its Wikipedia page makes of others.

An entity has a title: that of its page, or else its label, or else its first alias. About a fifth of
all records have none of them. Such a record is no entity in its language; the links of its page,
where it has one, are mentions like any other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from absl import logging

from mel.corpora.archives import Digest, Part, read_lines
from mel.corpora.malformed import Malformed
from mel.corpora.redirects import Redirects
from mel.types import Entity, EntityId, MelError, Mention, Span, parse_qid

DESCRIPTION_CHARACTERS = 2000

_BLANK_LINE = re.compile(r"\n\s*\n")
_NOT_WIKI = "origin is not wiki"
_NO_QID = "no qid"


class Page(NamedTuple):
    """What one record says.

    Attributes:
      qid: what the record is about, where the redirects moved it.
      entity: what the record says about it, None if the record has no name.
      text: its Wikipedia page in this language, "" where there is none; the context of all `mentions`.
      mentions: the links that the authors of the page made, in the order of the record.
      dropped: how many other links there were, by reason.
      redirected: how many QIDs (the entity's and the golds') the redirects moved.
      names: what else the entity is called: its label, aliases and redirects.
      redirected_entity: whether the redirects moved the entity; the record of the QID that it was
        moved to knows better, wherever it stands.
    """

    qid: EntityId
    entity: Entity | None
    text: str
    mentions: tuple[Mention, ...]
    dropped: Counter[str]
    redirected: int = 0
    names: tuple[str, ...] = ()
    redirected_entity: bool = False


def read_pages(
    part: Part, language: str, malformed: Malformed, redirects: Redirects | None = None, digest: Digest | None = None
) -> Iterator[Page]:
    """Yields one page for each usable record of a part.

    Args:
      part: a part of an archive.
      language: the language wanted; records of other languages, and records without a name, are
        counted in `malformed.dropped`.
      malformed: where lines that are not JSON or too long, and records without a QID, a language or
        with values of the wrong type are reported.
      redirects: where merged QIDs went, for entities and golds.
      digest: is told the bytes of the part.

    Raises:
      MelError: the part is damaged, or too many records are malformed.
    """
    redirects = redirects or Redirects()
    for line, data in read_lines(part, lambda line, reason: malformed.add(str(part), line, reason), digest):
        try:
            record = _object(orjson.loads(data), "the record")
            if not (found := _get(record, "lang", str)):
                raise _WrongRecord("it has no lang")
            page = _page(record, language, redirects, f"{part}:{line}") if found == language else None
        except orjson.JSONDecodeError as error:
            malformed.add(str(part), line, f"it is not JSON ({error})")
        except _WrongRecord as error:
            malformed.add(str(part), line, str(error))
        else:
            malformed.well_formed += 1
            if page is None:
                malformed.dropped["record of another language"] += 1
                continue
            if page.entity is None:
                malformed.dropped["record without a name"] += 1
            yield page


class _WrongRecord(Exception):
    """Why a record cannot be used."""


def _page(record: dict, language: str, redirects: Redirects, place: str) -> Page:
    """Raises _WrongRecord if a value that is needed has the wrong type."""
    wiki = _get(record, "wiki", dict)
    text = _get(wiki, "text", str)
    tokens = _get(wiki, "tokens", list)
    old = _qid(_get(record, "qid", str))
    qid, title = redirects.resolve(old), _title(record, wiki)
    entity = Entity(qid, language, title, _description(record, wiki, text, tokens)) if title else None

    document = f"{language}-{old}"
    mentions, dropped, redirected = [], Counter(), int(old in redirects)
    for ordinal, link in enumerate(_get(wiki, "links", list)):
        link = _object(link, "a link")
        found = _link(link, text, tokens)
        if isinstance(found, str):
            dropped[found] += 1
            if found not in (_NOT_WIKI, _NO_QID):
                logging.log_first_n(logging.WARNING, "%s: dropped link %d: %s.", 20, place, ordinal, found)
            continue
        span, gold, lemma = found
        redirected += gold in redirects
        mention_id, gold = f"{document}-{ordinal}", redirects.resolve(gold)
        mentions.append(Mention(mention_id, language, text, span, gold, document, title, lemma=lemma, cluster=qid))
    names = _names(record, wiki) if title else ()
    return Page(qid, entity, text, tuple(mentions), dropped, redirected, names, old in redirects)


def _link(link: dict, text: str, tokens: list) -> tuple[Span, EntityId, str] | str:
    """The span, the gold and the lemma of a link, or the reason why it is not a mention."""
    if link.get("origin") != "wiki":
        return _NOT_WIKI
    if link.get("qid") is None:
        return _NO_QID
    try:
        gold = _qid(str(link["qid"]))
    except _WrongRecord:
        return "qid is not a QID"
    span = _covered(link, text, tokens)
    if span is None:
        return "span outside the text"
    if not span.of(text).strip():
        return "surface form is blank"
    return span, gold, _lemma(tokens[link["start"] : link["end"]])


def _lemma(tokens: list) -> str:
    """The lemmas of some tokens, "" where one has none."""
    lemmas = [token.get("lemma") if isinstance(token, dict) else None for token in tokens]
    known = [lemma for lemma in lemmas if isinstance(lemma, str) and lemma]
    return " ".join(known) if len(known) == len(lemmas) else ""


def _covered(focus: dict, text: str, tokens: list) -> Span | None:
    """The characters that a link or a paragraph, given in tokens, covers; None if they are not all there."""
    first, stop = focus.get("start"), focus.get("end")
    if not (isinstance(first, int) and isinstance(stop, int) and 0 <= first < stop <= len(tokens)):
        return None
    try:
        start, last, end = tokens[first]["start"], tokens[stop - 1]["start"], tokens[stop - 1]["end"]
        # `[[humedal]]es` is one token: end_offset is the place in it of the last character inside the brackets.
        if (end_offset := focus.get("end_offset")) is not None:
            end = min(end, last + end_offset + 1)
    except (KeyError, TypeError):
        return None
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
        return None
    return Span(start, end)


def _qid(text: str) -> EntityId:
    """Raises _WrongRecord if it is none."""
    try:
        return parse_qid(text)
    except MelError as error:
        raise _WrongRecord(str(error)) from None


def _title(record: dict, wiki: dict) -> str:
    """The first name that the record gives its entity, "" where it gives none."""
    aliases = _get(record, "aliases", list)
    names = (_get(wiki, "title", str), _get(record, "label", str), *(name for name in aliases if isinstance(name, str)))
    return next((name.strip() for name in names if name.strip()), "")


def _names(record: dict, wiki: dict) -> tuple[str, ...]:
    names = (_get(record, "label", str), *_get(record, "aliases", list), *_get(wiki, "redirects", list))
    return tuple(dict.fromkeys(name.strip() for name in names if isinstance(name, str) and name.strip()))


def _description(record: dict, wiki: dict, text: str, tokens: list) -> str:
    """The first paragraph that is no heading, or the text up to the first blank line, or Wikidata's description."""
    paragraphs = (_object(paragraph, "a paragraph") for paragraph in _get(wiki, "paragraphs", list))
    spans = (_covered(paragraph, text, tokens) for paragraph in paragraphs if not paragraph.get("heading"))
    description = next((found for span in spans if span and (found := span.of(text).strip())), "")
    description = description or _BLANK_LINE.split(text.strip(), maxsplit=1)[0]
    description = description or _get(record, "description", str).strip()
    return description[:DESCRIPTION_CHARACTERS].rstrip()


def _get(values: dict, key: str, kind: type) -> Any:
    """`values[key]`, or the empty value of `kind` if it is missing or null.

    Raises:
      _WrongRecord: it is something else than a `kind`.
    """
    value = values.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise _WrongRecord(f"{key} is a {type(value).__name__}, not a {kind.__name__}")
    return value


def _object(value: Any, what: str) -> dict:
    if not isinstance(value, dict):
        raise _WrongRecord(f"{what} is a {type(value).__name__}, not an object")
    return value
