"""Publishes what preparation makes of archives: the knowledge base, the alias table, mentions and token rows.

Parts are read twice, first for the entities and then for the mentions, because a mention's row names
the row of its gold.
"""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from absl import logging

from mel.artifacts import Artifact, open_artifact, publish
from mel.corpora import alias_table, mentions
from mel.corpora.kb import KnowledgeBase, KnowledgeBaseWriter, read_entities
from mel.corpora.malformed import Malformed
from mel.corpora.sources import Source, write_sources
from mel.shards.blocks import Archives, MentionBlock, Windows, grouped, survey
from mel.shards.datasets import RowSet, write_rows
from mel.shards.rows import TokenRows
from mel.text.marking import mark_entity
from mel.text.tokenizer import Tokenizer
from mel.types import EntityId, MelError

ENTITIES_AT_ONCE = 8192


def publish_kb(kb_path: pathlib.Path, alias_path: pathlib.Path, archives: Archives, settings: dict) -> None:
    """Publishes the knowledge base and the alias table of the training mentions, in one reading."""
    malformed, languages = archives.config.malformed(), archives.config.languages
    counts = alias_table.Counts(Counter(), Counter(), Counter())
    redirected, moved, sources = 0, [], []
    with publish(kb_path, "kb") as kb:
        writer = KnowledgeBaseWriter(kb.path, languages)
        for part in survey(archives, malformed):
            writer.add(part.entities)
            moved += part.moved
            for count, part_count in zip(counts, part.counts, strict=True):
                count.update(part_count)
            redirected += part.redirected
            sources.append(part.source)
        writer.add(moved)  # last, so that the record of the QID they were moved to comes first wherever it stood
        left_out = _leave_out(writer, counts) if archives.config.kb_rows_by == "most_linked" else Counter()
        known = _closed(writer, _linked(counts), malformed, left_out)
        numbers = {name: number for number, name in enumerate(known.ids)}
        write_sources(kb.path, dict(sources))
        kb.facts |= {
            "settings": settings, "languages": list(languages), "rows": sum(writer.counts.values()),
            "entities": writer.counts, "duplicates": writer.duplicates, "redirected": redirected,
            "left_out": {language: left_out[language] for language in languages},
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
        for entities in grouped(read_entities(kb.path), ENTITIES_AT_ONCE):
            rows = TokenRows.from_rows(loaded.rows([mark_entity(entity) for entity in entities], max_tokens))
            ids = np.arange(first, first + len(rows))
            yield RowSet(rows, kb_rows.entities_E[ids], kb_rows.languages_E[ids], ids)
            first += len(rows)

    with publish(path, "tokens") as draft:
        draft.reads("kb", kb)
        draft.reads("tokenizer", tokenizer)
        draft.facts |= {"settings": {"entity_tokens": max_tokens}, "max_tokens": max_tokens}
        draft.facts |= {"languages": kb.facts["languages"], "rows": write_rows(draft, row_sets())}


def publish_mentions(
    mentions_path: pathlib.Path, tokens_path: pathlib.Path, blocks: Iterable[MentionBlock], kb: Artifact,
    tokenizer: Artifact, windows: Windows, settings: dict, sources: Mapping[str, Source] | None = None,
) -> None:  # fmt: skip
    """Publishes mentions, one JSON line each in a file a language, and their token rows in the same order.

    Mentions whose gold the KB lacks are kept and counted: in an evaluation they are misses, and
    training leaves them out. `sources` are listed beside the mentions, if they were read from others than the KB's.
    """
    known = KnowledgeBase.read(kb.path, kb.facts["languages"])
    counts: dict[str, int] = {}
    outside: dict[str, int] = {}
    unknown: dict[str, np.ndarray] = {}
    dropped: dict[str, Counter] = {}

    def row_sets(folder: pathlib.Path) -> Iterator[RowSet]:
        for block in blocks:
            golds_N = known.numbers_of([line.gold for line in block.lines])
            gold_rows_N = known.rows_of(golds_N, block.language)
            counts[block.language] = counts.get(block.language, 0) + len(block.lines)
            outside[block.language] = outside.get(block.language, 0) + int((gold_rows_N < 0).sum())
            unknown[block.language] = unknown.get(block.language, 0) + np.array(block.unknown)
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
        if sources is not None:
            write_sources(published.path, sources)
        facts = {"settings": settings, "languages": list(counts), "rows": rows}
        by_reason = {language: dict(sorted(reasons.items())) for language, reasons in dropped.items()}
        published.facts |= facts | {"counts": counts, "dropped": by_reason, "gold outside the KB": outside}
        tokens.facts |= facts | {"max_tokens": windows.max_tokens, "title_in_window": windows.title_in_window}
        tokens.facts["unknown in focus"] = {language: both.tolist() for language, both in unknown.items()}
        published.reads("kb", kb)
        tokens.reads("kb", kb)
        tokens.reads("tokenizer", tokenizer)


def _linked(counts: alias_table.Counts) -> Iterator[EntityId]:
    return (entity_id for count in counts for _, _, entity_id in count)


def _leave_out(writer: KnowledgeBaseWriter, counts: alias_table.Counts) -> Counter[str]:
    """Leaves each entity the row of the language that links to it most; the titles of the others become names.

    Returns:
      How many rows each language lost.
    """
    linked: Counter[tuple[EntityId, str]] = Counter()
    for (_, language, entity_id), count in counts.links.items():
        linked[entity_id, language] += count
    left_out = writer.keep_most_linked(linked)
    counts.names.update(left_out)
    return Counter(language for _, language, _ in left_out)


def _closed(
    writer: KnowledgeBaseWriter, linked: Iterable[EntityId], malformed: Malformed, left_out: Counter[str]
) -> KnowledgeBase:
    """The finished knowledge base. Names the languages without an entity; says what was read if there is none."""
    empty = [language for language, count in writer.counts.items() if not count + left_out[language]]
    try:
        known = writer.close(linked)
    except MelError as error:
        raise MelError(f"{error} What was read: {malformed.tally()}.") from error
    if empty:
        logging.warning("The archive of %s holds no entity: is it the right one?", ", ".join(empty))
    return known
