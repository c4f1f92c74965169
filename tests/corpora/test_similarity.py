"""The most similar aliases, by hand."""

import pytest

from mel.corpora import similarity


def test_similar_aliases_by_hand():
    found = similarity.similar_aliases(["Abcd", "zz"], ["ab", "abcx", "ABCY", "q"])
    # 2 · 2 / 6 and 2 · 3 / 8, the first of equals first; q has nothing in common.
    assert found["Abcd"] == [("abcx", 0.75), ("ABCY", 0.75), ("ab", pytest.approx(2 / 3))]
    assert found["zz"] == []


def test_blocks_do_not_change_what_is_similar(monkeypatch):
    forms, aliases = [f"form {n * n}" for n in range(20)], [f"from {n * 7}" for n in range(30)]
    whole = similarity.similar_aliases(forms, aliases)
    monkeypatch.setattr(similarity, "SIMILARITIES_AT_ONCE", 1)
    assert similarity.similar_aliases(forms, aliases) == whole
    assert all(len(found) <= similarity.SIMILAR_ALIASES for found in whole.values())
