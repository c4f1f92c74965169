"""A knowledge base of four rows and what came later, by hand."""

from collections import Counter

import numpy as np
import pytest

from mel.corpora import alias_table
from mel.corpora.alias_table import AliasTable, Counts
from mel.corpora.kb import KnowledgeBase
from mel.corpora.layers import LaterRows, LayeredKnowledgeBase
from mel.corpora.strings import Strings
from mel.types import NIL, OUTSIDE

# Numbers: NIL 0, Q1 1, Q2 2, Q5 3 (linked only), MESH:A 4; later MESH:B 5.
BASE = KnowledgeBase.of(
    [("Q1", 0), ("Q2", 0), ("Q1", 1), ("MESH:A", 1)], ["One", "Two", "Eins", "Ah"], ("en", "de"), ["Q5"]
)


@pytest.fixture
def kb():
    """Q2 is gone, the German row of Q1 is another, MESH:B is new in French and in English, Q5 has a row now."""
    later = LaterRows(
        np.array([1, 5, 5, 3], np.int32), np.array([1, 2, 0, 0], np.int32), ("en", "de", "fr"),
        Strings.of(["Ein", "Bé", "Bee", "Five"]), Strings.of(["MESH:B"]), np.array([1, 2], np.int32),
    )  # fmt: skip
    return LayeredKnowledgeBase.join(BASE, later)


def test_rows_of_both_layers_are_found(kb):
    assert len(kb) == 8 and kb.entities_E.tolist() == [1, NIL, NIL, 4, 1, 5, 5, 3]
    numbers = kb.numbers_of(["Q1", "Q2", "MESH:B", "Q5", "nobody"])
    assert numbers.tolist() == [1, 2, 5, 3, OUTSIDE]
    assert kb.entity_rows.has(numbers).tolist() == [True, False, True, True, False]
    assert kb.rows_of(numbers, "de").tolist() == [4, -1, 6, 7, -1]
    assert kb.rows_of(numbers, "fr").tolist() == [0, -1, 5, 7, -1]
    assert [kb.titles_of(number) for number in (1, 2, 5)] == [["One", "Ein"], [], ["Bee", "Bé"]]
    assert [*kb.ids] == ["NIL", "Q1", "Q2", "Q5", "MESH:A", "MESH:B"] and len(kb.ids) == 6
    assert (
        [kb.titles[row] for row in range(8)] == [*kb.titles] == ["One", "Two", "Eins", "Ah", "Ein", "Bé", "Bee", "Five"]
    )
    assert [kb.by_title.rows(title) for title in ("one", "two", "eins", "ein", "bee")] == [[0], [], [], [4], [6]]
    assert BASE.rows_of(np.array([2]), "en").tolist() == [1]  # which stays as it was


def test_nothing_that_came_later_is_nothing(kb):
    same = LayeredKnowledgeBase.join(BASE, LaterRows.none(BASE))
    for name in ("entities_E", "languages_E"):
        np.testing.assert_array_equal(getattr(same, name), getattr(BASE, name))
    np.testing.assert_array_equal(same.entity_rows.keys_E, BASE.entity_rows.keys_E)
    np.testing.assert_array_equal(same.entity_rows.order_E, BASE.entity_rows.order_E)
    assert same.languages == BASE.languages and [*same.ids] == [*BASE.ids]


def test_names_of_both_layers_count_but_for_those_that_are_replaced(kb, tmp_path):
    def table(name, links, names):
        (tmp_path / name).mkdir()
        numbers = {entity_id: number for number, entity_id in enumerate(kb.ids)}
        alias_table.write(tmp_path / name, Counts(Counter(links), Counter(), Counter(names)), numbers)
        return AliasTable.read(tmp_path / name)

    base = table(
        "base", {("Uno", "en", "Q1"): 3}, {("Nick", "de", "Q1"): 1, ("Nick", "en", "Q1"): 1, ("X", "de", "Q1"): 1}
    )
    later = table("later", {("Uno", "en", "MESH:B"): 1}, {("Nick", "de", "MESH:B"): 2})
    joined = base.joined(later, kb, {("de", 1)})
    assert {found.entity: found.score for found in joined.candidates("Uno")} == {1: 0.75, 5: 0.25}
    assert joined.prior("Nick", "de")[0] == {1: 1 / 4, 5: 2 / 4} and joined.prior("X", "de")[0] == {}
    assert set(joined.prior("ein", "de")[0]) == {1} and joined.prior("Two", "en")[0] == {}
    assert base.prior("X", "de")[0] == {1: 1 / 2}
    assert dict(joined.lines("links")) == {"Uno": [("en", 1, 3), ("en", 5, 1)]}
