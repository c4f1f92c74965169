"""The tables without context, on tables small enough to read."""

import numpy as np
import pytest

from mel.corpora import similarity
from mel.corpora.alias_table import AliasTable, Counts, write
from mel.systems import alias_tables
from tests.evaluation.hand_made import kb_of, mentions_of

LINKS = {
    ("Mond", "de", 1): 2, ("Mond", "en", 2): 5, ("Mond", "en", 1): 1,
    ("Sonnenschein", "de", 3): 4, ("Sonnenuhr", "de", 4): 1, ("Sonnenuhr", "de", 5): 3,
}  # fmt: skip


@pytest.fixture
def table(tmp_path) -> AliasTable:
    numbers = {entity: entity for entity in range(10)}
    write(tmp_path, Counts(LINKS, {("die Uhr", "de", 6): 1}, {("Luna", "es", 7): 1}), numbers)
    table = AliasTable.read(tmp_path)
    table.add_titles(kb_of((8, "de", "Mond"), (9, "fr", "Lune")))
    return table


def mentions(*surface_forms, **columns):
    return mentions_of([1] * len(surface_forms), surface_form=list(surface_forms), **columns)


def answers(ranking) -> list[list[int]]:
    return [entities_K[entities_K > 0].tolist() for entities_K in ranking.entities_QK]


def test_over_all_languages_the_most_linked_is_first(table):
    asked = mentions("Mond", "MOND", "Uhren", "Lune", lemma=["", "", "die Uhr", ""])
    ranking = alias_tables.rank_by_alias_table(table, asked)
    assert answers(ranking) == [[2, 1], [2, 1], [6], []]
    assert ranking.scores_QK[0, :2] == pytest.approx([5 / 8, 3 / 8])
    assert np.isneginf(ranking.scores_QK[3]).all()


def test_the_own_language_comes_first_and_others_behind(table):
    asked = mentions("Mond", "Mond", "Mond", "Uhren", language=["de", "en", "ja", "de"], lemma=[""] * 3 + ["die Uhr"])
    assert answers(alias_tables.rank_by_prior(table, asked, False)) == [[1, 2], [2, 1], [2, 1], [6]]


def test_names_stand_behind_links(table):
    asked = mentions("Mond", "luna", "Lune")
    assert answers(alias_tables.rank_by_prior(table, asked, True)) == [[1, 2, 8], [7], [9]]


def test_a_surface_form_never_seen_is_answered_by_similar_ones(table):
    ranking = alias_tables.rank_by_similarity(table, mentions("Mond", "Sonnenschirm", "xyz"))
    assert answers(ranking) == [[1, 2, 8], [3, 5, 4], []]
    # In order, Sonnenschein has 10 letters of Sonnenschirm's and Sonnenuhr 8: 2 · 10 / 24 and 2 · 8 / 21.
    prior = {form: table.prior(form, "de")[0] for form in ("Sonnenschein", "Sonnenuhr")}
    evidence = np.array(
        [20 / 24 * prior["Sonnenschein"][3], 16 / 21 * prior["Sonnenuhr"][5], 16 / 21 * prior["Sonnenuhr"][4]]
    )
    assert ranking.scores_QK[1, :3] == pytest.approx(evidence / (evidence.sum() + 1))


def test_the_similarity_prior_sums_to_one(table):
    prior = similarity.similarity_prior(table, mentions("Mond", "Sonnenschirm", "xyz").lookups, outside=0.01)
    for form, seen in (("Mond", 3), ("Sonnenschirm", 3), ("xyz", 0)):
        probable, outside = prior(form, "de", "")
        assert len(probable) == seen
        assert sum(probable.values()) + (100 - seen) * outside == pytest.approx(1)
