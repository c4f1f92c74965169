"""Units: what each part of an archive says, read once and written by the process that reads it.

A unit is a pure function of its part and of how parts are read, so it does not matter which process makes it, in which
order, or how often: after a crash only those are made that are not there. What is published is put together from
units, in the order of the parts, and then they are deleted.

Beside the files of its survey (`mel.corpora.surveys`), a unit holds for each split that is wanted:
train.jsonl                            the mentions, as they are published
train_tokens.npy, train_lengths.npy    their token rows
train_golds.npy                        the place of each gold among the ids
"""

from __future__ import annotations

import array
import contextlib
import functools
import hashlib
import itertools
import pathlib
import shutil
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

import mel
from mel.artifacts import FORMAT_VERSION, Artifact, Draft, Workdir, discard, exists, open_artifact, publish
from mel.corpora import alias_table, damuel
from mel.corpora.archives import Part, digest_part
from mel.corpora.columns import ColumnWriter, read_bytes, read_column
from mel.corpora.malformed import Malformed, MalformedRecord
from mel.corpora.sources import Source
from mel.corpora.strings import Strings
from mel.corpora.surveys import DESCRIBED, NAMED, OTHERS, PAGE, Ids, Survey, SurveyWriter
from mel.corpora.workers import map_in_order
from mel.locks import claim
from mel.progress import Progress
from mel.shards.archives import Archives, part_name
from mel.shards.blocks import MentionBlock, Split, Windows, grouped, is_held_out, load_once, mention_block
from mel.shards.rows import TokenRows
from mel.types import MelError

KIND = "unit"
KB = "kb"  # what a unit may hold beside splits: its survey
PAGES_AT_ONCE = 256
BYTES_A_MB = 10**6

Item = tuple[str, Part]  # the language of a part, and the part


class Unit(NamedTuple):
    """What a part says, as it stands in a folder."""

    artifact: Artifact

    @property
    def source(self) -> tuple[str, Source]:
        """The name of the part, and what was read."""
        name, *source = self.artifact.facts["source"]
        return name, Source(*source)

    @property
    def redirected(self) -> int:
        """How many QIDs the redirects moved."""
        return self.artifact.facts["redirected"]

    @property
    def survey(self) -> Survey:
        """What the part says of entities."""
        return Survey.read(self.artifact.path, self.artifact.facts["survey"])

    def malformed(self, limit: int) -> Malformed:
        """The records that could not be used, and how many there were."""
        facts = self.artifact.facts
        malformed = Malformed(limit, log=False)
        malformed.records = [MalformedRecord(*record) for record in facts["malformed"]]
        malformed.well_formed, malformed.dropped = facts["well_formed"], Counter(facts["dropped"])
        return malformed

    def block(self, split: Split) -> MentionBlock:
        """The mentions of one split."""
        folder, facts = self.artifact.path, self.artifact.facts["splits"][split]
        tokens, lengths, golds = (
            read_column(folder / f"{split}_{name}.npy") for name in ("tokens", "lengths", "golds")
        )
        rows = TokenRows(tokens, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
        places, golds_N = np.unique(golds, return_inverse=True)
        qids, others = read_column(folder / "qids.npy"), Strings.read(folder, OTHERS)
        ids = [f"Q{qids[place]}" if place < len(qids) else others[place - len(qids)] for place in places.tolist()]
        dropped, unknown = Counter(facts["dropped"]), tuple(facts["unknown"])
        return MentionBlock(
            facts["language"], rows, ids, golds_N, read_bytes(folder / f"{split}.jsonl"), dropped, unknown
        )


class Reading(NamedTuple):
    """How parts become units.

    Attributes:
      folder: where units stand, by language and name of the part.
      archives: the parts, and how records are read.
      windows: how rows are cut.
      contents: what units have to hold, `KB` and splits.
      settings: what decides their content.
    """

    folder: pathlib.Path
    archives: Archives
    windows: Windows
    contents: tuple[str, ...]
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, work: Workdir, archives: Archives, windows: Windows, contents: Sequence[str]) -> Reading:
        tokenizer = open_artifact(work.tokenizer, "tokenizer")
        settings = {
            "redirects": archives.redirects.digest, "held_out": archives.config.held_out, "tokenizer": tokenizer.digest,
            "max_tokens": windows.max_tokens, "title_in_window": windows.title_in_window,
            "program": [mel.__version__, FORMAT_VERSION],
        }  # fmt: skip
        return cls(work.units, archives, windows, tuple(contents), settings)

    def path(self, item: Item) -> pathlib.Path:
        language, part = item
        return self.folder / language / part.name


