"""Archives to artefacts: the knowledge base, the alias table, mentions and their token rows.

The parts of the archives are read by worker processes and put together in order, so what is
published does not depend on their number. Parts are read twice, first for the entities and then for
the mentions, because a mention's row names the row of its gold.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from absl import logging

from mel.artifacts import Artifact, Workdir, open_artifact, publish
from mel.corpora import alias_table, damuel, mentions, mewsli
from mel.corpora.archives import Part, find_archive, list_parts
from mel.corpora.kb import KnowledgeBase, KnowledgeBaseWriter, read_entities
from mel.corpora.malformed import MAX_SHARE, Malformed
from mel.corpora.mentions import MentionLine
from mel.corpora.redirects import Redirects
from mel.corpora.workers import map_in_order
from mel.progress import Progress
from mel.shards.datasets import RowSet, write_rows
from mel.shards.rows import TokenRows
from mel.text.marking import mark_entity, mark_mention
from mel.text.tokenizer import Tokenizer
from mel.types import Entity, EntityId, MelError, Mention

ENTITIES_AT_ONCE = 8192
DOCUMENTS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Archives:
    """What is read of which DaMuEL archives.

    Attributes:
      parts: (language, part) in the order of the languages asked for.
      redirects: where merged QIDs went.
      held_out: share of pages whose mentions belong to the split held_out instead of train.
      max_malformed: most malformed records to skip.
      workers: processes that read.
      max_malformed_share: most malformed records of a language to skip, as a share of all of them.
    """

    parts: tuple[tuple[str, Part], ...]
    redirects: Redirects
    held_out: float
    max_malformed: int
    workers: int
    max_malformed_share: float = MAX_SHARE

    @classmethod
    def find(cls, folder: pathlib.Path, languages: Iterable[str], limit: int, **others) -> Archives:
        """Lists the parts of every language, `limit` of each at most if it is not 0."""
        by_language = [(language, list_parts(find_archive(folder, language))) for language in languages]
        return cls(tuple((name, part) for name, parts in by_language for part in parts[: limit or None]), **others)


class MentionBlock(NamedTuple):
    """Mentions of one language: their rows, their lines for the mentions artefact, and why others were dropped."""

    language: str
    rows: TokenRows
    lines: list[MentionLine]
    dropped: Counter[str]


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


def publish_kb(
    kb_path: pathlib.Path, alias_path: pathlib.Path, archives: Archives, languages: tuple[str, ...], settings: dict
) -> None:
    """Publishes the knowledge base and the alias table of the training mentions, in one reading."""
    malformed = Malformed(archives.max_malformed, archives.max_malformed_share)
    counts = alias_table.Counts(Counter(), Counter(), Counter())
    redirected, moved = 0, []
    with publish(kb_path, "kb") as kb:
        writer = KnowledgeBaseWriter(kb.path, languages)
        survey = functools.partial(_survey_part, archives=archives)
        for part in _each_part(survey, archives, "entities", malformed):
            writer.add(part.entities)
            moved += part.moved
            for count, part_count in zip(counts, part.counts, strict=True):
                count.update(part_count)
            redirected += part.redirected
        writer.add(moved)  # last, so that the record of the QID they were moved to comes first wherever it stood
        known = _closed(writer, _linked(counts), malformed)
        numbers = {name: number for number, name in enumerate(known.ids)}
        kb.facts |= {
            "settings": settings, "languages": list(languages), "rows": sum(writer.counts.values()),
            "entities": writer.counts, "duplicates": writer.duplicates, "redirected": redirected,
            "malformed": len(malformed), "dropped": dict(sorted(malformed.dropped.items())),
        }  # fmt: skip
    with publish(alias_path, "alias table") as aliases:
        aliases.reads("kb", open_artifact(kb_path, "kb"))
        aliases.facts |= {"settings": settings, "rows": alias_table.write(aliases.path, counts, numbers)}


def publish_entity_rows(path: pathlib.Path, kb: Artifact, tokenizer: Artifact, max_tokens: int) -> None:
    """Publishes one row of tokens for each row of the knowledge base, in its order."""
    kb_rows = KnowledgeBase.read(kb.path, kb.facts["languages"])

    def row_sets() -> Iterator[RowSet]:
        loaded, first = Tokenizer.load(tokenizer.path), 0
        for entities in _groups(read_entities(kb.path), ENTITIES_AT_ONCE):
            rows = TokenRows.from_rows(loaded.rows([mark_entity(entity) for entity in entities], max_tokens))
            ids = np.arange(first, first + len(rows))
            yield RowSet(rows, kb_rows.entities_E[ids], kb_rows.languages_E[ids], ids)
            first += len(rows)

    with publish(path, "tokens") as draft:
        draft.reads("kb", kb)
        draft.reads("tokenizer", tokenizer)
        draft.facts |= {"settings": {"entity_tokens": max_tokens}, "max_tokens": max_tokens}
        draft.facts |= {"languages": kb.facts["languages"], "rows": write_rows(draft, row_sets())}


def damuel_mentions(
    archives: Archives, split: Literal["train", "held_out"], windows: Windows
) -> Iterator[MentionBlock]:
    """The mentions of one split of the DaMuEL pages, one block a part."""
    read = functools.partial(_mentions_of_part, archives=archives, split=split, windows=windows)
    malformed = Malformed(archives.max_malformed, archives.max_malformed_share)
    for part in _each_part(read, archives, f"mentions/{split}", malformed):
        yield part.block


def mewsli_mentions(
    tree: pathlib.Path, languages: Iterable[str], windows: Windows, malformed: Malformed, limit: int = 0,
    redirects: Redirects | None = None,
) -> Iterator[MentionBlock]:  # fmt: skip
    """The mentions of a Mewsli-9 tree, language by language; the first `limit` of each if it is not 0."""
    tokenizer = Tokenizer.load(windows.tokenizer)
    counts: dict[str, int] = {}
    for language in languages:
        documents = mewsli.read_documents(tree, language, malformed, redirects)
        for group in _groups(_first_mentions(documents, limit) if limit else documents, DOCUMENTS_AT_ONCE):
            in_group = [mention for document in group for mention in document.mentions]
            dropped = sum((document.dropped for document in group), Counter())
            counts[language] = counts.get(language, 0) + len(in_group) + dropped.total()
            yield _block(language, in_group, dropped, tokenizer, windows)
    if not limit:
        mewsli.check_counts(tree, counts)


def _first_mentions(documents: Iterable[mewsli.Document], limit: int) -> Iterator[mewsli.Document]:
    """The documents up to the first `limit` mentions; no text after them is read."""
    for document in documents:
        yield document._replace(mentions=document.mentions[:limit])
        limit -= len(document.mentions)
        if limit <= 0:
            return


def publish_mentions(
    mentions_path: pathlib.Path, tokens_path: pathlib.Path, blocks: Iterable[MentionBlock], kb: Artifact,
    tokenizer: Artifact, windows: Windows, settings: dict,
) -> None:  # fmt: skip
    """Publishes mentions, one JSON line each in a file a language, and their token rows in the same order.

    Mentions whose gold the KB lacks are kept and counted: in an evaluation they are misses, and
    training leaves them out.
    """
    known = KnowledgeBase.read(kb.path, kb.facts["languages"])
    counts: dict[str, int] = {}
    outside: dict[str, int] = {}
    dropped: dict[str, Counter] = {}

    def row_sets(folder: pathlib.Path) -> Iterator[RowSet]:
        for block in blocks:
            golds_N = known.numbers_of([line.gold for line in block.lines])
            gold_rows_N = known.rows_of(golds_N, block.language)
            counts[block.language] = counts.get(block.language, 0) + len(block.lines)
            outside[block.language] = outside.get(block.language, 0) + int((gold_rows_N < 0).sum())
            dropped.setdefault(block.language, Counter()).update(block.dropped)
            with open(folder / mentions.file_name(block.language), "ab") as file:
                file.writelines(map(mentions.write_line, block.lines))
            languages_N = np.full(len(block.lines), list(counts).index(block.language))
            yield RowSet(block.rows, golds_N, languages_N, gold_rows_N)
        if not any(counts.values()):
            reasons = ", ".join(f"{count} {reason}" for reason, count in sum(dropped.values(), Counter()).items())
            raise MelError(f"No mention was found for {mentions_path}; dropped: {reasons or 'none'}.")

    with publish(mentions_path, mentions.KIND) as published, publish(tokens_path, "tokens") as tokens:
        rows = write_rows(tokens, row_sets(published.path))
        facts = {"settings": settings, "languages": list(counts), "rows": rows}
        by_reason = {language: dict(sorted(reasons.items())) for language, reasons in dropped.items()}
        published.facts |= facts | {"counts": counts, "dropped": by_reason, "gold outside the KB": outside}
        tokens.facts |= facts | {"max_tokens": windows.max_tokens, "title_in_window": windows.title_in_window}
        published.reads("kb", kb)
        tokens.reads("kb", kb)
        tokens.reads("tokenizer", tokenizer)


def _linked(counts: alias_table.Counts) -> Iterator[EntityId]:
    return (entity_id for count in counts for _, _, entity_id in count)


def _closed(writer: KnowledgeBaseWriter, linked: Iterable[EntityId], malformed: Malformed) -> KnowledgeBase:
    """The finished knowledge base. Names the languages without a row; says what was read if there is none at all."""
    try:
        known = writer.close(linked)
    except MelError as error:
        raise MelError(f"{error} What was read: {malformed.tally()}.") from error
    if empty := [language for language, count in writer.counts.items() if not count]:
        logging.warning("The archive of %s holds no entity: is it the right one?", ", ".join(empty))
    return known


class _Surveyed(NamedTuple):
    """What a part says of entities; those that the redirects moved stand apart."""

    entities: list[Entity]
    moved: list[Entity]
    counts: alias_table.Counts
    redirected: int
    malformed: Malformed


class _Mentioned(NamedTuple):
    block: MentionBlock
    malformed: Malformed


def _survey_part(item: tuple[str, Part], archives: Archives) -> _Surveyed:
    language, part = item
    malformed = Malformed(archives.max_malformed, log=False)
    entities, moved, redirected = [], [], 0
    counts = alias_table.Counts(Counter(), Counter(), Counter())
    for page in damuel.read_pages(part, language, malformed, archives.redirects):
        if page.entity is not None:
            (moved if page.redirected_entity else entities).append(page.entity)
        redirected += page.redirected
        if not is_held_out(page.qid, archives.held_out):
            counts.links.update(alias_table.count_aliases(page.mentions))
            counts.lemmas.update(alias_table.count_lemmas(page.mentions))
        counts.names.update((name, language, page.qid) for name in page.names)
    return _Surveyed(entities, moved, counts, redirected, malformed)


def _mentions_of_part(item: tuple[str, Part], archives: Archives, split: str, windows: Windows) -> _Mentioned:
    language, part = item
    malformed = Malformed(archives.max_malformed, log=False)
    in_split: list[Mention] = []
    dropped: Counter[str] = Counter()
    for page in damuel.read_pages(part, language, malformed, archives.redirects):
        if is_held_out(page.qid, archives.held_out) == (split == "held_out"):
            in_split.extend(page.mentions)
            dropped.update(page.dropped)
    return _Mentioned(_block(language, in_split, dropped, _tokenizer(windows.tokenizer), windows), malformed)


def _block(
    language: str, with_contexts: list[Mention], dropped: Counter, tokenizer: Tokenizer, windows: Windows
) -> MentionBlock:
    marked = [mark_mention(mention, windows.title_in_window) for mention in with_contexts]
    rows = TokenRows.from_rows(tokenizer.rows(marked, windows.max_tokens))
    return MentionBlock(language, rows, [mentions.line_of(mention) for mention in with_contexts], dropped)


@functools.cache
def _tokenizer(folder: pathlib.Path) -> Tokenizer:
    """Loaded once in each worker process."""
    return Tokenizer.load(folder)


def _each_part(function, archives: Archives, what: str, malformed: Malformed) -> Iterator:
    """What `function` makes of each part, in order; its `malformed` is merged and judged language by language."""
    progress = Progress(f"reading {what}", len(archives.parts), "parts")
    results = map_in_order(function, archives.parts, archives.workers)
    for language, items in itertools.groupby(zip(archives.parts, results, strict=True), key=lambda item: item[0][0]):
        for _, result in items:
            malformed.merge(result.malformed)
            progress.add(note=language)
            yield result
        malformed.finish(f"the archive of {language}")
    progress.close()


def _groups(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while group := list(itertools.islice(items, size)):
        yield group


def is_held_out(entity_id: EntityId, share: float) -> bool:
    """Whether the page of an entity, in all languages alike, is held out."""
    return zlib.crc32(entity_id.encode()) < share * 2**32
