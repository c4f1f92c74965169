import numpy as np
import pytest

from mel.shards import selection
from mel.shards.datasets import RowSet
from mel.shards.rows import TokenRows
from mel.shards.selection import MentionOrder, usable_mentions
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


def test_so_many_of_a_language_and_all_of_another():
    generator = np.random.default_rng(0)
    languages_N = generator.integers(3, size=900)
    mentions = mentions_of(languages_N, generator.integers(-1, 5, size=900))
    before = usable_mentions(mentions, KNOWN, ["ja:20", "fr"], seed=3)
    chosen = usable_mentions(mentions, KNOWN, ["ja:50", "fr"], seed=3)
    assert np.count_nonzero(languages_N[chosen] == 1) == 50 and np.isin(before, chosen).all()
    of_fr = usable_mentions(mentions, KNOWN, ["fr"])
    np.testing.assert_array_equal(chosen[languages_N[chosen] != 1], of_fr)
    half = usable_mentions(mentions, KNOWN, ["ja:50", "en:50"], 50, seed=3)
    assert len(half) == 50 and set(languages_N[half]) == {0, 1}


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
        (["ja:3"], 0, "--train_languages=ja:3 is above the 2 mentions that there are."),
        (["ja:0"], 0, "--train_languages=ja:0 asks for no number of mentions: write ja:1000, say."),
        (["ja:"], 0, "--train_languages=ja: asks for no number"),
        (["ja:many"], 0, "--train_languages=ja:many asks for no number"),
        (["ja", "ja:1"], 0, "--train_languages names ja twice"),
    ],
)
def test_refuses_what_is_not_there(languages, limit, sentence):
    with pytest.raises(MelError, match=sentence):
        usable_mentions(mentions_of([0, 1, 1], [1, 1, 1]), KNOWN, languages, limit)


ORDER = MentionOrder(np.arange(0, 200, 2), batch_size=8, seed=3)  # 12 batches an epoch, and 4 mentions over


@pytest.mark.parametrize("first, last", [(0, 1), (5, 9), (10, 15), (23, 25), (24, 35), (7, 7)])
def test_the_asked_mentions_are_those_of_the_batches_each_once(first, last, monkeypatch):
    monkeypatch.setattr(selection, "MENTIONS_AT_ONCE", 10)
    of_batches = [ORDER.batch(n) for n in range(first, last)]
    expected = np.unique(np.concatenate([*of_batches, np.zeros(0, np.int64)]))
    np.testing.assert_array_equal(ORDER.asked(first, last), expected)


def test_an_epoch_or_more_asks_for_all():
    for first, last in [(0, 12), (5, 17), (3, 40)]:
        np.testing.assert_array_equal(ORDER.asked(first, last), ORDER.mentions_n)
    assert len(ORDER.asked(3, 14)) < 100
