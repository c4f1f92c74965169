"""Archives and trees to blocks of mentions and their token rows, and to what a knowledge base is made of.

The parts of the archives are read by worker processes and put together in order, so what comes out
does not depend on their number.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import pathlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from mel.artifacts import Workdir, open_artifact
from mel.config import REQUIRED, flag
from mel.corpora import alias_table, damuel, mentions, mewsli
from mel.corpora.archives import Part
from mel.corpora.malformed import Malformed
from mel.corpora.mentions import MentionLine
from mel.corpora.redirects import Redirects
from mel.corpora.sources import Source, Sources
from mel.corpora.workers import map_in_order
from mel.progress import Progress
from mel.shards.archives import Archives, part_name
from mel.shards.rows import TokenRows
from mel.text import foreign
from mel.text.marking import mark_mention
from mel.text.tokenizer import Prefixes, Tokenizer
from mel.types import Entity, EntityId, MelError, Mention

DOCUMENTS_AT_ONCE = 256

Split = Literal["train", "held_out"]


@dataclasses.dataclass(frozen=True)
class WindowsConfig:
    """How texts become rows of tokens."""

    tokenizer: str = flag(REQUIRED, "Local folder or hub id of the encoder's tokenizer, as its owner publishes it.")
    case: Literal["auto", "kept", "lower"] = flag(
        "auto", "Whether upper case is made lower; auto is as the tokenizer says, or as its vocabulary shows."
    )
    mention_prefix: str = flag("", 'What the encoder was trained to find before mentions, such as "query: ".')
    entity_prefix: str = flag("", 'What the encoder was trained to find before entities, such as "passage: ".')
    mention_tokens: int = flag(64, "Most tokens of a mention's window.")
    entity_tokens: int = flag(64, "Most tokens of an entity's title and description.")
    title_in_window: bool = flag(True, "Put the title of the page, where known, in front of a mention's window.")

    def read_tokenizer(self) -> Tokenizer:
        """Reads the tokenizer that is asked for.

        Raises:
          MelError: it is none, or none that rows can be made with.
        """
        lower_case = {"auto": None, "kept": False, "lower": True}[self.case]
        prefixes = Prefixes(self.mention_prefix, self.entity_prefix)
        return foreign.read_tokenizer(self.tokenizer, lower_case, prefixes if any(prefixes) else None)


class MentionBlock(NamedTuple):
    """Mentions of one language.

    Attributes:
      rows: their rows.
      lines: those of the mentions artefact.
      dropped: how many others were, by reason.
      unknown: how many tokens of their focuses the vocabulary lacks, and how many there are.
    """

    language: str
    rows: TokenRows
    lines: list[MentionLine]
    dropped: Counter[str]
    unknown: tuple[int, int]


class Windows(NamedTuple):
    """How a mention's row is cut."""

    tokenizer: pathlib.Path
    max_tokens: int
    title_in_window: bool

    @classmethod
    def of(cls, work: Workdir) -> Windows:
        """How the mentions that training reads were cut."""
        facts = open_artifact(work.mention_tokens("train"), "tokens").facts
        return cls(work.tokenizer, facts["max_tokens"], facts["title_in_window"])


class Survey(NamedTuple):
    """What a part, or some own records, say of entities; those that the redirects moved stand apart."""

    entities: list[Entity]
    moved: list[Entity]
    counts: alias_table.Counts
    redirected: int
    malformed: Malformed
    source: tuple[str, Source] | None = None


def survey(archives: Archives, malformed: Malformed) -> Iterator[Survey]:
    """What each part says of entities, in order."""
    return _each_part(functools.partial(_survey_part, archives=archives), archives, "entities", malformed)


def damuel_mentions(
    archives: Archives, split: Split, windows: Windows, made_from: Mapping[str, Source]
) -> Iterator[MentionBlock]:
    """The mentions of one split of the DaMuEL pages, one block a part.

    Args:
      archives: where.
      split: which.
      windows: how rows are cut.
      made_from: the parts that the KB was made from.

    Raises:
      MelError: a part has another content than the KB was made from, or cannot be read.
    """
    read = functools.partial(_mentions_of_part, archives=archives, split=split, windows=windows)
    for part in _each_part(read, archives, f"mentions/{split}", archives.config.malformed()):
        name, source = part.source
        if made_from[name].sha256 != source.sha256:
            raise MelError(
                f"{source.place} has another content than when kb was made: delete kb and run again with --redo."
            )
        yield part.block


