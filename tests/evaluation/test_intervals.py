"""Intervals: by hand, against the definition, and whether they hold what they promise."""

import numpy as np
import pytest

from mel.evaluation.intervals import interval, macro_means, resampled_means


def overall(values, documents, seed=0, resamples=1000):
    headings = {"all": ["all"] * len(values)}
    rng = np.random.default_rng(seed)
    return resampled_means(np.asarray(values), documents, headings, rng, resamples)["all"]["all"]


def test_two_documents_by_hand():
    # d0 holds a hit and two misses, d1 a hit; two draws: d0 d0 (2/6), mixed (2/4, twice as often), d1 d1 (2/2).
    means_R = overall([1, 0, 0, 1], ["d0", "d0", "d0", "d1"], resamples=4000)
    values, counts = np.unique(means_R, return_counts=True)
    assert values == pytest.approx([1 / 3, 1 / 2, 1])
    assert counts / 4000 == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=0.03)
    assert interval(means_R) == pytest.approx((1 / 3, 1))
    assert interval(means_R, level=0.4) == pytest.approx((0.5, 0.5))


def test_a_single_document_has_no_width():
    assert interval(overall([1, 0, 0], ["d"] * 3)) == pytest.approx((1 / 3, 1 / 3))


def test_quantiles_by_hand():
    assert interval(np.arange(101) / 100) == pytest.approx((0.025, 0.975))
    assert interval(np.array([0.0, np.nan, 1.0]), level=1) == (0, 1)


def test_groups_see_the_same_resamples():
    values, documents = [1, 0, 1, 1], ["a", "b", "c", "c"]
    headings = {"all": ["all"] * 4, "half": ["x", "x", "y", "y"], "one": ["p", "q", "q", "q"]}
    means = resampled_means(np.array(values), documents, headings, np.random.default_rng(1), 50)
    assert list(means) == ["all", "half", "one"] and list(means["half"]) == ["x", "y"]
    present = ~np.isnan(means["half"]["y"])
    assert np.all(means["half"]["y"][present] == 1) and 0 < present.sum() < 50
    nobody = np.isnan(means["half"]["x"])
    assert np.array_equal(means["all"]["all"][nobody], means["half"]["y"][nobody])
    assert np.array_equal(means["all"]["all"], overall(values, documents, seed=1, resamples=50))


def test_macro_means_weigh_the_groups_that_are_there_alike():
    macro_R = macro_means({"de": np.array([0.5, 1.0]), "ar": np.array([0.0, np.nan])})
    assert macro_R.tolist() == [0.25, 1.0]


def test_the_order_of_the_mentions_changes_nothing():
    rng = np.random.default_rng(2)
    hits, documents, order = rng.integers(0, 2, 300), rng.choice(list("abcdefgh"), 300), rng.permutation(300)
    assert np.array_equal(overall(hits, documents), overall(hits[order], documents[order]))
    assert not np.array_equal(overall(hits, documents), overall(hits, documents, seed=1))


def test_resamples_agree_with_drawing_documents_one_by_one():
    rng = np.random.default_rng(3)
    hits, documents = rng.integers(0, 2, 40), rng.integers(0, 7, 40)
    draws = np.random.default_rng(0)
    expected = []
    for _ in range(100):
        drawn = [hits[documents == np.unique(documents)[d]] for d in draws.integers(7, size=7)]
        expected.append(np.concatenate(drawn).mean())
    assert overall(hits, documents.astype(str), resamples=100) == pytest.approx(np.array(expected), rel=1e-12)


def simulated_coverage(apart: bool) -> tuple[float, float]:
    """How often the interval holds the true share, and its mean width.

    The hits of a document share its difficulty, which is uniform, so the true share is 1/2.
    """
    rng, held, widths = np.random.default_rng(4), [], []
    for _ in range(300):
        hits = (rng.random((60, 10)) < rng.random((60, 1))).astype(int).ravel()
        documents = np.arange(600) if apart else np.repeat(np.arange(60), 10)
        low, high = interval(overall(hits, documents, seed=rng.integers(2**31), resamples=200))
        held.append(low <= 0.5 <= high)
        widths.append(high - low)
    return np.mean(held), np.mean(widths)


def test_the_interval_holds_the_truth_as_often_as_it_says_and_mentions_apart_would_be_too_sure():
    over_documents, width = simulated_coverage(apart=False)
    over_mentions, width_apart = simulated_coverage(apart=True)
    assert 0.91 <= over_documents <= 0.98
    assert over_mentions < 0.8
    # A document's mean varies by 1/12 + 1/6/10 where ten mentions apart would by 1/4/10.
    assert width / width_apart == pytest.approx(((1 / 12 + 1 / 60) / (1 / 40)) ** 0.5, rel=0.05)
