"""The knowledge base: how rows and numbers are found, and read in ranges."""

import numpy as np
import pytest

from mel.corpora import kb as knowledge_bases
from mel.corpora.kb import FILE, EntityRows, KnowledgeBase, read_entities, row_ranges, write_record
from mel.types import Entity

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


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("at_once", [1, 5, 1 << 20])
def test_ranges_of_rows_cover_all_rows_in_order(tmp_path, monkeypatch, rows, at_once):
    monkeypatch.setattr(knowledge_bases, "ROWS_AT_ONCE", at_once)
    entities = [Entity(f"Q{number}", "en", "é" * number, "line\nand line") for number in range(1, 8)]
    (tmp_path / FILE).write_bytes(b"".join(map(write_record, entities)))
    ranges = list(row_ranges(tmp_path, rows))
    found = [list(read_entities(tmp_path, *each)) for each in ranges]
    assert [entity for some in found for entity in some] == entities == list(read_entities(tmp_path))
    assert [len(some) for some in found] == [rows] * (7 // rows) + [7 % rows] * (7 % rows > 0)
