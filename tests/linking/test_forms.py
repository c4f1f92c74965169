"""Forms in texts, and the share of the pages that link them."""

import numpy as np
import pytest

from mel.linking.forms import Forms, FormTrie, PageCounts, folded_forms
from mel.text.folding import folded
from mel.types import MelError


def trie_of(*strings):
    return FormTrie.of(folded_forms(strings))


def found(trie, text):
    in_text = folded(text)
    return [in_text.span(start, end).of(text) for start, end, _ in trie.find(in_text)]


def forms_of(trie, named=(), **languages):
    """`languages`: {form: (linked, linked upper, found, found upper)} of each."""
    counts = []
    for language, of_language in languages.items():
        rows = sorted((trie.number(form), numbers) for form, numbers in of_language.items())
        pages = np.array([numbers for _, numbers in rows], np.uint32).reshape(-1, 2, 2)
        counts.append((language, PageCounts(np.array([form for form, _ in rows], np.int64), pages)))
    named_F = np.zeros(len(trie), bool)
    named_F[[trie.number(form) for form in named]] = True
    return Forms.of(trie, named_F, counts)


def test_all_forms_are_found_where_words_begin_and_end():
    trie = trie_of("New York", "York", "york city", "art", "NEW")
    assert found(trie, "In NEW York City, a newyork party") == ["NEW", "NEW York", "York", "York City"]


def test_scripts_without_spaces_have_no_words():
    assert found(trie_of("京都", "東京", "東京都"), "東京都は") == ["東京", "東京都", "京都"]
    assert found(trie_of("กรุงเทพ"), "ที่กรุงเทพมหานคร") == ["กรุงเทพ"]


def test_particles_follow_hangul():
    assert found(trie_of("한국", "국"), "한국에서 전국") == ["한국"]


def test_what_has_no_letter_is_no_form():
    assert list(folded_forms(["...", " ", "", "x" * 101, " A ", "C++", "№"])) == ["a", "c++", "no"]


def test_the_same_form_in_two_cases_is_one():
    trie = trie_of("Paris", "PARIS", "paris")
    assert len(trie) == 1 and trie.number("paris") == 0 and trie.number("London") == -1


def test_link_probability_worked_by_hand():
    trie = trie_of("mill", "storm")
    forms = forms_of(trie, ["storm"], en={"mill": (0, 3, 4, 4)}, de={"mill": (1, 0, 1, 1)})

    def probability(form, upper, language):
        return forms.link_probability([trie.number(form)], [upper], language, (0.2, 0.4))[0]

    assert probability("storm", False, "en") == 0.4  # a name without evidence
    everywhere = (4 + (4 + 0.2) / 11) / 11  # in any case: 4 of 10 pages; without a capital: 1 of 5
    without = (1 + (4 + 0.2) / 11) / 6
    assert probability("mill", False, None) == pytest.approx(without)
    in_english = (0 + (3 + without) / 9) / 5  # 3 of 8 pages, without a capital none of 4
    assert probability("mill", False, "en") == pytest.approx(in_english)
    assert probability("mill", False, "fr") == pytest.approx(without)  # a language without pages says nothing
    assert probability("mill", True, "en") > probability("mill", False, "en") != everywhere


def test_what_is_written_is_read(tmp_path):
    trie = trie_of("mill", "storm", "東京")
    forms = forms_of(trie, ["storm"], en={"mill": (0, 3, 4, 4)}, ja={"東京": (5, 0, 6, 0), "mill": (1, 0, 2, 0)})
    forms.write(tmp_path)
    again = Forms.read(tmp_path, forms.languages)
    numbers = np.arange(3)
    assert found(again.trie, "The Mill 東京") == ["Mill", "東京"]
    for language in (None, "en", "ja"):
        np.testing.assert_array_equal(again.counts(numbers, language), forms.counts(numbers, language))
    assert again.counts(np.array([trie.number("mill")])).tolist() == [[[1, 3], [6, 4]]]
    np.testing.assert_array_equal(again.named_F, forms.named_F)


