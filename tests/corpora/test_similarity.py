"""The most similar aliases: by hand, and as if each form were compared with every alias."""

import random

import numpy as np
import pytest
from rapidfuzz import process
from rapidfuzz.distance import Indel

from mel.corpora import comparison, similarity
from mel.corpora.shapes import Shapes
from mel.corpora.strings import Strings


def column(aliases):
    return Strings.of(aliases), Shapes.of(aliases)


def by_comparing_with_all(form, aliases):
    """What `similar_aliases` says, the long way."""
    aliases, least = sorted(aliases), similarity.LEAST_SIMILARITY
    (similarity_a,) = process.cdist(
        [form.lower()], [alias.lower() for alias in aliases], scorer=Indel.normalized_similarity, score_cutoff=least,
        dtype=np.float32,
    )  # fmt: skip
    kept = np.flatnonzero(similarity_a)
    best = kept[np.argsort(-similarity_a[kept], kind="stable")[: similarity.SIMILAR_ALIASES]]
    return [(aliases[place], float(similarity_a[place])) for place in best]


def test_similar_aliases_by_hand():
    found = similarity.similar_aliases(["Abcd", "zz"], [column(["ab", "abcx", "ABCY", "q"])])
    # 2 · 2 / 6 and 2 · 3 / 8, the first of equals by its letters; q has nothing in common.
    assert found["Abcd"] == [("ABCY", 0.75), ("abcx", 0.75), ("ab", pytest.approx(2 / 3))]
    assert found["zz"] == []


WAYS = {"alone": (1000, 1 << 20), "together": (0, 1 << 20), "either": (0, 0)}  # few forms, many aliases


@pytest.mark.parametrize("few, many", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("seed", range(6))
def test_the_answers_are_those_of_comparing_with_all(seed, few, many, monkeypatch):
    monkeypatch.setattr(similarity, "FEW", few)
    monkeypatch.setattr(similarity, "MANY", many)
    monkeypatch.setattr(similarity, "STRINGS_AT_ONCE", 7)
    monkeypatch.setattr(comparison, "STRINGS_AT_ONCE", 3)
    monkeypatch.setattr(comparison, "ALIASES_AT_ONCE", 50)
    draw = random.Random(seed)
    letters = ["ab", "abcdefgh", "abAB ßσςΣİ", "東京都府", "aé🦊 b-", "abcdefghijklmnopqrstuvwxyz "][seed]
    aliases = ["".join(draw.choices(letters, k=draw.randrange(0, 9))) for _ in range(600)]
    forms = list(dict.fromkeys("".join(draw.choices(letters, k=draw.randrange(0, 9))) for _ in range(40)))
    columns = [column(aliases[:300]), column([]), column(aliases[200:])]  # some stand in both
    found = similarity.similar_aliases(forms, columns)
    assert list(found) == forms
    for form in forms:
        assert found[form] == by_comparing_with_all(form, set(aliases)), form


@pytest.mark.parametrize("few", [0, 1000], ids=["together", "alone"])
def test_an_alias_that_is_just_as_similar_as_the_least_is_left_out(few, monkeypatch):
    monkeypatch.setattr(similarity, "FEW", few)
    found = similarity.similar_aliases(["xxxyy"], [column(["xxxzz", "xxxz"])])
    assert found == {"xxxyy": [("xxxz", pytest.approx(6 / 9))]}  # 2 · 3 / 10 is .6


def test_thousands_of_forms_and_names_of_all_lengths():
    draw, letters = random.Random(7), "aeioubdfgAEστ京 -"
    names = ["".join(draw.choices(letters, k=draw.randrange(0, 100))) for _ in range(2_000)]
    forms = list(dict.fromkeys("".join(draw.choices(letters, k=draw.randrange(1, 100))) for _ in range(500)))
    forms += [name[:3] + "x" + name[4:] for name in dict.fromkeys(names) if len(name) > 4]
    forms = list(dict.fromkeys(forms))
    found = similarity.similar_aliases(forms, [column(names)])
    assert len(forms) > 2_000 and sum(map(len, found.values())) > 2_000
    for form in forms[::4]:
        assert found[form] == by_comparing_with_all(form, set(names)), form


def test_no_alias_and_no_form():
    assert similarity.similar_aliases(["a"], [column([])]) == {"a": []}
    assert similarity.similar_aliases([], [column(["a"])]) == {}
    many = [f"form {number}" for number in range(20)]
    assert similarity.similar_aliases(many, [column([]), column([""])]) == {form: [] for form in many}
