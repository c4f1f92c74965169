"""One suite over every index, then what each promises on its own."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mel.artifacts import open_artifact, publish
from mel.checks import CHECKS
from mel.retrieval import approximate
from mel.retrieval import index as index_module
from mel.retrieval.approximate import ScannIndex, ScannSettings, build, share_found, tune
from mel.retrieval.embeddings import EMBEDDINGS
from mel.retrieval.exact import ExactIndex
from mel.retrieval.index import first_of_each, keep_first, open_index, publish_index, search_distinct
from mel.retrieval.probes import nearest_scores
from mel.retrieval.streamed import Streamed
from mel.types import MelError

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SMALL_TREE = ScannSettings(brute_force_below=16, leaves=5, leaves_to_search=5, reorder=50, least_recall=0.0)
INDEXES = {
    "exact": ExactIndex,
    "exact, streamed": lambda embeddings_ND: on_accelerator(embeddings_ND),
    "scann brute force": lambda embeddings_ND: build(embeddings_ND, ScannSettings()),
    "scann tree": lambda embeddings_ND: build(embeddings_ND, SMALL_TREE),
}
KINDS = {
    "exact": ("exact", ScannSettings()),
    "brute force": ("scann", ScannSettings()),
    "tree": ("scann", SMALL_TREE),
    "shards": ("scann", ScannSettings(rows_a_shard=70)),
}


@pytest.fixture(params=INDEXES.values(), ids=INDEXES.keys())
def make_index(request):
    return request.param


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind_and_settings(request):
    return request.param


def on_accelerator(embeddings_ND, kept_bytes=0):
    """An exact index that searches as it does on an accelerator."""
    index = ExactIndex(embeddings_ND)
    index._search = Streamed(embeddings_ND, kept_bytes).search
    return index


def unit_vectors(rows, dimension, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered_vectors(rows, dimension, clusters=300, seed=0):
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((clusters, dimension))
    vectors = centres[generator.integers(clusters, size=rows)] + 0.3 * generator.standard_normal((rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def spread_vectors():
    """20 rows of which row i has the inner product i / 20 with the first axis."""
    vectors = np.zeros((20, 4), np.float32)
    vectors[:, 0] = np.arange(20) / 20
    vectors[:, 1] = 1 - np.arange(20) / 20
    return vectors


def brute_force(queries_QD, embeddings_ND, k):
    scores_QN = queries_QD @ embeddings_ND.T
    rows_QN = np.argsort(-scores_QN, axis=1, kind="stable")
    return rows_QN[:, :k], np.take_along_axis(scores_QN, rows_QN[:, :k], axis=1)


class TestEveryIndex:
    def test_by_hand(self, make_index):
        rows, scores = make_index(spread_vectors()).search(np.float32([[1, 0, 0, 0], [0, 2, 0, 0]]), 3)
        assert rows.dtype == np.int32 and scores.dtype == np.float32
        np.testing.assert_array_equal(rows, [[19, 18, 17], [0, 1, 2]])
        np.testing.assert_allclose(scores, [[0.95, 0.9, 0.85], [2, 1.9, 1.8]], rtol=1e-6)

    def test_agrees_with_brute_force(self, make_index):
        embeddings_ND, queries_QD = unit_vectors(500, 16), unit_vectors(77, 16, seed=1)
        rows, scores = make_index(embeddings_ND).search(queries_QD, 7)
        true_rows, true_scores = brute_force(queries_QD, embeddings_ND, 7)
        assert np.mean(rows == true_rows) > 0.99
        np.testing.assert_allclose(scores, true_scores, atol=0.02)
        assert np.all(np.diff(scores, axis=1) <= 0)

    def test_more_neighbours_than_rows(self, make_index):
        rows, scores = make_index(spread_vectors()).search(np.float32([[1, 0, 0, 0]]), 25)
        np.testing.assert_array_equal(rows, [[*range(19, -1, -1), -1, -1, -1, -1, -1]])
        assert np.all(np.isneginf(scores[0, 20:])) and np.all(np.isfinite(scores[0, :20]))

    def test_equal_rows_are_all_found(self, make_index):
        embeddings_ND = spread_vectors()
        embeddings_ND[[3, 8, 11]] = [5, 0, 0, 0]
        rows, scores = make_index(embeddings_ND).search(np.float32([[1, 0, 0, 0]]), 4)
        assert set(rows[0, :3]) == {3, 8, 11} and rows[0, 3] == 19
        np.testing.assert_allclose(scores[0], [5, 5, 5, 0.95], rtol=1e-6)

    def test_a_query_does_not_depend_on_its_company(self, make_index):
        index, queries_QD = make_index(unit_vectors(300, 16)), unit_vectors(150, 16, seed=1)
        rows, scores = index.search(queries_QD, 5)
        for part in (slice(0, 1), slice(1, 70), slice(70, 150)):
            part_rows, part_scores = index.search(queries_QD[part], 5)
            np.testing.assert_array_equal(part_rows, rows[part])
            np.testing.assert_allclose(part_scores, scores[part], rtol=1e-6)

    def test_no_queries(self, make_index):
        rows, scores = make_index(spread_vectors()).search(np.zeros((0, 4), np.float32), 3)
        assert rows.shape == scores.shape == (0, 3)

    @pytest.mark.parametrize("settings", [ScannSettings(), SMALL_TREE], ids=["brute force", "tree"])
    def test_scann_is_given_no_embeddings_that_are_not_finite(self, settings):
        embeddings_ND = spread_vectors()
        embeddings_ND[7, 2] = np.nan
        with pytest.raises(MelError, match="embeddings: row 7 of 20 is not finite"):
            build(embeddings_ND, settings)

    def test_refuses_queries_that_are_not_finite(self, make_index):
        with pytest.raises(MelError, match="queries: row 1 of 2 is not finite"):
            make_index(spread_vectors()).search(np.float32([[1, 0, 0, 0], [0, np.inf, 0, 0]]), 3)

    def test_refuses_queries_of_another_dimension(self, make_index):
        with pytest.raises(MelError, match=r"shape \[2, 3\] do not fit an index of 4 dimensions"):
            make_index(spread_vectors()).search(np.ones((2, 3), np.float32), 3)


class TestPublished:
    def test_a_moved_folder_answers_the_same(self, kind_and_settings, publish_vectors, tmp_path, monkeypatch):
        embeddings, queries_QD = publish_vectors(unit_vectors(200, 8)), unit_vectors(9, 8, seed=1)
        monkeypatch.chdir(tmp_path)
        artifact = publish_index("index", kind_and_settings[0], embeddings, kind_and_settings[1])
        assert artifact.facts["rows"] == 200 and artifact.facts["dimension"] == 8
        before = open_index("index", embeddings).search(queries_QD, 4)
        assert np.mean(before[0] == brute_force(queries_QD, unit_vectors(200, 8), 4)[0]) > 0.9
        os.makedirs("elsewhere/deep")
        shutil.move("index", "elsewhere/deep/index")
        shutil.rmtree(embeddings.path)
        after = open_index(tmp_path / "elsewhere" / "deep" / "index").search(queries_QD, 4)
        np.testing.assert_array_equal(after[0], before[0])
        np.testing.assert_array_equal(after[1], before[1])

    def test_refuses_an_index_of_other_embeddings(self, kind_and_settings, publish_vectors, tmp_path):
        first, second = publish_vectors(unit_vectors(40, 8), "first"), publish_vectors(unit_vectors(40, 8, 1), "second")
        publish_index(tmp_path / "index", kind_and_settings[0], first, kind_and_settings[1])
        with pytest.raises(MelError, match="was not made from the embeddings at .*second"):
            open_index(tmp_path / "index", second)

    def test_leaves_nothing_of_refused_embeddings(self, kind_and_settings, publish_vectors, tmp_path):
        vectors_ND = unit_vectors(40, 8)
        vectors_ND[7, 2] = np.nan
        embeddings = publish_vectors(vectors_ND)
        with pytest.raises(MelError, match="row 7 of 40 is not finite"):
            publish_index(tmp_path / "index", kind_and_settings[0], embeddings, kind_and_settings[1])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["embeddings"]

    def test_an_exact_index_is_opened_without_being_read(self, publish_vectors, tmp_path, monkeypatch):
        index = publish_index(tmp_path / "index", "exact", publish_vectors(unit_vectors(40, 8)))
        monkeypatch.setattr(np, "isfinite", None)
        assert isinstance(open_index(index.path), ExactIndex)

    def test_embeddings_that_are_damaged_are_said_to_be(self, publish_vectors, tmp_path):
        embeddings = publish_vectors(unit_vectors(40, 8))
        damaged_ND = unit_vectors(40, 8)
        damaged_ND[7, 2] = np.nan
        np.save(embeddings.path / EMBEDDINGS, damaged_ND)
        CHECKS.forget()
        with pytest.raises(MelError, match="embeddings.npy is damaged"):
            publish_index(tmp_path / "index", "exact", open_artifact(embeddings.path, "embeddings"))

    def test_refuses_no_embeddings(self, publish_vectors, tmp_path):
        with pytest.raises(MelError, match="is empty"):
            publish_index(tmp_path / "index", "exact", publish_vectors(np.zeros((0, 8))))

    def test_exact_is_the_same_twice(self, publish_vectors, tmp_path):
        embeddings = publish_vectors(unit_vectors(40, 8))
        digests = {publish_index(tmp_path / name, "exact", embeddings).digest for name in ("a", "b")}
        assert len(digests) == 1


class TestScann:
    def test_missing_neighbours_are_not_row_0(self):
        class Searcher:
            """Returns what ScaNN returns where the searched leaves hold one row only."""

            def search_batched_parallel(self, queries_QD, final_num_neighbors, **options):
                return np.uint32([[3, 0, 0]]), np.float32([[0.5, np.nan, np.nan]])

        rows, scores = ScannIndex(Searcher(), 20, 4, 5, 1, 50).search(np.ones((1, 4), np.float32), 3)
        np.testing.assert_array_equal(rows, [[3, -1, -1]])
        np.testing.assert_array_equal(scores, np.float32([[0.5, -np.inf, -np.inf]]))

    def test_asked_for_all_rows_it_finds_all(self):
        settings = ScannSettings(brute_force_below=16, leaves=20, leaves_to_search=1, reorder=5)
        rows, _ = build(unit_vectors(300, 8), settings).search(unit_vectors(4, 8, seed=1), 300)
        np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(300), (4, 1)))

    def test_a_real_tree_has_the_recall_it_states(self, publish_vectors, tmp_path):
        embeddings_ND = clustered_vectors(25_000, 16)
        artifact = publish_index(tmp_path / "index", "scann", publish_vectors(embeddings_ND))
        assert [shard["leaves"] for shard in artifact.facts["shards"]] == [316]
        stated = artifact.facts["recall"]
        assert (stated["queries"], stated["kind"], stated["depth"]) == (500, "rows of the index", 100)
        queries_QD = embeddings_ND[::83] + 0.02 * unit_vectors(302, 16, seed=2)
        rows, _ = open_index(tmp_path / "index").search(queries_QD, 10)
        true_rows, _ = brute_force(queries_QD, embeddings_ND, 10)
        recall = np.mean((rows[:, :, None] == true_rows[:, None, :]).any(axis=1))
        assert stated["recall"] >= 0.98 and recall >= 0.9
        assert 0 < artifact.facts["peak_mb"] <= artifact.facts["needed_mb"]

    def test_tuning_searches_more_leaves_where_vectors_have_no_structure(self):
        embeddings_ND = unit_vectors(4000, 32)
        index = build(embeddings_ND, ScannSettings(brute_force_below=16, leaves=64, leaves_to_search=1))
        queries_QD = embeddings_ND[::40]
        nearest_Qk = nearest_scores(embeddings_ND, queries_QD, 10)
        same, poor = tune(index, queries_QD, nearest_Qk, least_recall=0.0)
        tuned, good = tune(index, queries_QD, nearest_Qk, least_recall=0.9)
        assert same.leaves_to_search == 1 and share_found(poor, nearest_Qk) < 0.9
        assert tuned.leaves_to_search > 8 and share_found(good, nearest_Qk) >= 0.9

    def test_a_tree_among_four_is_searched_half_as_deep_and_tuned_at_its_part(self, monkeypatch):
        vectors_ND, settings = clustered_vectors(4000, 16), ScannSettings(brute_force_below=16, leaves=64)
        alone, among = build(vectors_ND, settings), build(vectors_ND, settings, shards=4)
        assert (alone.leaves_to_search, among.leaves_to_search) == (6, 3)
        asked, search = [], ScannIndex.search

        def told(self, queries_QD, k):
            asked.append(k)
            return search(self, queries_QD, k)

        monkeypatch.setattr(ScannIndex, "search", told)
        nearest_Qk = nearest_scores(vectors_ND, vectors_ND[::100], 20)
        assert tune(among, vectors_ND[::100], nearest_Qk, 0.0, shards=4)[1].shape == (40, 20)
        assert asked == [10, 20]
        tune(alone, vectors_ND[::100], nearest_Qk, 0.0)
        assert asked == [10, 20, 20]

    def test_states_its_settings(self, publish_vectors, tmp_path):
        artifact = publish_index(tmp_path / "index", "scann", publish_vectors(unit_vectors(200, 8)), SMALL_TREE)
        assert artifact.facts["shards"] == [{"rows": 200, "leaves": 5, "leaves_to_search": 5, "reorder": 50}]
        assert 0 < artifact.facts["recall"]["recall"] <= 1

    def test_equal_scores_are_in_the_order_of_rows(self):
        class Searcher:
            def search_batched_parallel(self, queries_QD, final_num_neighbors, **options):
                return np.uint32([[9, 3, 7, 5]]), np.float32([[0.5, 0.4, 0.4, 0.4]])

        rows, scores = ScannIndex(Searcher(), 20, 4, 5, 1, 50).search(np.ones((1, 4), np.float32), 4)
        assert rows.tolist() == [[9, 3, 5, 7]] and scores.tolist() == np.float32([[0.5, 0.4, 0.4, 0.4]]).tolist()

    def test_what_is_scored_again_grows_with_what_is_asked_for(self):
        asked = []

        class Searcher:
            def search_batched_parallel(self, queries_QD, final_num_neighbors, **options):
                asked.append(options["pre_reorder_num_neighbors"])
                return np.zeros((1, final_num_neighbors), np.uint32), np.zeros((1, final_num_neighbors), np.float32)

        for k in (10, 100, 200, 900):
            ScannIndex(Searcher(), 1000, 4, 5, 1, 250).search(np.ones((1, 4), np.float32), k)
        assert asked == [250, 250, 500, 1000]

    def test_an_index_of_before_there_were_shards_is_still_read(self, publish_vectors, tmp_path):
        index = build(unit_vectors(200, 8), SMALL_TREE)
        with publish(tmp_path / "index", "index") as draft:
            draft.facts = {"kind": "scann", "rows": 200, "dimension": 8, "scann": index.serialize(draft / "scann")}
        for found, wanted in zip(open_index(tmp_path / "index").search(unit_vectors(9, 8, seed=1), 4),
                                 index.search(unit_vectors(9, 8, seed=1), 4)):  # fmt: skip
            np.testing.assert_array_equal(found, wanted)

    def test_does_not_see_an_installed_tensorflow(self, tmp_path):
        (tmp_path / "tensorflow.py").write_text("raise RuntimeError('not built for this ScaNN')")
        program = (
            "import sys, numpy as np\n"
            "from mel.retrieval.approximate import ScannSettings, build\n"
            "build(np.ones((3, 4), np.float32), ScannSettings())\n"
            "assert 'tensorflow' not in sys.modules"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tmp_path)])}
        run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr

    def test_says_what_to_do_where_it_is_not_installed(self, monkeypatch):
        approximate._scann.cache_clear()
        monkeypatch.setitem(sys.modules, "scann", None)
        with pytest.raises(MelError, match="install scann, or search with --index=exact"):
            build(spread_vectors(), ScannSettings())


class TestDistinct:
    QIDS = np.array([7, 7, 5, 5, 5, 9])
    EMBEDDINGS = np.float32([[6, 0], [5, 0], [4, 0], [3, 0], [2, 6], [1, 5]])

    def test_by_hand(self):
        qids, scores, rows = search_distinct(ExactIndex(self.EMBEDDINGS), np.float32([[1, 0], [0, 1]]), self.QIDS, 2)
        assert qids.dtype == np.int64 and scores.dtype == np.float32 and rows.dtype == np.int32
        np.testing.assert_array_equal(qids, [[7, 5], [5, 9]])
        np.testing.assert_array_equal(scores, [[6, 4], [6, 5]])
        np.testing.assert_array_equal(rows, [[0, 2], [4, 5]])

    def test_first_of_each_by_hand(self):
        entities_QK = np.array([[4, 0, 4, 2, 0], [3, 3, 3, 3, 1], [0, 0, 0, 0, 0]])
        first_QK = first_of_each(entities_QK)
        np.testing.assert_array_equal(first_QK, [[1, 0, 0, 1, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
        np.testing.assert_array_equal(keep_first(first_QK, entities_QK, 3, -7), [[4, 2, -7], [3, 1, -7], [-7, -7, -7]])

    def test_pads_where_the_knowledge_base_ends(self):
        qids, scores, rows = search_distinct(ExactIndex(self.EMBEDDINGS), np.float32([[1, 0]]), self.QIDS, 8)
        np.testing.assert_array_equal(qids, [[7, 5, 9, 0, 0, 0, 0, 0]])
        np.testing.assert_array_equal(rows, [[0, 2, 5, -1, -1, -1, -1, -1]])
        np.testing.assert_array_equal(scores, np.float32([[6, 4, 1] + [-np.inf] * 5]))

    def test_no_queries(self):
        qids, scores, rows = search_distinct(ExactIndex(self.EMBEDDINGS), np.zeros((0, 2), np.float32), self.QIDS, 3)
        assert qids.shape == scores.shape == rows.shape == (0, 3)

    def test_deepens_only_for_the_queries_that_need_it(self, monkeypatch):
        monkeypatch.setattr(index_module, "LEAST_DEPTH", 1)
        monkeypatch.setattr(index_module, "NEIGHBOURS_AT_ONCE", 8)
        embeddings_ND, queries_QD = unit_vectors(60, 8), unit_vectors(30, 8, seed=1)
        entities_E = np.repeat([3, 1, 2], [40, 10, 10])
        searched = []

        class Recording(ExactIndex):
            def search(self, queries_QD, k):
                searched.append((len(queries_QD), k))
                return super().search(queries_QD, k)

        qids, _, rows = search_distinct(Recording(embeddings_ND), queries_QD, entities_E, 3)
        for query, (found, found_rows) in enumerate(zip(qids, rows)):
            ranked, _ = brute_force(queries_QD[query : query + 1], embeddings_ND, 60)
            assert list(found) == list(dict.fromkeys(entities_E[ranked[0]]))
            assert list(found_rows) == [next(row for row in ranked[0] if entities_E[row] == qid) for qid in found]
        assert all(count * depth <= 8 or count == 1 for count, depth in searched)
        by_depth = {depth: sum(n for n, d in searched if d == depth) for _, depth in searched}
        assert list(by_depth) == [6, 12, 24, 48, 60][: len(by_depth)] and len(by_depth) > 1
        assert by_depth[6] == 30 > by_depth[12] > 0
