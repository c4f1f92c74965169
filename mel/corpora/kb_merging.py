"""Merges surveys into a knowledge base, in bounded memory: no row is an object, and what is sorted is sorted in pieces.

Of all rows, 20 bytes each are held, and of all ids 2. What stands on disk is that of `mel.corpora.kb`, and the same
however many pieces there were.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from mel.corpora.alias_columns import LINKS
from mel.corpora.columns import ColumnWriter, read_bytes, read_column
from mel.corpora.kb import BY_ID, BY_TITLE, COLUMNS, FILE, IDS, TITLES
from mel.corpora.shapes import COLUMNS as SHAPES
from mel.corpora.sorting import chunks, cuts_of, pieces_of, write_sorted
from mel.corpora.strings import STRINGS_AT_ONCE, Strings, StringsWriter, hash_files, hash_of
from mel.corpora.surveys import DESCRIBED, LEVELS, NAMED, PAGE, Ids, Numbers, Survey, SurveyWriter
from mel.types import NIL_ID, EntityId, MelError

KbRows = Literal["page", "described", "all"]
LEAST: dict[KbRows, int] = {"page": PAGE, "described": DESCRIBED, "all": NAMED}
HAS_ROW = "has_row.npy"  # whether each id has a row, where rows were left out of which too little is known
SAMPLES = 1024  # of the ids of a survey
BYTES_AN_ID = 32  # that merging takes


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which rows a knowledge base has.

    Attributes:
      languages: in the order of preference; those of the rows, as they come, follow.
      rows: how much has to be known of the entity in the row's language.
      most_linked: whether an entity has one row, of the language that links to it most, instead of one a language.
    """

    languages: tuple[str, ...] = ()
    rows: KbRows = "all"
    most_linked: bool = False


@dataclasses.dataclass(frozen=True)
class Counts:
    """What became of the rows, by language.

    Attributes:
      entities: how many there are.
      duplicates: how many were of an entity that had one already.
      left_out: how many another language's row stands for.
      levels: how many of those that are no duplicates are of a page, described, or named only, before any is left out.
      linked: how many links of the training pages mean an entity of which at least so much is known somewhere.
      links: how many links there are.
    """

    entities: dict[str, int]
    duplicates: dict[str, int]
    left_out: dict[str, int]
    levels: dict[KbRows, dict[str, int]]
    linked: dict[KbRows, int]
    links: int


