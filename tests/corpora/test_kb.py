"""The knowledge base with one row an entity: of the language that links to it most."""

import numpy as np
import pytest

from mel.corpora import kb as knowledge_bases
from mel.corpora.kb import EntityRows, KnowledgeBase, KnowledgeBaseWriter, read_entities
from mel.types import Entity


@pytest.mark.parametrize(
    "links, languages",
    [
        ({}, {"Q1": "es", "Q2": "en", "Q3": "es"}),  # none links: the first language of --languages that has a row
        ({("Q1", "en"): 2, ("Q1", "es"): 1}, {"Q1": "en", "Q2": "en", "Q3": "es"}),
        ({("Q1", "en"): 2, ("Q1", "es"): 2}, {"Q1": "es", "Q2": "en", "Q3": "es"}),
        ({("Q2", "es"): 9, ("Q3", "es"): 9}, {"Q1": "es", "Q2": "en", "Q3": "es"}),  # Q2 has no row in Spanish
    ],
)
def test_the_language_that_links_most_keeps_its_row(tmp_path, links, languages):
    writer = KnowledgeBaseWriter(tmp_path, ("es", "en"))
    rows = [("Q1", "en"), ("Q2", "en"), ("Q3", "en"), ("Q1", "es"), ("Q3", "es")]
    writer.add(Entity(name, language, f"{name} in {language}", "") for name, language in rows)
    left_out = writer.keep_most_linked(links)
    kb = writer.close()
    kept = [row for row in rows if languages[row[0]] == row[1]]
    assert [(entity.entity_id, entity.language) for entity in read_entities(tmp_path)] == kept
    assert [(kb.ids[number], kb.languages[place]) for number, place in zip(kb.entities_E, kb.languages_E)] == kept
    assert list(kb.titles) == [f"{name} in {language}" for name, language in kept]
    assert sorted(left_out) == sorted(
        (f"{name} in {lang}", lang, name) for name, lang in rows if (name, lang) not in kept
    )
    assert writer.counts == {language: [row[1] for row in kept].count(language) for language in ("es", "en")}
    assert kb.rows_of([kb.numbers_of(["Q1"])[0]], "en") == kb.rows_of([kb.numbers_of(["Q1"])[0]], "es") >= 0


ROWS = [("Q5", 0), ("Q2", 1), ("Q5", 1), ("Q9", 0), ("Q2", 0)]


def test_the_rows_of_entities_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(knowledge_bases, "ROWS_AT_ONCE", 2)
    kb = KnowledgeBase.of(ROWS, "abcde", ("es", "en"), linked=["Q7"])
    kb.write(tmp_path)
    for rows in (kb.entity_rows, KnowledgeBase.read(tmp_path, ("es", "en")).entity_rows):
        assert rows.has(np.array([0, 1, 2, 3, 4, 5, -1])).tolist() == [False, True, True, False, True, False, False]
        first_n, end_n = rows.ranges(np.array([1, 2, 3]))  # Q2, Q5 and Q7
        found = [rows.order_E[first:end].tolist() for first, end in zip(first_n, end_n, strict=True)]
        assert found == [[4, 1], [0, 2], []] and rows.count() == 3
    assert kb.titles_of(1) == ["e", "b"] and kb.titles_of(3) == []


@pytest.mark.parametrize("entities", [[], [7], [7, 7, 7, 7, 7], [3, 1, 2, 1, 3, 9, 9]])
def test_entities_are_counted_once(entities, monkeypatch):
    for at_once in (1, 2, 3, 100):
        monkeypatch.setattr(knowledge_bases, "ROWS_AT_ONCE", at_once)
        assert EntityRows.of(np.array(entities, int)).count() == len(set(entities))


def test_ids_are_numbered_and_strangers_are_outside(tmp_path):
    kb = KnowledgeBase.of(ROWS, "abcde", ("es", "en"), linked=["Q7"])
    kb.write(tmp_path)
    for each in (kb, KnowledgeBase.read(tmp_path, ("es", "en"))):
        assert each.numbers_of(["Q7", "NIL", "Q1", "Q2", "Q7"]).tolist() == [3, 0, -1, 1, 3]
