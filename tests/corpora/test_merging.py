"""Surveys merged into a knowledge base and an alias table: the same, by whatever pieces, as when all is in memory."""

import itertools
import pathlib
import random
import resource
from collections import Counter

import numpy as np
import pytest

from mel.corpora import alias_table, kb_merging, sorting
from mel.corpora.alias_merging import Merge, write_alias_table
from mel.corpora.kb import KnowledgeBase, read_entities
from mel.corpora.kb_merging import HAS_ROW, Choice, left_out_rows, left_out_titles, merge_ids, write_ids, write_rows
from mel.corpora.surveys import DESCRIBED, NAMED, PAGE, Ids, Survey, SurveyWriter
from mel.types import Entity, MelError

WHOLE, TINY = 1 << 30, 300  # bytes that merging may take


def survey_of(folder, rows=(), links=None, names=None, lemmas=None):
    """Rows are (id, language[, level[, moved]])."""
    folder.mkdir(parents=True)
    writer = SurveyWriter(folder, Ids())
    for name, language, *level_and_moved in rows:
        writer.add(Entity(name, language, f"{name} in {language}", f"of {folder.name}"), *level_and_moved or [PAGE])
    return Survey.read(folder, writer.close((links or {}, lemmas or {}, names or {})))


def merged(folder, surveys, choice=Choice(), memory=WHOLE):
    """The knowledge base and the alias table, the counts, and where both stand."""
    kb, aliases, scratch = (folder / name for name in ("kb", "aliases", "scratch"))
    for each in (kb, aliases, scratch):
        each.mkdir(parents=True)
    numbers = merge_ids(surveys, scratch, memory)
    counts, left_out_R = write_rows(kb, scratch, surveys, numbers, choice, memory)
    write_ids(kb, scratch, numbers, memory)
    titles = [left_out_titles(*each, scratch) for each in left_out_rows(surveys, left_out_R)]
    has_row = scratch / HAS_ROW if (scratch / HAS_ROW).exists() else None
    write_alias_table(aliases, scratch, Merge([*surveys, *titles], numbers, has_row, memory, 1))
    known = KnowledgeBase.read(kb, list(counts.entities))
    return known, alias_table.AliasTable.read(aliases), counts, (kb, aliases)


def rows_of(kb):
    return [(kb.ids[number], kb.languages[place]) for number, place in zip(kb.entities_E, kb.languages_E, strict=True)]


