"""What is prepared: DaMuEL archives of some languages, files of one's own, or both."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from mel.config import flag
from mel.corpora.archives import Part, find_archive, list_parts
from mel.corpora.kb_merging import KbRows
from mel.corpora.malformed import MAX_SHARE, Malformed
from mel.corpora.names import check_distinct, check_language
from mel.corpora.own import OwnConfig
from mel.corpora.redirects import Redirects
from mel.corpora.sources import Source, Sources
from mel.types import MelError

KbRowsBy = Literal["language", "most_linked"]


@dataclasses.dataclass(frozen=True)
class ArchivesConfig:
    """What is read of which DaMuEL archives."""

    damuel: str = flag("", "Folder that holds the DaMuEL archives; none if empty.")
    languages: tuple[str, ...] = flag(
        (), "Languages to read, in order of preference for titles; of own entities all that they have if empty."
    )
    kb_rows: KbRows = flag(
        "described",
        "Rows of the archives: of records with a page, with a page or a description, or all that have a name.",
    )
    kb_rows_by: KbRowsBy = flag(
        "language",
        "Rows of the KB: one for each language of an entity, or one an entity, of the language that links to it most.",
    )
    held_out: float = flag(
        0.0, "Share of pages, by a hash of the QID or of the own document, whose mentions are held out to tune on."
    )
    redirects: str = flag("", "JSON file {old QID: new QID}, followed to the end for entities and golds.")
    limit: int = flag(0, "Read only so many parts of each archive; 0 for all.")
    max_malformed: int = flag(1000, "Most malformed records to skip before stopping.")
    max_malformed_share: float = flag(
        MAX_SHARE, "The same as a share of what each language or file holds, if ten or more."
    )
    workers: int = flag(0, "Processes that read archives; 0 for one a core.")
    merge_memory: float = flag(
        2.0, "GiB of memory that merging what was read may take; the rest goes through the disk."
    )

    def __post_init__(self):
        if not 0 <= self.held_out < 1:
            raise MelError(f"--held_out={self.held_out} is not a share: 0 <= held_out < 1.")
        if not self.merge_memory > 0:
            raise MelError(f"--merge_memory={self.merge_memory:g} is nothing: give the GiB that merging may take.")
        for name in ("limit", "workers"):
            if getattr(self, name) < 0:
                raise MelError(f"--{name}={getattr(self, name)} must not be below 0.")
        self.malformed()  # refuses bounds that are none
        check_distinct("languages", self.languages)

    @property
    def memory_bytes(self) -> int:
        """What merging may take."""
        return int(self.merge_memory * 2**30)

    def malformed(self, log: bool = True) -> Malformed:
        return Malformed(self.max_malformed, self.max_malformed_share, log)


@dataclasses.dataclass(frozen=True)
class Archives:
    """What is read.

    Attributes:
      parts: (language, part) in the order of the languages asked for.
      redirects: where merged QIDs went.
      config: what was asked for.
      own: files of one's own beside the parts, or instead of them.
    """

    parts: tuple[tuple[str, Part], ...]
    redirects: Redirects
    config: ArchivesConfig
    own: OwnConfig = OwnConfig()

    @classmethod
    def find(cls, config: ArchivesConfig, redirects: Redirects, own: OwnConfig = OwnConfig()) -> Archives:
        """Lists the parts of every language.

        Raises:
          MelError: an archive is missing, or is none; or there is nothing to make a knowledge base of.
        """
        if not config.damuel and not own.entities:
            raise MelError("Neither --damuel nor --entities is given, so there are no entities: give one or both.")
        if config.damuel and not config.languages:
            raise MelError("--languages is missing: name those whose archives in --damuel are to be read.")
        if config.held_out and not config.damuel and not own.mentions:
            raise MelError(f"--held_out={config.held_out} of no mentions is nothing: give --mentions, or leave it out.")
        own.check()
        folder, parts = pathlib.Path(config.damuel), []
        for language in map(check_language, config.languages):
            there = list_parts(find_archive(folder, language)) if config.damuel else []
            parts += [(language, part) for part in there[: config.limit or None]]
        return cls(tuple(parts), redirects, config, own)

    @property
    def have_mentions(self) -> bool:
        """Whether there may be any to train on."""
        return bool(self.parts or self.own.mentions)

    def sources_now(self) -> Sources:
        """The parts as they are, unread, and own entities and training mentions."""
        parts = {part_name(language, part): Source(part.size, place=part.place) for language, part in self.parts}
        return parts | self.own.sources_now()


def part_name(language: str, part: Part) -> str:
    """The name of a part among the sources, wherever its archive lies."""
    return f"{language}/{part.name}"