def merge_ids(surveys: Sequence[Survey], scratch: pathlib.Path, memory: int) -> Numbers:
    """Numbers all ids that surveys name."""
    samples, total = [np.zeros(0, np.int64)], 0
    for survey in surveys:  # mapped one after the other: each map holds a file open
        qids = survey.column("qids")
        samples.append(qids[:: max(1, len(qids) // SAMPLES)].copy())
        total += len(qids)
    cuts = cuts_of(np.concatenate(samples), pieces_of(total * BYTES_AN_ID, memory))
    bounds = [0, *cuts.tolist(), np.iinfo(np.int64).max]
    column = ColumnWriter(scratch / "qids.npy", np.int64)
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        column.extend(np.unique(np.concatenate([np.zeros(0, np.int64), *_between(surveys, low, high)])))
    column.close()
    return Numbers(scratch, tuple(sorted({name for survey in surveys for name in survey.others})))


def _between(surveys: Sequence[Survey], low: int, high: int) -> Iterator[np.ndarray]:
    """The QIDs of each survey from `low` up to below `high`."""
    for survey in surveys:
        qids = survey.column("qids")
        first, end = np.searchsorted(qids, [low, high]).tolist()
        yield qids[first:end].copy()


def write_ids(folder: pathlib.Path, scratch: pathlib.Path, numbers: Numbers, memory: int) -> None:
    """Writes the ids of a knowledge base, and what finds them."""
    strings, hashes = StringsWriter(folder, IDS), ColumnWriter(scratch / "id_hashes.npy", np.uint64)

    def add(names: Sequence[str]) -> None:
        for name in names:
            strings.add(name)
        hashes.extend(np.fromiter(map(hash_of, names), np.uint64, len(names)))

    add([NIL_ID])
    qids_Q = numbers.qids_Q
    for start in range(0, len(qids_Q), STRINGS_AT_ONCE):
        add([f"Q{number}" for number in qids_Q[start : start + STRINGS_AT_ONCE].tolist()])
    add(numbers.others)
    strings.close()
    hashes.close()
    write_sorted(read_column(scratch / "id_hashes.npy"), *hash_files(folder, BY_ID), memory)


def write_rows(
    folder: pathlib.Path,
    scratch: pathlib.Path,
    surveys: Sequence[Survey],
    numbers: Numbers,
    choice: Choice,
    memory: int,
) -> tuple[Counts, np.ndarray]:
    """Writes the rows of a knowledge base: those that the redirects moved after all others.

    Args:
      folder: where.
      scratch: a folder for what is needed on the way.
      surveys: in the order of their rows.
      numbers: of all ids.
      choice: which rows.
      memory: bytes that sorting may take.

    Returns:
      what became of the rows; and the rows, in the order of the surveys, that are left out for another language's,
      as `titles_of` takes them.

    Raises:
      MelError: there are no rows.
    """
    rows = _Rows(surveys, numbers, scratch, choice.languages, memory)
    first_R = rows.first()
    levels_R = rows.levels()
    kept_R = first_R & (levels_R >= LEAST[choice.rows])
    if (first_R & ~kept_R).any():
        np.save(scratch / HAS_ROW, rows.having(kept_R))
    left_out_R = rows.less_linked(kept_R) if choice.most_linked else np.zeros(len(kept_R), bool)
    kept_R &= ~left_out_R
    if not kept_R.any():
        raise MelError("The knowledge base is empty: the input holds no entity of the languages asked for.")
    rows.write(folder, kept_R, memory)
    levels: dict[KbRows, dict[str, int]] = {
        name: rows.count(first_R & (levels_R == least)) for name, least in LEAST.items()
    }
    linked_L = rows.links_by_level(first_R, levels_R)
    linked: dict[KbRows, int] = {name: int(linked_L[least + 1 :].sum()) for name, least in LEAST.items()}
    kept, duplicates, left_out = (rows.count(some_R) for some_R in (kept_R, ~first_R, left_out_R))
    return Counts(kept, duplicates, left_out, levels, linked, int(linked_L.sum())), left_out_R


def stretches(surveys: Sequence[Survey]) -> Iterator[tuple[Survey, slice]]:
    """The rows of surveys, in the order of a knowledge base."""
    for survey in surveys:
        yield survey, slice(0, survey.unmoved)
    for survey in surveys:
        if len(survey.column("row_ids")) > survey.unmoved:
            yield survey, slice(survey.unmoved, len(survey.column("row_ids")))


class _Rows:
    """R rows of surveys, in the order of a knowledge base, with their keys sorted.

    A key is the number of the entity · the number of languages + that of the language.
    """

    def __init__(
        self, surveys: Sequence[Survey], numbers: Numbers, scratch: pathlib.Path, languages: Sequence[str], memory: int
    ):
        self._surveys, self._numbers, self._scratch = surveys, numbers, scratch
        named = (name for survey, _ in stretches(surveys) for name in survey.languages[: survey.row_languages])
        self._languages = list(dict.fromkeys([*languages, *named]))
        keys = ColumnWriter(scratch / "keys.npy", np.int64)
        for survey, some in stretches(surveys):
            keys.extend(self._keys(survey, survey.column("row_ids")[some], survey.column("row_languages")[some]))
        keys.close()
        self._keys_R = read_column(scratch / "keys.npy")
        files = scratch / "sorted_keys.npy", scratch / "order.npy"
        write_sorted(self._keys_R, *files, memory)
        self._sorted_R, self._order_R = map(read_column, files)

    def first(self) -> np.ndarray:
        """Which rows are the first ones of their keys, bool [R]."""
        first_R = np.zeros(len(self._keys_R), bool)
        for some in chunks(len(first_R)):
            before = self._sorted_R[max(some.start - 1, 0) : some.stop]
            differs = np.diff(before) > 0
            differs = differs if some.start else np.concatenate([np.ones(min(1, len(before)), bool), differs])
            first_R[self._order_R[some][differs]] = True
        return first_R

    def levels(self) -> np.ndarray:
        """How much is known of each row's entity, uint8 [R]."""
        levels = [survey.column("row_levels")[some].copy() for survey, some in stretches(self._surveys)]
        return np.concatenate([np.zeros(0, np.uint8), *levels])

    def count(self, chosen_R: np.ndarray) -> dict[str, int]:
        """How many of the chosen rows each language has."""
        counts_L = np.zeros(len(self._languages), np.int64)
        for some in chunks(len(chosen_R)):
            languages_n = self._keys_R[some][chosen_R[some]] % max(1, len(self._languages))
            counts_L += np.bincount(languages_n, minlength=len(counts_L))
        return dict(zip(self._languages, counts_L.tolist(), strict=True))

    def having(self, kept_R: np.ndarray) -> np.ndarray:
        """Whether each id has a row that is kept, bool [ids]."""
        has_row_U = np.zeros(len(self._numbers), bool)
        for some in chunks(len(kept_R)):
            has_row_U[self._keys_R[some][kept_R[some]] // len(self._languages)] = True
        return has_row_U

    def less_linked(self, kept_R: np.ndarray) -> np.ndarray:
        """Which kept rows are not of the language that links to their entity most; of equal ones the first is."""
        links_R = np.zeros(len(self._sorted_R), np.int32)  # of the first one of each key, in the order of keys
        for survey in self._surveys:
            _, _, lines = survey.run(LINKS)
            keys_P = self._keys(survey, lines["entity"], lines["language"])
            places_P = np.minimum(np.searchsorted(self._sorted_R, keys_P), max(0, len(links_R) - 1))
            found_P = (keys_P >= 0) & (self._sorted_R[places_P] == keys_P) if len(links_R) else keys_P < 0
            np.add.at(links_R, places_P[found_P], lines["count"][found_P])
        out_R = np.zeros(len(kept_R), bool)
        for some in self._by_entity():
            order_n = self._order_R[some]
            places_n = np.flatnonzero(kept_R[order_n])
            entities_n = self._sorted_R[some][places_n] // len(self._languages)
            best_n = np.lexsort((places_n, -links_R[some][places_n], entities_n))
            others_n = best_n[1:][np.diff(entities_n[best_n]) == 0]
            out_R[order_n[places_n[others_n]]] = True
        return out_R

    def links_by_level(self, first_R: np.ndarray, levels_R: np.ndarray) -> np.ndarray:
        """How many links mean an entity without a row, and one of which as much as each of `LEVELS` is known."""
        level_U = np.zeros(len(self._numbers), np.uint8)
        for some in chunks(len(first_R)):
            entities_n = self._keys_R[some][first_R[some]] // len(self._languages)
            np.maximum.at(level_U, entities_n, levels_R[some][first_R[some]] + np.uint8(1))
        linked_L = np.zeros(1 + len(LEVELS), np.int64)
        for survey in self._surveys:
            _, _, lines = survey.run(LINKS)
            levels_P = level_U[self._numbers.of(survey, lines["entity"])]
            linked_L += np.bincount(levels_P, lines["count"], minlength=len(linked_L)).astype(np.int64)
        return linked_L

    def write(self, folder: pathlib.Path, kept_R: np.ndarray, memory: int) -> None:
        """Writes the rows that are kept."""
        self._write_keys(folder, kept_R)
        self._write_texts(folder, kept_R)
        hashes = self._scratch / "hashes.npy"
        write_sorted(read_column(hashes), *hash_files(folder, BY_TITLE), memory)

    def _write_keys(self, folder: pathlib.Path, kept_R: np.ndarray) -> None:
        entities, languages, keys, order = (
            ColumnWriter(folder / f"{name}.npy", np.int64 if name == "row_keys" else np.int32) for name in COLUMNS
        )
        rows_R = np.cumsum(kept_R, dtype=np.int32) - 1
        for some in chunks(len(kept_R)):
            keys_n = self._keys_R[some][kept_R[some]]
            entities.extend(keys_n // len(self._languages))
            languages.extend(keys_n % len(self._languages))
            order_n = self._order_R[some]
            kept_n = kept_R[order_n]
            keys.extend(self._sorted_R[some][kept_n])
            order.extend(rows_R[order_n[kept_n]])
        for column in (entities, languages, keys, order):
            column.close()

    def _write_texts(self, folder: pathlib.Path, kept_R: np.ndarray) -> None:
        titles, hashes = StringsWriter(folder, TITLES), ColumnWriter(self._scratch / "hashes.npy", np.uint64)
        shapes = [ColumnWriter(folder / f"{BY_TITLE}_{name}.npy", dtype) for name, dtype in SHAPES.items()]
        start = 0
        with open(folder / FILE, "wb") as file:
            for survey, some in stretches(self._surveys):
                kept_n = kept_R[start : start + some.stop - some.start]
                start += len(kept_n)
                lines = Strings(read_bytes(survey.folder / FILE), survey.column("line_ends"))
                file.write(lines.taken(some, kept_n)[0])  # pyright: ignore[reportArgumentType]
                titles.extend(*survey.titles.taken(some, kept_n))
                hashes.extend(survey.column("title_hashes")[some][kept_n])
                for column, values in zip(shapes, survey.title_shapes, strict=True):
                    column.extend(values[some][kept_n])
        for column in (titles, hashes, *shapes):
            column.close()

    def _keys(self, survey: Survey, ids_n: np.ndarray, languages_n: np.ndarray) -> np.ndarray:
        """The keys of ids at these places of a survey in its languages; below 0 for a language without rows."""
        numbers = [self._languages.index(name) if name in self._languages else -1 for name in survey.languages]
        numbers_n = np.asarray(numbers, np.int64)[languages_n]
        keys_n = self._numbers.of(survey, ids_n) * len(self._languages) + numbers_n
        return np.where(numbers_n < 0, -1, keys_n)

    def _by_entity(self) -> Iterator[slice]:
        """Slices that cover all sorted keys and part no entity from its other rows, some at a time."""
        start = 0
        for some in chunks(len(self._sorted_R)):
            if some.stop == len(self._sorted_R):
                yield slice(start, some.stop)
            else:
                last = int(self._sorted_R[some.stop - 1]) // len(self._languages)
                end = int(np.searchsorted(self._sorted_R, last * len(self._languages)))
                if end > start:
                    yield slice(start, end)
                    start = end


def left_out_rows(surveys: Sequence[Survey], left_out_R: np.ndarray) -> Iterator[tuple[Survey, np.ndarray]]:
    """Each survey that has rows which are left out, and which of its rows these are."""
    start = 0
    for survey, some in stretches(surveys):
        places = np.flatnonzero(left_out_R[start : start + some.stop - some.start]) + some.start
        start += some.stop - some.start
        if len(places):
            yield survey, places


def left_out_titles(survey: Survey, places_n: np.ndarray, scratch: pathlib.Path) -> Survey:
    """The titles of some rows as names, each once for its row, as a survey of its own."""
    folder = scratch / f"titles-{len(list(scratch.glob('titles-*'))):05d}"
    folder.mkdir()
    titles, ids = survey.titles, survey.column("row_ids")[places_n].tolist()
    languages, qids, others = survey.column("row_languages"), survey.column("qids"), survey.others
    names: Counter[tuple[str, str, EntityId]] = Counter()
    for row, place in zip(places_n.tolist(), ids, strict=True):
        entity_id = f"Q{qids[place]}" if place < len(qids) else others[place - len(qids)]
        names[titles[row], survey.languages[int(languages[row])], entity_id] += 1
    return Survey.read(folder, SurveyWriter(folder, Ids()).close(({}, {}, names)))
