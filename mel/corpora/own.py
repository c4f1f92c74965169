"""Entities and mentions of one's own, from files of records, to nouns.

An entity is {"id", "language", "title", "description", "aliases", "links", "count"}, one record for each language
that it is described in; a mention is {"id", "language", "text", "start", "end", "entity", "title", "document"}.
`mel.corpora.records` says how JSON lines and CSV hold them.

Any string is an id, but for NIL, which means that a mention's entity is in no knowledge base. QIDs lose leading zeros
and are followed where they were merged into others, as everywhere.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from absl import logging

from mel.checks import file_digest
from mel.config import flag
from mel.corpora.damuel import DESCRIPTION_CHARACTERS
from mel.corpora.lines import open_file
from mel.corpora.malformed import Malformed
from mel.corpora.names import check_language, shown
from mel.corpora.records import Record, format_of, read_records
from mel.corpora.redirects import Redirects
from mel.corpora.sources import Source, Sources
from mel.types import NIL_ID, Entity, MelError, Mention, Span, parse_id

ENTITY = {"id": str, "language": str, "title": str, "description": str, "aliases": list, "links": dict, "count": int}
MENTION = {
    "id": str, "language": str, "text": str, "start": int, "end": int, "entity": str, "title": str, "document": str,
}  # fmt: skip
ENTITY_NEEDS = ("id", "language", "title")
MENTION_NEEDS = ("id", "language", "text", "start", "end", "entity")
MAX_NAME_CHARACTERS = 1000  # of the id of a mention, a title or an alias
DIGEST_CHARACTERS = 16


@dataclasses.dataclass(frozen=True)
class OwnConfig:
    """Which files of one's own are read."""

    entities: tuple[str, ...] = flag((), "Files of own entities: JSON lines (.jsonl) or CSV (.csv), also compressed.")
    mentions: tuple[str, ...] = flag((), "Files of own mentions to train on, alike.")
    evaluate_mentions: tuple[str, ...] = flag((), "Files of own mentions to evaluate on, the split own, alike.")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            names = file_names(getattr(self, field.name))
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise MelError(f"--{field.name} has two files of the name {twice[0]}: rename one, or join them.")

    @property
    def settings(self) -> dict[str, list[str]]:
        """What a knowledge base that is made of them has to state."""
        named = {name: file_names(getattr(self, name)) for name in ("entities", "mentions")}
        return {name: names for name, names in named.items() if names}

    def sources_now(self) -> Sources:
        """The files that a knowledge base is made of, as they are, with their digests.

        Raises:
          MelError: one cannot be read.
        """
        return sources_of("entities", self.entities) | sources_of("mentions", self.mentions)

    def check(self) -> None:
        """Looks whether every file is there and named as one that can be read.

        Raises:
          MelError: one is not.
        """
        for path in (*self.entities, *self.mentions, *self.evaluate_mentions):
            format_of(pathlib.Path(path))
            with open_file(pathlib.Path(path)):
                pass


class OwnEntity(NamedTuple):
    """What one record says: an entity, what else it is called, and how often it was linked.

    Attributes:
      entity: with the title and description of the record's language.
      aliases: what else it is called, each once, its title not among them.
      links: how often each surface form was linked to it.
      count: how often it was linked in all, by whatever surface forms.
    """

    entity: Entity
    aliases: tuple[str, ...]
    links: dict[str, int]
    count: int


def read_entities(
    paths: Iterable[str], malformed: Malformed, languages: Collection[str] = (), redirects: Redirects | None = None
) -> Iterator[OwnEntity]:
    """Yields the entities of all files, the first record of each id and language.

    Args:
      paths: the files.
      malformed: where records that cannot be used are reported, a second one of an id and language among them.
      languages: those wanted, all if empty; records of others are counted in `malformed.dropped`.
      redirects: where merged QIDs went.

    Raises:
      MelError: a file cannot be read, or too many of its records are malformed.
    """
    redirects, places = redirects or Redirects(), {}
    for path in map(pathlib.Path, paths):
        others: Counter[str] = Counter()
        for line, record in read_records(path, ENTITY, ENTITY_NEEDS, malformed):
            try:
                found = _entity(record, redirects)
                key, here = (found.entity.entity_id, found.entity.language), (path, line)
                if (first := places.setdefault(key, here)) is not here:
                    raise MelError(f"{shown(key[0])} has a record in {key[1]} already, {first[0]}:{first[1]}")
            except MelError as error:
                malformed.add(str(path), line, str(error))
                continue
            malformed.well_formed += 1
            if languages and key[1] not in languages:
                others[key[1]] += 1
            else:
                yield found
        malformed.finish(str(path))
        if others:
            malformed.dropped["record of another language"] += others.total()
            names = ", ".join(f"{count} of {language}" for language, count in sorted(others.items()))
            logging.warning("%s: records of languages that are not among --languages are not read: %s.", path, names)


