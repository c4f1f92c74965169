"""Two layers answer as one index over all rows would, and the base's scores are what they were, bit for bit."""

import numpy as np
import pytest

from mel.retrieval.exact import ExactIndex
from mel.retrieval.layers import LayeredIndex, LayeredRows


def vectors(count, seed):
    found = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("more", [1, 5, 70])
@pytest.mark.parametrize("k", [1, 7, 200])
def test_both_layers_are_searched(more, k):
    base_ND, more_MD, queries_QD = vectors(90, 0), vectors(more, 1), vectors(4, 2)
    rows_Qk, scores_Qk = LayeredIndex(ExactIndex(base_ND), ExactIndex(more_MD), 90).search(queries_QD, k)
    whole = ExactIndex(np.concatenate([base_ND, more_MD])).search(queries_QD, k)
    np.testing.assert_array_equal(rows_Qk, whole[0])
    np.testing.assert_allclose(scores_Qk, whole[1], atol=1e-6)
    rows_Qn, scores_Qn = ExactIndex(base_ND).search(queries_QD, 90)
    for query in range(4):
        before = dict(zip(rows_Qn[query].tolist(), scores_Qn[query].tolist(), strict=True))
        after = dict(zip(rows_Qk[query].tolist(), scores_Qk[query].tolist(), strict=True))
        assert all(before[row] == score for row, score in after.items() if 0 <= row < 90)


def test_of_equal_scores_the_smaller_row_comes_first():
    same_ND = np.ones((2, 4), np.float32) / 2
    rows_Qk, _ = LayeredIndex(ExactIndex(same_ND), ExactIndex(same_ND), 2).search(same_ND[:1], 6)
    assert rows_Qk.tolist() == [[0, 1, 2, 3, -1, -1]]


def test_rows_are_taken_from_where_they_are():
    base_ND, more_MD = vectors(5, 0), vectors(3, 1)
    rows = LayeredRows(base_ND, more_MD)
    wanted_n = np.array([7, 0, 5, 4, 4])
    np.testing.assert_array_equal(rows[wanted_n], np.concatenate([base_ND, more_MD])[wanted_n])
    assert len(rows) == 8 and rows[np.zeros(0, np.int64)].shape == (0, 8)