MakeAll = Callable[[Reading, Sequence[Item]], Iterator[None]]


class Units:
    """The units of all parts, made when they are asked for.

    Args:
      reading: says how, where they have to be made.
      make_all: makes the unit of each part, wherever, and yields once for each in their order; None for processes here.
    """

    def __init__(self, reading: Callable[[], Reading], make_all: MakeAll | None = None):
        self._reading, self._make_all = reading, make_all or make_here
        self._made: Reading | None = None

    def read(self, malformed: Malformed | None = None) -> Iterator[Unit]:
        """Yields each unit, in the order of the parts.

        Args:
          malformed: where the records are counted that cannot be used, and judged language by language; where units
            are there that were judged already, None will do.

        Raises:
          MelError: a part cannot be read, or too much of it is malformed.
        """
        reading = self._reading()
        if self._made is not None and set(reading.contents) <= set(self._made.contents):
            yield from (_open(reading.path(item)) for item in reading.archives.parts)
        elif reading.archives.parts:
            yield from self._make(reading, reading.archives.config.malformed() if malformed is None else malformed)
            self._made = reading

    def _make(self, reading: Reading, malformed: Malformed) -> Iterator[Unit]:
        parts, config, done = reading.archives.parts, reading.archives.config, 0
        progress = Progress("reading archives", sum(part.size for _, part in parts) // BYTES_A_MB, "MB")
        results = self._make_all(reading, parts)
        for language, items in itertools.groupby(zip(parts, results, strict=True), key=lambda item: item[0][0]):
            for item, _ in items:
                unit = _open(reading.path(item))
                malformed.merge(unit.malformed(config.max_malformed))
                before, done = done, done + item[1].size
                progress.add(done // BYTES_A_MB - before // BYTES_A_MB, note=language)
                yield unit
            malformed.finish(f"the archive of {language}")
        progress.close()


def make_here(reading: Reading, items: Sequence[Item]) -> Iterator[None]:
    return map_in_order(functools.partial(make_unit, reading=reading), items, reading.archives.config.workers)


def make_unit(item: Item, reading: Reading) -> None:
    """Publishes the unit of a part, unless it is there; in any process.

    Raises:
      MelError: the part cannot be read, or has too many malformed records.
    """
    path = reading.path(item)
    if _is_sound(path, item, reading):
        return
    discard(path)
    with publish(path, KIND) as draft:
        _write(draft, item, reading)


def _is_sound(path: pathlib.Path, item: Item, reading: Reading) -> bool:
    """Whether a unit is there that was made of this very content in the same way, and holds what is wanted."""
    if not exists(path):
        return False
    try:
        artifact = open_artifact(path, KIND)
        artifact.settle()
    except MelError as error:
        logging.warning("%s That is done now.", error)
        return False
    facts = artifact.facts
    fits = facts["settings"] == reading.settings and set(reading.contents) <= set(facts["contents"])
    return fits and Unit(artifact).source[1].sha256 == digest_part(item[1])


def _open(path: pathlib.Path) -> Unit:
    return Unit(open_artifact(path, KIND, reads=()))


def _write(draft: Draft, item: Item, reading: Reading) -> None:
    (language, part), digest, config = item, hashlib.sha256(), reading.archives.config
    malformed, ids = config.malformed(log=False), Ids()
    survey = SurveyWriter(draft.path, ids) if KB in reading.contents else None
    splits = {split: _SplitWriter(draft.path, split, ids) for split in reading.contents if split != KB}
    counts, redirected = alias_table.Counts(Counter(), Counter(), Counter()), 0
    pages = damuel.read_pages(part, language, malformed, reading.archives.redirects, digest)
    for group in grouped(pages, PAGES_AT_ONCE):
        redirected += sum(page.redirected for page in group)
        if survey is not None:
            _survey(survey, group, counts, language, config.held_out)
        for split, writer in splits.items():
            of_split = [page for page in group if is_held_out(page.qid, config.held_out) == (split == "held_out")]
            mentions = [mention for page in of_split for mention in page.mentions]
            dropped = sum((page.dropped for page in of_split), Counter())
            writer.add(
                mention_block(language, mentions, dropped, load_once(reading.windows.tokenizer), reading.windows)
            )
    of_survey = survey.close(counts) if survey is not None else None
    places_I = ids.write(draft.path)
    source = Source(part.size, digest.hexdigest(), part.place)
    draft.facts |= {
        "settings": dict(reading.settings), "contents": list(reading.contents), "survey": of_survey,
        "splits": {split: writer.close(places_I) | {"language": language} for split, writer in splits.items()},
        "source": [part_name(*item), *source], "redirected": redirected, "well_formed": malformed.well_formed,
        "malformed": [list(record) for record in malformed.records], "dropped": dict(malformed.dropped),
    }  # fmt: skip


def _survey(
    writer: SurveyWriter, pages: Iterable[damuel.Page], counts: alias_table.Counts, language: str, held_out: float
) -> None:
    for page in pages:
        if page.entity is not None:
            level = PAGE if page.text else DESCRIBED if page.entity.description else NAMED
            writer.add(page.entity, level, page.redirected_entity)
        if not is_held_out(page.qid, held_out):
            counts.links.update(alias_table.count_aliases(page.mentions))
            counts.lemmas.update(alias_table.count_lemmas(page.mentions))
        counts.names.update((name, language, page.qid) for name in page.names)


class _SplitWriter:
    """Writes the mentions of one split and their token rows, block by block."""

    def __init__(self, folder: pathlib.Path, split: str, ids: Ids):
        self._folder, self._split, self._ids = folder, split, ids
        self._file = open(folder / f"{split}.jsonl", "wb")
        weakref.finalize(self, self._file.close)  # where an error leaves it behind
        self._tokens, self._lengths = (
            ColumnWriter(folder / f"{split}_{name}.npy", np.int32) for name in ("tokens", "lengths")
        )
        self._golds = array.array("i")
        self._dropped: Counter[str] = Counter()
        self._unknown = np.zeros(2, np.int64)

    def add(self, block: MentionBlock) -> None:
        self._file.write(block.lines)  # pyright: ignore[reportArgumentType]
        self._tokens.extend(block.rows.tokens_T)
        self._lengths.extend(block.rows.lengths_N)
        self._golds.extend(np.array([self._ids.number(name) for name in block.ids], np.int32)[block.golds_N].tolist())
        self._dropped.update(block.dropped)
        self._unknown += block.unknown

    def close(self, places_I: np.ndarray) -> dict[str, Any]:
        for each in (self._file, self._tokens, self._lengths):
            each.close()
        golds_N = places_I[np.asarray(self._golds, np.int64)] if len(self._golds) else np.zeros(0, np.int32)
        np.save(self._folder / f"{self._split}_golds.npy", golds_N)
        return {"dropped": dict(self._dropped), "unknown": self._unknown.tolist()}


def damuel_mentions(units: Units, split: Split, made_from: Mapping[str, Source]) -> Iterator[MentionBlock]:
    """The mentions of one split of the DaMuEL pages, one block a part.

    Args:
      units: of the parts.
      split: which.
      made_from: the parts that the KB was made from.

    Raises:
      MelError: a part has another content than the KB was made from, or cannot be read.
    """
    for unit in units.read():
        name, source = unit.source
        if made_from[name].sha256 != source.sha256:
            raise MelError(
                f"{source.place} has another content than when kb was made: delete kb and run again with --redo."
            )
        yield unit.block(split)


def clear_units(work: Workdir) -> None:
    """Deletes the units, which nobody needs once all is published; those that another process uses stay."""
    if work.units.is_dir():
        with contextlib.suppress(MelError), claim(work.units, patience=0):
            shutil.rmtree(work.units)
