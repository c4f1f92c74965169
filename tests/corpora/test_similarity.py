"""The most similar aliases: by hand, and as if each form were compared with every alias."""

import random

import numpy as np
import pytest
from rapidfuzz import process
from rapidfuzz.distance import Indel

from mel.corpora import similarity
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


@pytest.mark.parametrize("seed", range(6))
def test_the_answers_are_those_of_comparing_with_all(seed, monkeypatch):
    monkeypatch.setattr(similarity, "STRINGS_AT_ONCE", 7)
    draw = random.Random(seed)
    letters = ["ab", "abcdefgh", "abAB ßσςΣİ", "東京都府", "aé🦊 b-", "abcdefghijklmnopqrstuvwxyz "][seed]
    aliases = ["".join(draw.choices(letters, k=draw.randrange(0, 9))) for _ in range(600)]
    forms = list(dict.fromkeys("".join(draw.choices(letters, k=draw.randrange(0, 9))) for _ in range(40)))
    columns = [column(aliases[:300]), column([]), column(aliases[200:])]  # some stand in both
    found = similarity.similar_aliases(forms, columns)
    assert list(found) == forms
    for form in forms:
        assert found[form] == by_comparing_with_all(form, set(aliases)), form


def test_no_alias_and_no_form():
    assert similarity.similar_aliases(["a"], [column([])]) == {"a": []}
    assert similarity.similar_aliases([], [column(["a"])]) == {}