def mewsli_mentions(
    tree: pathlib.Path, languages: Iterable[str], windows: Windows, malformed: Malformed, limit: int = 0,
    redirects: Redirects | None = None, sources: Sources | None = None,
) -> Iterator[MentionBlock]:  # fmt: skip
    """The mentions of a Mewsli-9 tree, language by language; the first `limit` of each if it is not 0.

    `sources`, if given, is told the files that are read.
    """
    tokenizer = Tokenizer.load(windows.tokenizer)
    counts: dict[str, int] = {}
    for language in languages:
        documents = mewsli.read_documents(tree, language, malformed, redirects, sources)
        for group in grouped(_first_mentions(documents, limit) if limit else documents, DOCUMENTS_AT_ONCE):
            in_group = [mention for document in group for mention in document.mentions]
            dropped = sum((document.dropped for document in group), Counter())
            counts[language] = counts.get(language, 0) + len(in_group) + dropped.total()
            yield mention_block(language, in_group, dropped, tokenizer, windows)
    if not limit:
        mewsli.check_counts(tree, counts)


def is_held_out(entity_id: EntityId, share: float) -> bool:
    """Whether the page of an entity, in all languages alike, is held out."""
    return zlib.crc32(entity_id.encode()) < share * 2**32


def grouped(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while group := list(itertools.islice(items, size)):
        yield group


def _first_mentions(documents: Iterable[mewsli.Document], limit: int) -> Iterator[mewsli.Document]:
    """The documents up to the first `limit` mentions; no text after them is read."""
    for document in documents:
        yield document._replace(mentions=document.mentions[:limit])
        limit -= len(document.mentions)
        if limit <= 0:
            return


class _Mentioned(NamedTuple):
    block: MentionBlock
    malformed: Malformed
    source: tuple[str, Source]


def _survey_part(item: tuple[str, Part], archives: Archives) -> Survey:
    (language, part), config, digest = item, archives.config, hashlib.sha256()
    malformed = config.malformed(log=False)
    entities, moved, redirected = [], [], 0
    counts = alias_table.Counts(Counter(), Counter(), Counter())
    for page in damuel.read_pages(part, language, malformed, archives.redirects, digest):
        if page.entity is not None:
            (moved if page.redirected_entity else entities).append(page.entity)
        redirected += page.redirected
        if not is_held_out(page.qid, config.held_out):
            counts.links.update(alias_table.count_aliases(page.mentions))
            counts.lemmas.update(alias_table.count_lemmas(page.mentions))
        counts.names.update((name, language, page.qid) for name in page.names)
    return Survey(entities, moved, counts, redirected, malformed, _source(item, digest.hexdigest()))


def _mentions_of_part(item: tuple[str, Part], archives: Archives, split: str, windows: Windows) -> _Mentioned:
    (language, part), config, digest = item, archives.config, hashlib.sha256()
    malformed = config.malformed(log=False)
    in_split: list[Mention] = []
    dropped: Counter[str] = Counter()
    for page in damuel.read_pages(part, language, malformed, archives.redirects, digest):
        if is_held_out(page.qid, config.held_out) == (split == "held_out"):
            in_split.extend(page.mentions)
            dropped.update(page.dropped)
    block = mention_block(language, in_split, dropped, _tokenizer(windows.tokenizer), windows)
    return _Mentioned(block, malformed, _source(item, digest.hexdigest()))


def _source(item: tuple[str, Part], sha256: str) -> tuple[str, Source]:
    return part_name(*item), Source(item[1].size, sha256, item[1].place)


def mention_block(
    language: str, with_contexts: list[Mention], dropped: Counter, tokenizer: Tokenizer, windows: Windows
) -> MentionBlock:
    """The block of mentions of one language, those of a text one after the other."""
    marked = [mark_mention(mention, windows.title_in_window) for mention in with_contexts]
    rows = TokenRows.from_rows(tokenizer.rows(marked, windows.max_tokens))
    lines, unknown = list(map(mentions.line_of, with_contexts)), tokenizer.count_unknown([rows.tokens_T])
    return MentionBlock(language, rows, lines, dropped, unknown)


@functools.cache
def _tokenizer(folder: pathlib.Path) -> Tokenizer:
    """Loaded once in each worker process."""
    return Tokenizer.load(folder)


def _each_part(function, archives: Archives, what: str, malformed: Malformed) -> Iterator:
    """What `function` makes of each part, in order; its `malformed` is merged and judged language by language."""
    if not archives.parts:
        return
    progress = Progress(f"reading {what}", len(archives.parts), "parts")
    results = map_in_order(function, archives.parts, archives.config.workers)
    for language, items in itertools.groupby(zip(archives.parts, results, strict=True), key=lambda item: item[0][0]):
        for _, result in items:
            malformed.merge(result.malformed)
            progress.add(note=language)
            yield result
        malformed.finish(f"the archive of {language}")
    progress.close()
