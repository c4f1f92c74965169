import numpy as np
import pytest

from mel.retrieval.approximate import share_found
from mel.retrieval.exact import ExactIndex
from mel.retrieval.index import measure_recall
from mel.retrieval.probes import Probes, nearest_scores, rows_as_probes, spread

VECTORS = np.float32([[1, 0], [0.8, 0], [0.6, 0], [0.4, 0.1], [0, 1]])


@pytest.mark.parametrize(
    "count, most, places", [(0, 5, []), (1, 5, [0]), (3, 5, [0, 1, 2]), (5, 3, [0, 2, 4]), (101, 3, [0, 50, 100])]
)
def test_things_far_from_each_other(count, most, places):
    assert spread(count, most).tolist() == places


def test_the_share_that_was_found_by_hand():
    nearest_Qk = np.float32([[0.9, 0.8], [0.5, 0.1]])
    assert share_found(np.float32([[0.9, 0.8], [0.5, 0.1]]), nearest_Qk) == 1
    assert share_found(np.float32([[0.9, 0.7], [0.5, -np.inf]]), nearest_Qk) == 0.5
    assert share_found(np.float32([[0.8, 0.8], [0.1, 0.1]]), nearest_Qk) == 1  # as good as those


def test_what_an_index_loses_is_counted():
    class Forgetful(ExactIndex):
        """Never finds row 0."""

        def search(self, queries_QD, k):
            rows_Qk, scores_Qk = super().search(queries_QD, k)
            return rows_Qk, np.where(rows_Qk == 0, -np.inf, scores_Qk)

    probes = Probes(np.float32([[1, 0], [0, 1]]), "queries")
    assert nearest_scores(VECTORS, probes.queries_QD, 2).tolist() == np.float32([[1, 0.8], [1, 0.1]]).tolist()
    found = measure_recall(Forgetful(VECTORS), VECTORS, probes, 2)
    assert found == {"queries": 2, "kind": "queries", "depth": 2, "recall": 0.75}
    assert measure_recall(ExactIndex(VECTORS), VECTORS, probes, 9) == found | {"depth": 5, "recall": 1.0}


def test_rows_stand_in_where_nothing_is_known_of_queries():
    probes = rows_as_probes(VECTORS)
    np.testing.assert_array_equal(probes.queries_QD, VECTORS)
    assert probes.kind == "rows of the index"
