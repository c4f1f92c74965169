"""The knowledge base with one row an entity: of the language that links to it most."""

import pytest

from mel.corpora.kb import KnowledgeBaseWriter, read_entities
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