def read_mentions(paths: Iterable[str], malformed: Malformed, redirects: Redirects | None = None) -> Iterator[Mention]:
    """Yields the mentions of all files, the first record of each id; consecutive ones of one text share it.

    Args:
      paths: the files.
      malformed: where records that cannot be used are reported: a second one of an id, a span that leaves its text.
      redirects: where the golds that were merged into others went.

    Raises:
      MelError: a file cannot be read, or too many of its records are malformed.
    """
    redirects, places, text = redirects or Redirects(), {}, ""
    for path in map(pathlib.Path, paths):
        for line, record in read_records(path, MENTION, MENTION_NEEDS, malformed):
            text = record["text"] = text if record["text"] == text else record["text"]
            try:
                mention, here = _mention(record, redirects), (path, line)
                if (first := places.setdefault(mention.mention_id, here)) is not here:
                    raise MelError(f"{shown(mention.mention_id)} is the id of {first[0]}:{first[1]} already")
            except MelError as error:
                malformed.add(str(path), line, str(error))
                continue
            malformed.well_formed += 1
            yield mention
        malformed.finish(str(path))


def file_names(paths: Iterable[str]) -> list[str]:
    """Without their folders, which may be others tomorrow."""
    return [pathlib.Path(path).name for path in paths]


def sources_of(flag_name: str, paths: Sequence[str]) -> Sources:
    """The files that a flag names, as they are, with their digests.

    Raises:
      MelError: one cannot be read.
    """
    found = {}
    for path in map(pathlib.Path, paths):
        with open_file(path):
            found[f"{flag_name}/{path.name}"] = Source(path.stat().st_size, file_digest(path), path.name)
    return found


def _entity(record: Record, redirects: Redirects) -> OwnEntity:
    """Raises MelError if it cannot be used."""
    entity_id, title = redirects.resolve(parse_id(record["id"])), _name(record["title"], "title")
    if entity_id == NIL_ID:
        raise MelError(f"{NIL_ID} is no entity: it stands for those that no knowledge base has")
    if record["count"] < 0:
        raise MelError(f"count is {record['count']}, below 0")
    description = record["description"].strip()[:DESCRIPTION_CHARACTERS].rstrip()
    aliases = dict.fromkeys(_name(alias, "alias") for alias in record["aliases"] if alias.strip())
    aliases.pop(title, None)
    links = {_name(form, "surface form"): count for form, count in record["links"].items() if form.strip() and count}
    entity = Entity(entity_id, check_language(record["language"].strip()), title, description)
    return OwnEntity(entity, tuple(aliases), links, record["count"])


def _mention(record: Record, redirects: Redirects) -> Mention:
    """Raises MelError if it cannot be used."""
    language, text = check_language(record["language"].strip()), record["text"]
    gold = redirects.resolve(parse_id(record["entity"]))
    span = Span(record["start"], record["end"])
    if not span.of(text).strip():
        raise MelError(f"span {span.start}:{span.end} covers nothing but white space")
    document = record["document"].strip() or f"{language}-{_digest(text)}"
    mention_id = _name(record["id"], "id")
    return Mention(mention_id, language, text, span, gold, document, record["title"].strip())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def _name(text: str, what: str) -> str:
    text = text.strip()
    if len(text) > MAX_NAME_CHARACTERS:
        raise MelError(f"its {what} {shown(text)} is longer than {MAX_NAME_CHARACTERS} characters")
    return text