def written(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


STRINGS = ["a", "A", "ab", "é", "É", "月", "🌙", "z", "", "aa"]


@pytest.mark.parametrize("memory", [WHOLE, TINY])
def test_what_is_merged_is_what_is_made_in_memory(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(sorting, "VALUES_AT_ONCE", 7)
    drawn, surveys, rows, all_rows = random.Random(5), [], {}, []
    counts = [Counter(), Counter(), Counter()]
    names = [*(f"Q{number}" for number in (1, 2, 9, 10, 11, 100, 10**17)), "MESH:D1", "x/é", "Z"]
    for number in range(6):
        of_survey = [(drawn.choice(names), drawn.choice(("en", "ja"))) for _ in range(5)]
        keys = [(drawn.choice(STRINGS), drawn.choice(("en", "ja", "de")), drawn.choice(names)) for _ in range(60)]
        runs = [Counter(keys[start : start + 20]) for start in (0, 20, 40)]
        surveys.append(survey_of(tmp_path / f"s{number}", of_survey, links=runs[0], lemmas=runs[1], names=runs[2]))
        all_rows += of_survey
        rows |= {row: f"{row[0]} in {row[1]}" for row in of_survey if row not in rows}
        for count, run in zip(counts, runs, strict=True):
            count.update(run)
    kb, _, found, (kb_folder, alias_folder) = merged(tmp_path / "merged", surveys, Choice(("ja",)), memory)
    linked = {name for count in counts for _, _, name in count}
    keys = [(number, ["ja", "en"].index(spoken)) for number, spoken in rows]
    in_memory = KnowledgeBase.of(keys, rows.values(), ("ja", "en"), linked)
    (tmp_path / "kb").mkdir()
    in_memory.write(tmp_path / "kb")
    of_rows = {name: data for name, data in written(kb_folder).items() if name != "entities.jsonl"}
    assert of_rows == written(tmp_path / "kb")
    assert [(e.entity_id, e.language) for e in read_entities(kb_folder)] == list(rows) == rows_of(kb)
    (tmp_path / "aliases").mkdir()
    numbers = {name: number for number, name in enumerate(in_memory.ids)}
    alias_table.write(tmp_path / "aliases", alias_table.Counts(*counts), numbers)
    assert written(alias_folder) == written(tmp_path / "aliases")
    drawn_in = Counter(language for _, language in all_rows)
    assert found.duplicates == {name: drawn_in[name] - [row[1] for row in rows].count(name) for name in ("ja", "en")}


@pytest.mark.parametrize("memory", [WHOLE, TINY])
@pytest.mark.parametrize(
    "links, languages",
    [
        ({}, {"Q1": "es", "Q2": "en", "Q3": "es"}),  # none links: the first language of --languages that has a row
        ({("Q1", "en"): 2, ("Q1", "es"): 1}, {"Q1": "en", "Q2": "en", "Q3": "es"}),
        ({("Q1", "en"): 2, ("Q1", "es"): 2}, {"Q1": "es", "Q2": "en", "Q3": "es"}),
        ({("Q1", "de"): 9}, {"Q1": "es", "Q2": "en", "Q3": "es"}),  # German has no row at all
        ({("Q2", "es"): 9, ("Q3", "es"): 9}, {"Q1": "es", "Q2": "en", "Q3": "es"}),  # Q2 has no row in Spanish
    ],
)
def test_the_language_that_links_most_keeps_its_row(tmp_path, links, languages, memory, monkeypatch):
    monkeypatch.setattr(sorting, "VALUES_AT_ONCE", 2)
    rows = [("Q1", "en"), ("Q2", "en"), ("Q3", "en"), ("Q1", "es"), ("Q3", "es")]
    forms = [
        Counter({(f"form {n}", language, name): 1 for (name, language), count in links.items() for n in range(count)})
    ]
    surveys = [survey_of(tmp_path / "s1", rows[:3], forms[0]), survey_of(tmp_path / "s2", rows[3:])]
    kb, table, counts, (folder, _) = merged(
        tmp_path / "merged", surveys, Choice(("es", "en"), most_linked=True), memory
    )
    kept = [row for row in rows if languages[row[0]] == row[1]]
    assert rows_of(kb) == kept == [(entity.entity_id, entity.language) for entity in read_entities(folder)]
    assert list(kb.titles) == [f"{name} in {language}" for name, language in kept]
    assert counts.entities == {language: [row[1] for row in kept].count(language) for language in ("es", "en")}
    out = [row for row in rows if row not in kept]
    assert counts.left_out == {language: [row[1] for row in out].count(language) for language in ("es", "en")}
    for name, language in out:
        assert [kb.ids[number] for number in table.prior(f"{name} in {language}", language)[0]] == [name]
    assert kb.rows_of([kb.numbers_of(["Q1"])[0]], "en") == kb.rows_of([kb.numbers_of(["Q1"])[0]], "es") >= 0


@pytest.mark.parametrize(
    "wanted, kept, names",
    [
        ("all", [("Q1", "en"), ("Q2", "en"), ("Q3", "en"), ("Q3", "es"), ("Q1", "es")], ["Q1", "Q2", "Q3"]),
        ("described", [("Q1", "en"), ("Q2", "en"), ("Q3", "es")], ["Q1", "Q2", "Q3"]),
        ("page", [("Q1", "en"), ("Q3", "es")], ["Q1", "Q3"]),
    ],
)
def test_rows_of_which_too_little_is_known_are_left_out_and_counted(tmp_path, wanted, kept, names):
    """Q3 has a page in Spanish alone: its English name stays. Q2 has none: without its row its name goes, too."""
    levels = [("Q1", "en", PAGE), ("Q2", "en", DESCRIBED), ("Q3", "en", NAMED)]
    links = {("x", "en", "Q1"): 5, ("y", "es", "Q2"): 3, ("z", "es", "Q9"): 2}
    of_names = {(f"N{name}", "en", name): 1 for name in ("Q1", "Q2", "Q3")}
    surveys = [
        survey_of(tmp_path / "en", levels, links, of_names),
        survey_of(tmp_path / "es", [("Q1", "es", NAMED), ("Q3", "es", PAGE), ("Q3", "es", PAGE)][::-1]),
    ]
    kb, table, counts, _ = merged(tmp_path / "merged", surveys, Choice(("en", "es"), wanted))
    assert sorted(rows_of(kb)) == sorted(kept)
    assert counts.levels == {
        "page": {"en": 1, "es": 1}, "described": {"en": 1, "es": 0}, "all": {"en": 1, "es": 1},
    }  # fmt: skip
    assert (counts.linked, counts.links) == ({"page": 5, "described": 8, "all": 8}, 10)
    assert counts.duplicates == {"en": 0, "es": 1}
    assert [name for name in ("Q1", "Q2", "Q3") if table.prior(f"N{name}", "en")[0]] == names
    assert [kb.ids[c.entity] for c in table.candidates("y")] == ["Q2"]  # a link stays what it is


def test_what_the_redirects_moved_comes_last_and_the_target_itself_wins(tmp_path):
    first = survey_of(tmp_path / "a", [("Q5", "en", PAGE, True), ("Q1", "en", PAGE, False), ("Q7", "en", PAGE, True)])
    kb, _, counts, (folder, _) = merged(tmp_path / "merged", [first, survey_of(tmp_path / "b", [("Q5", "en")])])
    assert [(e.entity_id, e.description) for e in read_entities(folder)] == [
        ("Q1", "of a"), ("Q5", "of b"), ("Q7", "of a"),
    ]  # fmt: skip
    assert counts.duplicates == {"en": 1} and kb.entities_E.tolist() == [1, 2, 3]


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(MelError, match="The knowledge base is empty"):
        merged(tmp_path / "none", [survey_of(tmp_path / "s", [], {("x", "en", "Q1"): 1})])
    with pytest.raises(MelError, match="The knowledge base is empty"):
        merged(tmp_path / "named", [survey_of(tmp_path / "t", [("Q1", "en", NAMED)])], Choice(rows="page"))


@pytest.mark.parametrize("memory", [1, 100, 1000, WHOLE])
@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_sorting_in_pieces_is_sorting(tmp_path, memory, at_once, monkeypatch):
    monkeypatch.setattr(sorting, "VALUES_AT_ONCE", at_once)
    for number, values in enumerate(([], [5], [3, 3, 3, 3], list(np.random.default_rng(0).integers(0, 9, 40)))):
        values_N = np.array(values, np.uint64)
        files = tmp_path / f"{number}-s.npy", tmp_path / f"{number}-r.npy"
        sorting.write_sorted(values_N, *files, memory)
        order = np.argsort(values_N, kind="stable")
        assert np.load(files[0]).tolist() == values_N[order].tolist() and np.load(files[0]).dtype == np.uint64
        assert np.load(files[1]).tolist() == order.tolist() and np.load(files[1]).dtype == np.int32


def test_a_small_memory_makes_pieces():
    assert sorting.pieces_of(1000, 1 << 30) == 1 and sorting.pieces_of(1000, 300) == 4
    assert sorting.cuts_of(np.arange(100), 4).tolist() == [25, 50, 75] and not len(sorting.cuts_of(np.arange(9), 1))
    assert len(list(itertools.chain(sorting.chunks(kb_merging.SAMPLES)))) == 1


def test_more_surveys_are_merged_than_files_may_be_open(tmp_path):
    surveys = [survey_of(tmp_path / f"s{n}", [(f"Q{n + 1}", "en")], {("x", "en", f"Q{n + 1}"): 1}) for n in range(120)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 80, limits[1]))
    try:
        kb, table, *_ = merged(tmp_path / "merged", surveys)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(kb) == len(table.candidates("x")) == 120
