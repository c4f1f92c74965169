"""The tables without context, on tables small enough to read."""

import numpy as np
import pytest

from mel.corpora.alias_table import AliasTable, Counts, write
from mel.evaluation import baselines
from mel.types import Entity
from tests.evaluation.hand_made import questions_of

LINKS = {
    ("Mond", "de", 1): 2, ("Mond", "en", 2): 5, ("Mond", "en", 1): 1,
    ("Sonnenschein", "de", 3): 4, ("Sonnenuhr", "de", 4): 1, ("Sonnenuhr", "de", 5): 3,
}  # fmt: skip


@pytest.fixture
def table(tmp_path) -> AliasTable:
    write(tmp_path, Counts(LINKS, {("die Uhr", "de", 6): 1}, {("Luna", "es", 7): 1}))
    table = AliasTable.read(tmp_path)
    table.add_titles([Entity(8, "de", "Mond", ""), Entity(9, "fr", "Lune", "")])
    return table


def asked(*surface_forms, **columns):
    return questions_of([1] * len(surface_forms), surface_forms=list(surface_forms), **columns)


def answers(ranking) -> list[list[int]]:
    return [qids_K[qids_K > 0].tolist() for qids_K in ranking.qids_QK]


def test_over_all_languages_the_most_linked_is_first(table):
    questions = asked("Mond", "MOND", "Uhren", "Lune", lemmas=["", "", "die Uhr", ""])
    ranking = baselines.rank_by_alias_table(table, questions)
    assert answers(ranking) == [[2, 1], [2, 1], [6], []]
    assert ranking.scores_QK[0, :2] == pytest.approx([5 / 8, 3 / 8])
    assert np.isneginf(ranking.scores_QK[3]).all()


def test_the_own_language_comes_first_and_others_behind(table):
    questions = asked(
        "Mond", "Mond", "Mond", "Uhren", languages=["de", "en", "ja", "de"], lemmas=[""] * 3 + ["die Uhr"]
    )
    assert answers(baselines.rank_by_prior(table, questions, False)) == [[1, 2], [2, 1], [2, 1], [6]]


def test_names_stand_behind_links(table):
    questions = asked("Mond", "luna", "Lune")
    assert answers(baselines.rank_by_prior(table, questions, True)) == [[1, 2, 8], [7], [9]]


def test_a_surface_form_never_seen_is_answered_by_similar_ones(table):
    ranking = baselines.rank_by_similarity(table, asked("Mond", "Sonnenschirm", "xyz"))
    assert answers(ranking) == [[1, 2, 8], [3, 5, 4], []]
    # In order, Sonnenschein has 10 letters of Sonnenschirm's and Sonnenuhr 8: 2 · 10 / 24 and 2 · 8 / 21.
    prior = {form: table.prior(form, "de")[0] for form in ("Sonnenschein", "Sonnenuhr")}
    evidence = np.array(
        [20 / 24 * prior["Sonnenschein"][3], 16 / 21 * prior["Sonnenuhr"][5], 16 / 21 * prior["Sonnenuhr"][4]]
    )
    assert ranking.scores_QK[1, :3] == pytest.approx(evidence / (evidence.sum() + 1))


def test_similar_aliases_by_hand():
    found = baselines.similar_aliases(["Abcd", "zz"], ["ab", "abcx", "ABCY", "q"])
    # 2 · 2 / 6 and 2 · 3 / 8, the first of equals first; q has nothing in common.
    assert found["Abcd"] == [("abcx", 0.75), ("ABCY", 0.75), ("ab", pytest.approx(2 / 3))]
    assert found["zz"] == []


def test_blocks_do_not_change_what_is_similar(monkeypatch):
    forms, aliases = [f"form {n * n}" for n in range(20)], [f"from {n * 7}" for n in range(30)]
    whole = baselines.similar_aliases(forms, aliases)
    monkeypatch.setattr(baselines, "SIMILARITIES_AT_ONCE", 1)
    assert baselines.similar_aliases(forms, aliases) == whole
    assert all(len(found) <= baselines.SIMILAR_ALIASES for found in whole.values())


def test_the_similarity_prior_sums_to_one(table):
    prior = baselines.similarity_prior(table, asked("Mond", "Sonnenschirm", "xyz"), outside=0.01)
    for form, seen in (("Mond", 3), ("Sonnenschirm", 3), ("xyz", 0)):
        probable, outside = prior(form, "de", "")
        assert len(probable) == seen
        assert sum(probable.values()) + (100 - seen) * outside == pytest.approx(1)
