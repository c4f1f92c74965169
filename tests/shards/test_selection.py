import numpy as np
import pytest

from mel.shards.datasets import RowSet
from mel.shards.rows import TokenRows
from mel.shards.selection import usable_mentions
from mel.types import MelError

KNOWN = ("en", "ja", "fr")


def mentions_of(languages_N, entity_rows_N):
    count = len(languages_N)
    rows = TokenRows.from_rows([np.ones(1, np.int32)] * count)
    return RowSet(rows, np.arange(1, count + 1), np.asarray(languages_N), np.asarray(entity_rows_N))


def test_by_hand():
    mentions = mentions_of([0, 1, 2, 1, 0, 2], [5, -1, 0, 7, 3, -1])
    np.testing.assert_array_equal(usable_mentions(mentions, KNOWN), [0, 2, 3, 4])
    np.testing.assert_array_equal(usable_mentions(mentions, KNOWN, ["ja"]), [3])
    np.testing.assert_array_equal(usable_mentions(mentions, KNOWN, ["fr", "en"]), [0, 2, 4])
    np.testing.assert_array_equal(usable_mentions(mentions, KNOWN, ["fr", "en"], limit=3), [0, 2, 4])


@pytest.mark.parametrize("languages", [(), ("ja",), ("en", "fr")])
def test_a_smaller_limit_is_part_of_a_larger_one(languages):
    generator = np.random.default_rng(0)
    mentions = mentions_of(generator.integers(3, size=900), generator.integers(-1, 5, size=900))
    whole = usable_mentions(mentions, KNOWN, languages)
    before = np.zeros(0)
    for limit in (1, 2, 50, 200):
        chosen = usable_mentions(mentions, KNOWN, languages, limit, seed=3)
        assert len(np.unique(chosen)) == limit and np.all(np.diff(chosen) > 0)
        assert np.isin(chosen, whole).all() and np.isin(before, chosen).all()
        before = chosen


def test_the_sample_is_even_and_depends_on_the_seed():
    mentions = mentions_of(np.repeat([0, 1], [3000, 1000]), np.zeros(4000, int))
    chosen, again, other = (usable_mentions(mentions, KNOWN, limit=1000, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(chosen, again)
    # 750 of the first 3000, with a standard deviation of 12, and as many of each thousand.
    assert abs(np.count_nonzero(chosen < 3000) - 750) < 60
    assert np.all(np.abs(np.bincount(chosen // 1000) - 250) < 60)
    assert abs(len(np.intersect1d(chosen, other)) - 250) < 60


@pytest.mark.parametrize(
    "languages, limit, sentence",
    [
        (["ja", "xx"], 0, "--train_languages=xx was not prepared: choose among en, ja, fr."),
        (["ja"], 3, "--train_mentions=3 is not between 0, for all, and the 2 that there are."),
        ([], -1, "--train_mentions=-1 is not between"),
    ],
)
def test_refuses_what_is_not_there(languages, limit, sentence):
    with pytest.raises(MelError, match=sentence):
        usable_mentions(mentions_of([0, 1, 1], [1, 1, 1]), KNOWN, languages, limit)
