"""The measures of the end-to-end report, by hand."""

import numpy as np
import pytest

from experiments.detection.end_to_end import Page, Tally, f1_interval, longest_matches, sample, scores, tally
from mel.linking.forms import Forms
from mel.types import Span
from tests.linking.test_forms import trie_of

LINKS = [(Span(0, 5), "Q1"), (Span(10, 20), "Q2"), (Span(30, 35), "Q3")]
PREDICTIONS = [(Span(0, 5), "Q9"), (Span(12, 15), "Q2"), (Span(16, 19), "Q9"), (Span(40, 45), "Q3")]


@pytest.mark.parametrize(
    "strong, entities, expected",
    [
        (True, False, (1, 4, 1, 3)),
        (False, False, (3, 4, 2, 3)),  # two predictions overlap one link
        (True, True, (0, 4, 0, 3)),
        (False, True, (1, 4, 1, 3)),
    ],
)
def test_what_is_right(strong, entities, expected):
    assert tally(PREDICTIONS, LINKS, strong, entities) == expected


def test_nothing_is_right_where_there_is_nothing():
    assert tally([], LINKS, False, False) == (0, 0, 0, 3) and tally(PREDICTIONS, [], True, True) == (0, 4, 0, 0)
    assert scores([Tally(0, 0, 0, 0)]) == (0, 0, 0)


def test_f1_is_that_of_precision_and_recall():
    precision, recall, f1 = scores([Tally(1, 4, 1, 3), Tally(2, 2, 2, 2)])
    assert (precision, recall) == (3 / 6, 3 / 5) and f1 == pytest.approx(2 * precision * recall / (precision + recall))


def test_an_interval_holds_the_difference_and_has_no_width_for_one_cluster():
    one, other = [Tally(1, 4, 1, 3), Tally(2, 2, 2, 2)], [Tally(0, 4, 0, 3), Tally(1, 2, 1, 2)]
    f1 = [scores(tallies)[2] for tallies in (one, other)]
    own, difference = f1_interval(one, other, ["a", "a"])
    assert own == pytest.approx((f1[0], f1[0])) and difference == pytest.approx((f1[0] - f1[1],) * 2)
    (low, high), _ = f1_interval(one * 20, other * 20, [f"{n}" for n in range(40)])
    assert low < f1[0] < high


def test_the_longest_match_takes_from_the_left_what_is_longest():
    forms = Forms.of(trie_of("new", "new york", "york city hall", "hall"), np.zeros(0, bool), [])
    text = "In New York City Hall, new hall"
    page = Page("en", text, "", [], "")
    assert [span.of(text) for span in longest_matches(forms, None, page)] == ["New York", "Hall", "new", "hall"]
    assert [span.of(text) for span in longest_matches(forms, {"new", "Hall"}, page)] == ["Hall", "new"]


def test_a_sample_has_what_overlaps_no_link():
    page = Page("en", "x" * 50, "", LINKS, "")
    assert [each["surface_form"] for each in sample([PREDICTIONS], [page], 10, 0)] == ["xxxxx"]
    assert len(sample([PREDICTIONS * 3], [page], 2, 0)) == 2
