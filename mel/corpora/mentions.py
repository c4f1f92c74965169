"""The mentions artefact: a file of JSON lines for each language, in the order of the mentions' token rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import orjson

from mel.artifacts import Artifact
from mel.types import EntityId, MelError, Mention

KIND = "mentions"


class MentionLine(NamedTuple):
    """What stays of a mention without its context: the attributes of `mel.types.Mention`."""

    mention_id: str
    language: str
    surface_form: str
    start: int
    end: int
    gold: EntityId
    document: str
    title: str
    frequency_bin: int
    in_references: bool | None
    lemma: str
    cluster: str


def line_of(mention: Mention) -> MentionLine:
    """The line of a mention."""
    return MentionLine(
        mention.mention_id, mention.language, mention.surface_form, mention.span.start, mention.span.end, mention.gold,
        mention.document, mention.title, mention.frequency_bin, mention.in_references, mention.lemma, mention.cluster,
    )  # fmt: skip


def file_name(language: str) -> str:
    """The file of a language in the artefact."""
    return f"{language}.jsonl"


def write_line(line: MentionLine) -> bytes:
    """One line of a file, its end included."""
    return orjson.dumps(line._asdict(), option=orjson.OPT_APPEND_NEWLINE)


def parse_lines(data: bytes) -> list[MentionLine]:
    """The mentions of which `write_line` wrote the lines."""
    return [MentionLine(**orjson.loads(line)) for line in data.splitlines()]


def read_lines(mentions: Artifact, language: str, limit: int = 0) -> Iterator[MentionLine]:
    """The mentions of a language, in order; the first `limit` of them, all if it is 0.

    Raises:
      MelError: a line is not one of ours.
    """
    path = mentions / file_name(language)
    with open(path, "rb") as file:
        for number, data in enumerate(itertools.islice(file, limit or None), 1):
            try:
                yield MentionLine(**orjson.loads(data))
            except (ValueError, TypeError):
                raise MelError(
                    f"{path}:{number} is damaged: delete {mentions.path} and its token rows and prepare again."
                ) from None


def surface_forms(mentions: Artifact) -> Iterator[str]:
    """Of all mentions, in the order of their token rows."""
    for language in mentions.facts["languages"]:
        yield from (line.surface_form for line in read_lines(mentions, language))


def choose_languages(wanted: Sequence[str], there: Sequence[str], origin: object) -> list[str]:
    """The languages that are asked for, in the order of those that there are; all if none is.

    Raises:
      MelError: one is not there.
    """
    if missing := [language for language in wanted if language not in there]:
        raise MelError(f"{origin} has no language {missing[0]!r}: choose --languages among {', '.join(there)}.")
    return [language for language in there if language in wanted or not wanted]
