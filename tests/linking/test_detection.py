"""Which spans are detected, and which of those that overlap."""

import itertools

import numpy as np
import pytest

from mel.linking.detection import Detector, without_overlaps
from mel.types import MelError, Span
from tests.linking.test_forms import forms_of, trie_of

TEXT = "The New York of new york"


@pytest.fixture(scope="module")
def detector():
    trie = trie_of("New York", "York", "the")
    counts = {"new york": (0, 8, 4, 9), "york": (0, 1, 0, 9), "the": (0, 0, 9, 9)}
    curve = {"threshold": [0.1, 0.5, 0.8], "precision": [0.5, 0.6, 0.9], "recall": [0.9, 0.8, 0.6]}
    return Detector(forms_of(trie, en=counts), (0.1, 0.3), 0.5, curve)


def of(text, spans):
    return [span.of(text) for span, _ in spans]


def test_probable_spans_are_detected_and_the_better_of_two_that_overlap_stays(detector):
    spans = detector.spans(TEXT, "en")
    assert of(TEXT, spans) == ["New York"] and spans[0][0] == Span(4, 12) and 0.8 < spans[0][1] < 1
    assert of(TEXT, detector.spans(TEXT, "en", threshold=0.0)) == ["The", "New York", "new york"]
    assert of(TEXT, detector.candidates(TEXT, "en", 0.0)) == ["The", "New York", "York", "new york", "york"]


def test_a_text_without_forms_has_no_mentions(detector):
    assert detector.spans("", "en") == [] and detector.spans("nothing here", None) == []


def test_the_threshold_of_a_precision(detector):
    assert [detector.threshold_for(precision) for precision in (0.3, 0.6, 0.7)] == [0.1, 0.5, 0.8]
    with pytest.raises(MelError, match="A precision of 0.95 is not reached on the held-out pages: the most is 0.9."):
        detector.threshold_for(0.95)
    blind = Detector(detector.forms, detector.prior, 0.0, None)
    with pytest.raises(MelError, match="no page was held out to measure it"):
        blind.threshold_for(0.5)


def test_what_is_written_is_read(detector, tmp_path):
    detector.write(tmp_path)
    again = Detector.read(tmp_path)
    assert again.spans(TEXT, "en", 0.0) == detector.spans(TEXT, "en", 0.0)
    assert (again.threshold, list(again.prior), again.measured) == (0.5, [0.1, 0.3], detector.measured)
    (tmp_path / "detection.json").write_text("{}")
    with pytest.raises(MelError, match="cannot be read as a detector"):
        Detector.read(tmp_path)


@pytest.mark.parametrize(
    "spans, probabilities, kept",
    [
        ([(0, 3), (2, 5), (4, 7)], [0.5, 0.9, 0.5], [1]),
        ([(0, 3), (2, 5), (4, 7)], [0.5, 0.4, 0.5], [0, 2]),
        ([(0, 4), (0, 8)], [1.0, 0.5], [1]),
        ([(0, 4), (0, 8)], [1.0, 0.4], [0]),
        ([(0, 3), (2, 5)], [0.5, 0.5], [0]),
        ([(5, 8), (0, 5)], [0.1, 0.2], [1, 0]),
        ([], [], []),
    ],
)
def test_overlaps_by_hand(spans, probabilities, kept):
    assert without_overlaps([Span(*ends) for ends in spans], probabilities) == kept


def test_what_stays_does_not_overlap_and_nothing_more_would_fit():
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 200, 100)
    spans = [
        Span(int(start), int(start + length)) for start, length in zip(starts, rng.integers(1, 12, 100), strict=True)
    ]
    kept = [spans[place] for place in without_overlaps(spans, rng.random(100).tolist())]
    assert all(one.end <= other.start for one, other in itertools.pairwise(kept))
    assert all(any(span.start < other.end and other.start < span.end for other in kept) for span in spans)


def test_names_that_came_later_are_detected(detector):
    assert detector.spans("Quince Bay", "en", 0.2) == []
    assert detector.with_names(["Quince Bay"]).spans("Quince Bay", "en", 0.2) == [(Span(0, 10), 0.3)]
