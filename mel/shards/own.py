"""Own entities and mentions to what a knowledge base is made of, and to blocks of mentions with their token rows.

Rows of a split stand language by language, so the files are read once for each of their languages: they may be
larger than memory.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from mel.corpora import alias_table, own
from mel.corpora.malformed import Malformed
from mel.corpora.redirects import Redirects
from mel.corpora.sources import Source
from mel.corpora.surveys import PAGE, Ids, Survey, SurveyWriter
from mel.progress import Progress
from mel.shards.archives import Archives
from mel.shards.blocks import (
    MentionBlock,
    Split,
    Windows,
    grouped,
    is_held_out,
    mention_block,
)
from mel.shards.units import Units, damuel_mentions
from mel.text.tokenizer import Tokenizer
from mel.types import NIL_ID, Entity, Mention

RECORDS_AT_ONCE = 8192


def survey_own(archives: Archives, malformed: Malformed, folder: pathlib.Path) -> Iterator[Survey]:
    """What own entities and training mentions say of entities, some records at a time; written into `folder`."""
    config, files = archives.config, archives.own
    entities = own.read_entities(files.entities, malformed, config.languages, archives.redirects)
    for number, group in enumerate(grouped(entities, RECORDS_AT_ONCE)):
        yield _survey(folder / f"entities-{number:05d}", [each.entity for each in group], count_names(group))
    mentions = own.read_mentions(files.mentions, malformed, archives.redirects)
    for number, group in enumerate(grouped(mentions, RECORDS_AT_ONCE)):
        linked = [each for each in group if each.gold != NIL_ID and not is_held_out(each.document, config.held_out)]
        counts = alias_table.Counts(alias_table.count_aliases(linked), Counter(), Counter())
        yield _survey(folder / f"mentions-{number:05d}", [], counts)


def _survey(folder: pathlib.Path, entities: Sequence[Entity], counts: alias_table.Counts) -> Survey:
    folder.mkdir(parents=True)
    writer = SurveyWriter(folder, Ids())
    for entity in entities:
        writer.add(entity, PAGE)  # whoever gives it wants it, whatever is known of it
    return Survey.read(folder, writer.close(counts))


def count_names(entities: Sequence[own.OwnEntity]) -> alias_table.Counts:
    """What own entities are called, and linked by.

    A name counts once, and once more for each link of its entity; a title's first one is that in the knowledge base.
    """
    links, names = Counter(), Counter()
    for each in entities:
        key = each.entity.language, each.entity.entity_id
        links.update({(form, *key): times for form, times in each.links.items()})
        names.update({(alias, *key): 1 + each.count for alias in each.aliases})
        names.update({(each.entity.title, *key): each.count} if each.count else {})
    return alias_table.Counts(links, Counter(), names)


@dataclasses.dataclass(frozen=True)
class OwnMentions:
    """The mentions of some files that are wanted, by language.

    Attributes:
      paths: the files.
      redirects: where the golds that were merged into others went.
      malformed: makes what counts the records that cannot be used, for one reading of all files.
      wanted: whether a mention is.
    """

    paths: Sequence[str]
    redirects: Redirects
    malformed: Callable[[], Malformed]
    wanted: Callable[[Mention], bool] = lambda mention: True

    def languages(self, log: bool = False) -> list[str]:
        """Those of all files, in the order in which they come; `log` names the records that cannot be used."""
        malformed = self.malformed()
        malformed.log = log
        return list(dict.fromkeys(mention.language for mention in self._read(malformed)))

    def blocks(self, language: str, tokenizer: Tokenizer, windows: Windows) -> Iterator[MentionBlock]:
        """The mentions of one language."""
        malformed, progress = self.malformed(), Progress(f"reading mentions in {language}", 0, "mentions")
        malformed.log = False
        spoken = (mention for mention in self._read(malformed) if mention.language == language)
        for group in grouped(filter(self.wanted, spoken), RECORDS_AT_ONCE):
            yield mention_block(language, group, Counter(), tokenizer, windows)
            progress.add(len(group))
        progress.close()

    def _read(self, malformed: Malformed) -> Iterator[Mention]:
        return own.read_mentions(self.paths, malformed, self.redirects)


def training_mentions(
    archives: Archives, units: Units, split: Split, windows: Windows, made_from: Mapping[str, Source]
) -> Iterator[MentionBlock]:
    """Those of `damuel_mentions`, and after each language's those of its own documents.

    Raises:
      MelError: a part has another content than the KB was made from, or something cannot be read.
    """
    config = archives.config

    def wanted(mention: Mention) -> bool:
        return is_held_out(mention.document, config.held_out) == (split == "held_out")

    ours = OwnMentions(archives.own.mentions, archives.redirects, config.malformed, wanted)
    tokenizer, left = Tokenizer.load(windows.tokenizer), ours.languages()
    pages = damuel_mentions(units, split, made_from)
    for language, blocks in itertools.groupby(pages, key=lambda block: block.language):
        yield from blocks
        if language in left:
            left.remove(language)
            yield from ours.blocks(language, tokenizer, windows)
    for language in left:
        yield from ours.blocks(language, tokenizer, windows)


def evaluation_mentions(archives: Archives, windows: Windows) -> Iterator[MentionBlock]:
    """The mentions of the files that are evaluated on, language by language."""
    ours = OwnMentions(archives.own.evaluate_mentions, archives.redirects, archives.config.malformed)
    tokenizer = Tokenizer.load(windows.tokenizer)
    for language in ours.languages(log=True):
        yield from ours.blocks(language, tokenizer, windows)
