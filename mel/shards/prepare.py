"""Publishes what preparation makes of archives: the knowledge base, the alias table, mentions and token rows.

Parts are read twice, first for the entities and then for the mentions, because a mention's row names
the row of its gold.
"""

from __future__ import annotations

import itertools
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from absl import logging

from mel.artifacts import Artifact, open_artifact, publish
from mel.corpora import alias_table, mentions
from mel.corpora.kb import KnowledgeBase, KnowledgeBaseWriter, read_entities
from mel.corpora.malformed import Malformed
from mel.corpora.names import shown
from mel.corpora.sources import Source, write_sources
from mel.shards.archives import Archives
from mel.shards.blocks import MentionBlock, Windows, grouped, survey
from mel.shards.datasets import RowSet, write_rows
from mel.shards.own import survey_own
from mel.shards.rows import TokenRows
from mel.text.marking import mark_entity
from mel.text.tokenizer import Tokenizer
from mel.types import NIL_ID, EntityId, MelError

ENTITIES_AT_ONCE = 8192
MOST_UNKNOWN = 10_000  # golds that the KB lacks, of which it is remembered how often they occur
UNKNOWN_NAMED = 5


def publish_kb(kb_path: pathlib.Path, alias_path: pathlib.Path, archives: Archives, settings: dict) -> None:
    """Publishes the knowledge base and the alias table of the training mentions, in one reading."""
    malformed, languages = archives.config.malformed(), archives.config.languages
    counts = alias_table.Counts(Counter(), Counter(), Counter())
    redirected, moved, sources = 0, [], list(archives.own.sources_now().items())
    with publish(kb_path, "kb") as kb:
        writer = KnowledgeBaseWriter(kb.path, languages)
        for part in itertools.chain(survey_own(archives, malformed), survey(archives, malformed)):
            writer.add(part.entities)
            moved += part.moved
            for count, part_count in zip(counts, part.counts, strict=True):
                count.update(part_count)
            redirected += part.redirected
            sources += [part.source] if part.source else []
        writer.add(moved)  # last, so that the record of the QID they were moved to comes first wherever it stood
        left_out = _leave_out(writer, counts) if archives.config.kb_rows_by == "most_linked" else Counter()
        known = _closed(writer, _linked(counts), malformed, left_out)
        numbers = {name: number for number, name in enumerate(known.ids)}
        write_sources(kb.path, dict(sources))
        kb.facts |= {
            "settings": settings, "languages": list(writer.counts), "rows": sum(writer.counts.values()),
            "entities": writer.counts, "duplicates": writer.duplicates, "redirected": redirected,
            "left_out": {language: left_out[language] for language in writer.counts},
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
    may_be_empty: bool = False,
) -> None:  # fmt: skip
    """Publishes mentions, one JSON line each in a file a language, and their token rows in the same order.

    Mentions whose gold the KB lacks are kept, counted and named: in an evaluation they are misses, and
    training leaves them out. `sources` are listed beside the mentions, if they were read from others than the KB's.

    Raises:
      MelError: there is no mention, and that `may_be_empty` is not said.
    """
    known = KnowledgeBase.read(kb.path, kb.facts["languages"])
    tally = _Tally()

    def row_sets(folder: pathlib.Path) -> Iterator[RowSet]:
        for block in blocks:
            golds_N = known.numbers_of([line.gold for line in block.lines])
            gold_rows_N = known.rows_of(golds_N, block.language)
            tally.add(block, gold_rows_N)
            with open(folder / mentions.file_name(block.language), "ab") as file:
                file.writelines(map(mentions.write_line, block.lines))
            languages_N = np.full(len(block.lines), list(tally.counts).index(block.language))
            yield RowSet(block.rows, golds_N, languages_N, gold_rows_N)
        if not any(tally.counts.values()) and not may_be_empty:
            raise MelError(f"No mention was found for {mentions_path}; dropped: {tally.reasons()}.")

    with publish(mentions_path, mentions.KIND) as published, publish(tokens_path, "tokens") as tokens:
        rows = write_rows(tokens, row_sets(published.path), may_be_empty)
        if sources is not None:
            write_sources(published.path, sources)
        facts = {"settings": settings, "languages": list(tally.counts), "rows": rows}
        published.facts |= facts | tally.facts()
        tokens.facts |= facts | {"max_tokens": windows.max_tokens, "title_in_window": windows.title_in_window}
        tokens.facts["unknown in focus"] = tally.in_focus()
        published.reads("kb", kb)
        tokens.reads("kb", kb)
        tokens.reads("tokenizer", tokenizer)
    tally.name_unknown(mentions_path)


class _Tally:
    """How many mentions each language has, how many were dropped and why, and whose golds the KB lacks."""

    def __init__(self):
        self.counts: dict[str, int] = {}
        self._outside: dict[str, int] = {}
        self._dropped: dict[str, Counter[str]] = {}
        self._in_focus: dict[str, np.ndarray] = {}
        self._unknown: Counter[EntityId] = Counter()
        self._unknown_mentions = 0

    def add(self, block: MentionBlock, gold_rows_N: np.ndarray) -> None:
        unknown = [block.lines[place].gold for place in np.flatnonzero(gold_rows_N < 0).tolist()]
        self.counts[block.language] = self.counts.get(block.language, 0) + len(block.lines)
        self._outside[block.language] = self._outside.get(block.language, 0) + len(unknown)
        self._dropped.setdefault(block.language, Counter()).update(block.dropped)
        self._in_focus[block.language] = self._in_focus.get(block.language, 0) + np.array(block.unknown)
        named = [name for name in unknown if name != NIL_ID]
        self._unknown_mentions += len(named)
        room = len(self._unknown) < MOST_UNKNOWN
        self._unknown.update(name for name in named if room or name in self._unknown)

    def facts(self) -> dict[str, dict]:
        by_reason = {language: dict(sorted(reasons.items())) for language, reasons in self._dropped.items()}
        return {"counts": self.counts, "dropped": by_reason, "gold outside the KB": self._outside}

    def in_focus(self) -> dict[str, list[int]]:
        """How many tokens of the focuses of each language the vocabulary lacks, and how many there are."""
        return {language: both.tolist() for language, both in self._in_focus.items()}

    def reasons(self) -> str:
        dropped = sum(self._dropped.values(), Counter())
        return ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"

    def name_unknown(self, path: pathlib.Path) -> None:
        """Says which entities the mentions mean that the KB lacks, those of the most mentions first."""
        if self._unknown:
            names = ", ".join(f"{shown(name)} ({count})" for name, count in self._unknown.most_common(UNKNOWN_NAMED))
            logging.warning(
                "%s: %d mentions mean entities that the KB lacks, such as %s: they are no answers, and nothing is "
                "learned from them.", path, self._unknown_mentions, names,
            )  # fmt: skip


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
        logging.warning("No entity of %s was found: is the input the right one?", ", ".join(empty))
    return known
