import numpy as np
import pytest

from mel.retrieval.best import Best, keys_of, rows_and_scores

SCORES = np.float32([3, 1, 1, 0, -2, 5, 1])


def offered(scores_qn, columns, k, run=2):
    """What is best of scores that are offered so many columns at a time."""
    best = Best(len(scores_qn), k)
    for first in range(0, scores_qn.shape[1], columns):
        block_qn = np.full((len(scores_qn), columns), -np.inf, np.float32)
        real = min(columns, scores_qn.shape[1] - first)
        block_qn[:, :real] = scores_qn[:, first : first + real]
        best.offer(first, block_qn, block_qn.reshape(len(scores_qn), -1, run).max(axis=2), real)
    return best


def test_by_hand():
    rows, scores = offered(np.stack([SCORES, -SCORES]), 2, 3).sorted()
    assert rows.dtype == np.int32 and scores.dtype == np.float32
    np.testing.assert_array_equal(rows, [[5, 0, 1], [4, 3, 1]])
    np.testing.assert_array_equal(scores, np.float32([[5, 3, 1], [2, 0, -1]]))


def test_fewer_rows_than_are_wanted():
    rows, scores = offered(SCORES[None, :3], 4, 5).sorted()
    np.testing.assert_array_equal(rows, [[0, 1, 2, -1, -1]])
    np.testing.assert_array_equal(scores, np.float32([[3, 1, 1, -np.inf, -np.inf]]))


def test_nothing_offered():
    assert len(Best(2, 3)) == 2
    np.testing.assert_array_equal(Best(2, 3).sorted()[0], np.full((2, 3), -1))


@pytest.mark.parametrize("order", ["rising", "falling", "equal", "random"])
@pytest.mark.parametrize("k", [1, 7, 40, 300])
def test_agrees_with_sorting_everything(order, k):
    scores_qn = np.random.default_rng(0).integers(-40, 40, size=(5, 300)).astype(np.float32)
    match order:
        case "rising":
            scores_qn.sort(axis=1)
        case "falling":
            scores_qn = -np.sort(-scores_qn, axis=1)
        case "equal":
            scores_qn[:] = -3
    true_qk = np.argsort(-scores_qn, axis=1, kind="stable")[:, :k]
    for columns in (8, 64, 512):
        rows, scores = offered(scores_qn, columns, k, run=4).sorted()
        np.testing.assert_array_equal(rows, true_qk)
        np.testing.assert_array_equal(scores, np.take_along_axis(scores_qn, true_qk, axis=1))


def test_what_cannot_be_among_the_best_is_not_kept():
    best = offered(np.arange(400, 0, -1, dtype=np.float32)[None].repeat(3, axis=0), 8, 2)
    assert not best._waiting


def test_numbers_order_like_scores_and_then_rows():
    scores = np.float32([-np.inf, -2.5, -1e-38, -0.0, 0.0, 1e-38, 2, 2, 3e38])
    rows = np.array([9, 8, 7, 6, 5, 4, 3, 2, 2**31 - 1])
    keys = keys_of(rows, scores)
    assert np.all(np.diff(keys.astype(object)) > 0)  # -0 is 0, and of equal ones the smaller row is the greater
    np.testing.assert_array_equal(rows_and_scores(keys)[0], rows)
    np.testing.assert_array_equal(rows_and_scores(keys)[1], scores)
    np.testing.assert_array_equal(rows_and_scores(np.uint64([0])), [[-1], [-np.inf]])
