"""Publishes what preparation makes of units and own files: knowledge base, alias table, mentions, token rows."""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from absl import logging

from mel.artifacts import Artifact, Draft, open_artifact, publish
from mel.corpora import mentions
from mel.corpora.alias_merging import Merge, write_alias_table
from mel.corpora.kb import KnowledgeBase, read_entities, row_ranges
from mel.corpora.kb_merging import HAS_ROW, Choice, left_out_rows, left_out_titles, merge_ids, write_ids, write_rows
from mel.corpora.malformed import Malformed
from mel.corpora.names import shown
from mel.corpora.sources import Source, write_sources
from mel.corpora.surveys import Survey
from mel.corpora.workers import map_in_order
from mel.progress import Progress
from mel.shards.archives import Archives, ArchivesConfig
from mel.shards.blocks import MentionBlock, Windows, load_once
from mel.shards.datasets import RowSet
from mel.shards.datasets import write_rows as write_token_rows
from mel.shards.own import survey_own
from mel.shards.rows import TokenRows
from mel.shards.units import Units
from mel.text.marking import mark_entity
from mel.types import NIL_ID, EntityId, MelError

SCRATCH = "scratch"  # what is needed on the way, in a draft
ENTITIES_AT_ONCE = 8192
MOST_UNKNOWN = 10_000  # golds that the KB lacks, of which it is remembered how often they occur
UNKNOWN_NAMED = 5


def publish_kb(
    kb_path: pathlib.Path, alias_path: pathlib.Path, archives: Archives, settings: dict, units: Units | None = None
) -> None:
    """Publishes the knowledge base and the alias table of the training mentions."""
    malformed, sources, redirected = archives.config.malformed(), list(archives.own.sources_now().items()), 0
    with publish(alias_path, "alias table") as aliases:
        scratch = aliases / SCRATCH
        scratch.mkdir()
        with publish(kb_path, "kb") as kb:
            surveys = list(survey_own(archives, malformed, scratch))
            for unit in units.read(malformed) if units else ():
                surveys.append(unit.survey)
                redirected += unit.redirected
                sources.append(unit.source)
            merge = _write_kb(kb, scratch, archives.config, surveys, malformed)
            write_sources(kb.path, dict(sources))
            kb.facts |= {
                "settings": settings, "redirected": redirected, "malformed": len(malformed),
                "dropped": dict(sorted(malformed.dropped.items())),
            }  # fmt: skip
        aliases.reads("kb", open_artifact(kb_path, "kb"))
        aliases.facts |= {"settings": settings, "rows": write_alias_table(aliases.path, scratch, merge)}
        shutil.rmtree(scratch)


def _write_kb(
    kb: Draft, scratch: pathlib.Path, config: ArchivesConfig, surveys: list[Survey], malformed: Malformed
) -> Merge:
    """Writes a knowledge base; returns what its alias table is merged from."""
    choice = Choice(config.languages, config.kb_rows, config.kb_rows_by == "most_linked")
    numbers = merge_ids(surveys, scratch, config.memory_bytes)
    try:
        counts, left_out_R = write_rows(kb.path, scratch, surveys, numbers, choice, config.memory_bytes)
    except MelError as error:
        raise MelError(f"{error} What was read: {malformed.tally()}.") from error
    write_ids(kb.path, scratch, numbers, config.memory_bytes)
    if empty := [name for name, count in counts.entities.items() if not count + counts.left_out[name]]:
        logging.warning("No entity of %s was found: is the input the right one?", ", ".join(empty))
    kb.facts |= {
        "languages": list(counts.entities), "rows": sum(counts.entities.values()), "entities": counts.entities,
        "duplicates": counts.duplicates, "left_out": counts.left_out, "known": counts.levels,
        "links": counts.links, "links covered": counts.linked,
    }  # fmt: skip
    titles = [left_out_titles(*each, scratch) for each in left_out_rows(surveys, left_out_R)]
    has_row = scratch / HAS_ROW if (scratch / HAS_ROW).exists() else None
    return Merge([*surveys, *titles], numbers, has_row, config.memory_bytes, config.workers or os.cpu_count() or 1)


def publish_entity_rows(
    path: pathlib.Path, kb: Artifact, tokenizer: Artifact, max_tokens: int, workers: int = 1
) -> None:
    """Publishes one row of tokens for each row of the knowledge base, in its order; `workers` processes make them."""
    kb_rows = KnowledgeBase.read(kb.path, kb.facts["languages"])
    make = functools.partial(_entity_rows, kb=kb.path, tokenizer=tokenizer.path, max_tokens=max_tokens)

    def row_sets() -> Iterator[RowSet]:
        first, progress = 0, Progress("reading entities", len(kb_rows), "rows")
        for rows in map_in_order(make, list(row_ranges(kb.path, ENTITIES_AT_ONCE)), workers):
            ids = np.arange(first, first + len(rows))
            yield RowSet(rows, kb_rows.entities_E[ids], kb_rows.languages_E[ids], ids)
            first += len(rows)
            progress.add(len(rows))
        progress.close()

    with publish(path, "tokens") as draft:
        draft.reads("kb", kb)
        draft.reads("tokenizer", tokenizer)
        draft.facts |= {"settings": {"entity_tokens": max_tokens}, "max_tokens": max_tokens}
        draft.facts |= {"languages": kb.facts["languages"], "rows": write_token_rows(draft, row_sets())}


def _entity_rows(some: tuple[int, int], kb: pathlib.Path, tokenizer: pathlib.Path, max_tokens: int) -> TokenRows:
    marked = [mark_entity(entity) for entity in read_entities(kb, *some)]
    return TokenRows.from_rows(load_once(tokenizer).rows(marked, max_tokens))


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
            golds_N = known.numbers_of(block.ids)[block.golds_N] if len(block.rows) else np.zeros(0, np.int64)
            gold_rows_N = known.rows_of(golds_N, block.language)
            tally.add(block, gold_rows_N)
            with open(folder / mentions.file_name(block.language), "ab") as file:
                file.write(block.lines)  # pyright: ignore[reportArgumentType]
            languages_N = np.full(len(block.rows), list(tally.counts).index(block.language))
            yield RowSet(block.rows, golds_N, languages_N, gold_rows_N)
        if not any(tally.counts.values()) and not may_be_empty:
            raise MelError(f"No mention was found for {mentions_path}; dropped: {tally.reasons()}.")

    with publish(mentions_path, mentions.KIND) as published, publish(tokens_path, "tokens") as tokens:
        rows = write_token_rows(tokens, row_sets(published.path), may_be_empty)
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
        unknown = [block.ids[place] for place in block.golds_N[gold_rows_N < 0].tolist()]
        self.counts[block.language] = self.counts.get(block.language, 0) + len(block.rows)
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