def test_forms_that_no_page_holds(tmp_path):
    forms = Forms.of(trie_of("mill"), np.ones(1, bool), [])
    forms.write(tmp_path)
    assert Forms.read(tmp_path, []).link_probability([0], [True], "en", (0.1, 0.3)).tolist() == [0.3]


def test_a_damaged_trie_is_named(tmp_path):
    (tmp_path / "forms.marisa").write_bytes(b"no trie")
    with pytest.raises(MelError, match="forms.marisa cannot be read as a trie"):
        FormTrie.open(tmp_path / "forms.marisa")


def test_names_that_came_later_are_found_and_no_page_holds_them(tmp_path):
    trie = trie_of("New York", "mill")
    forms = forms_of(trie, en={"mill": (0, 3, 4, 4)}).with_names(["New York City", "MILL", "the mill", "..."])
    text = folded("In New York City the Mill")
    later = sorted(found for found in forms.find(text) if found.form >= 2)
    assert [text.text[found.start : found.end] for found in forms.find(text)] == [
        "new york", "new york city", "the mill", "mill",
    ]  # fmt: skip
    assert len(later) == 2 and {found.form for found in later} == {2, 3}
    numbers = np.array([trie.number("mill"), 2, 3])
    for language in (None, "en"):
        assert forms.counts(numbers, language).sum(axis=(1, 2)).tolist() == [11, 0, 0]
        assert forms.link_probability(numbers, [False] * 3, language, (0.1, 0.3)).tolist()[1:] == [0.3, 0.3]
    forms.with_names(["Ceres"]).write(tmp_path)
    again = Forms.read(tmp_path, forms.languages)
    assert {text.text[found.start : found.end] for found in again.find(text)} >= {"new york city", "the mill"}
    assert [found.form for found in again.find(folded("Ceres"))] in ([2], [3], [4])


def surface_forms(forms, text):
    in_text = folded(text)
    return [in_text.text[found.start : found.end] for found in forms.find(in_text)]


def test_forms_that_are_gone_are_not_found_until_they_come_again(tmp_path):
    text = "The Mill, New York and Ceres"
    forms = forms_of(trie_of("New York", "mill", "York"), en={"mill": (0, 3, 4, 4)}).with_names(["Ceres"])
    assert surface_forms(forms, text) == ["mill", "new york", "york", "ceres"]
    fewer = forms.without(["MILL", "ceres", "unknown"])
    assert surface_forms(fewer, text) == ["new york", "york"]
    fewer.write(tmp_path)
    again = Forms.read(tmp_path, forms.languages)
    assert surface_forms(again, text) == ["new york", "york"]
    back = again.without(["York"]).with_names(["Mill"])
    assert surface_forms(back, text) == ["mill", "new york"]
    number = [back.trie.number("mill")]
    np.testing.assert_array_equal(back.counts(np.array(number)), forms.counts(np.array(number)))


def test_forms_of_others_keep_what_pages_say_of_those_that_are_known():
    pages = {"mill": (1, 2, 4, 4), "york": (0, 5, 0, 6)}
    old = forms_of(trie_of("mill", "york", "storm"), ["storm"], en=pages, ja={"mill": (1, 0, 2, 0)})
    new = old.of_others(["Mill", "Zorbat", "New York"], ["York", "mills"])
    assert sorted(new.trie) == ["mill", "mills", "new york", "york", "zorbat"] and new.languages == ("en", "ja")
    for form in ("mill", "york"):
        for language in (None, "en", "ja"):
            counts = [of.counts(np.array([of.trie.number(form)]), language).tolist() for of in (old, new)]
            assert counts[0] == counts[1]
    numbers = [new.trie.number(form) for form in ("zorbat", "mills", "mill")]
    assert new.counts(np.array(numbers[:2])).sum() == 0
    assert new.named_F[numbers].tolist() == [True, False, True]
    assert new.link_probability(numbers[:2], [True] * 2, "en", (0.2, 0.4)).tolist() == [0.4, 0.2]
