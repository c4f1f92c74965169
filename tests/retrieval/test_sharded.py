"""An index in shards answers as one does, goes on where it was killed, and is refused where memory does not suffice."""

import json
import os
import re
import shutil

import numpy as np
import pytest

from mel.artifacts import exists, open_artifact
from mel.retrieval import sharded
from mel.retrieval.approximate import ScannSettings
from mel.retrieval.exact import ExactIndex
from mel.retrieval.index import open_index, publish_index, publish_or_open_index
from mel.retrieval.probes import Probes
from mel.retrieval.sharded import ShardedIndex, needed_bytes, rows_a_shard
from mel.types import MelError
from mel.verification import verify
from tests.retrieval.test_index import clustered_vectors, unit_vectors

SHARDS = ScannSettings(rows_a_shard=70)  # of brute force, so that all that differs is the shards
GB = 10**9


@pytest.fixture
def free(monkeypatch):
    """Says how many bytes are free."""
    return lambda count: monkeypatch.setattr(sharded, "free_memory", lambda: count)


def with_equal_rows(rows=200):
    """Vectors of which rows 3, 71, 72 and 190 are one: equal scores within a shard and in several."""
    vectors_ND = unit_vectors(rows, 8)
    vectors_ND[[71, 72, 190]] = vectors_ND[3]
    return vectors_ND


class TestSearch:
    @pytest.mark.parametrize("kept_bytes", [0, None], ids=["one in memory", "all in memory"])
    def test_ranks_as_one_index_does(self, publish_vectors, tmp_path, kept_bytes):
        vectors_ND, queries_QD = with_equal_rows(), unit_vectors(50, 8, seed=1)
        queries_QD[7] = vectors_ND[3]
        artifact = publish_index(tmp_path / "index", "scann", publish_vectors(vectors_ND), SHARDS)
        assert [shard["rows"] for shard in artifact.facts["shards"]] == [66, 67, 67]
        index = ShardedIndex(artifact / "scann", artifact.facts["shards"], 8, kept_bytes)
        for k in (1, 5, 66, 150, 230):
            rows, scores = index.search(queries_QD, k)
            true_rows, true_scores = ExactIndex(vectors_ND).search(queries_QD, k)
            assert rows.dtype == np.int32 and scores.dtype == np.float32 and rows.shape == scores.shape == (50, k)
            np.testing.assert_array_equal(np.isneginf(scores), np.isneginf(true_scores))
            np.testing.assert_allclose(scores[:, :200], true_scores[:, :200], atol=1e-6)
            # Rows differ only where rounding changes the order.
            differ_Qk = rows != true_rows
            np.testing.assert_allclose(scores[differ_Qk], true_scores[differ_Qk], atol=1e-6)
            assert differ_Qk.mean() < 0.01
        assert index.search(queries_QD[7:8], 4)[0].tolist() == [[3, 71, 72, 190]]

    def test_it_answers_the_same_whatever_stays_in_memory(self, publish_vectors, tmp_path):
        artifact = publish_index(tmp_path / "index", "scann", publish_vectors(with_equal_rows()), SHARDS)
        found = []
        for kept in (0, 70 * 4 * 8 * 3, None):
            index = ShardedIndex(artifact / "scann", artifact.facts["shards"], 8, kept)
            found.append((len(index._kept), index.search(unit_vectors(9, 8, seed=1), 5)))
        assert [count for count, _ in found] == [1, 2, 3]
        for _, (rows, scores) in found[1:]:
            np.testing.assert_array_equal(rows, found[0][1][0])
            np.testing.assert_array_equal(scores, found[0][1][1])


class TestBuilt:
    def test_trees_in_shards_state_the_recall_of_what_is_asked(self, publish_vectors, tmp_path):
        vectors_ND = clustered_vectors(4000, 16)
        queries_QD = vectors_ND[::20] + 0.05 * unit_vectors(200, 16, seed=2)
        settings = ScannSettings(brute_force_below=16, rows_a_shard=2000)
        probes = Probes(queries_QD, "training mentions")
        artifact = publish_index(tmp_path / "index", "scann", publish_vectors(vectors_ND), settings, probes)
        facts = artifact.facts
        assert [shard["rows"] for shard in facts["shards"]] == [2000, 2000]
        assert all(shard["leaves"] == 89 for shard in facts["shards"])
        _, found = open_index(tmp_path / "index").search(queries_QD, 100)
        _, true = ExactIndex(vectors_ND).search(queries_QD, 100)
        counted = np.mean(found >= true[:, -1:] - 1e-5)
        stated = facts["recall"]
        assert (stated["queries"], stated["kind"], stated["depth"]) == (200, "training mentions", 100)
        assert stated["recall"] == pytest.approx(counted, abs=1e-9) and counted >= 0.98
        assert 0 < facts["peak_mb"] <= facts["needed_mb"]
        assert sorted(os.listdir(tmp_path)) == ["embeddings", "index"]

    def test_one_shard_where_memory_suffices_and_more_where_not(self, free):
        settings, law = ScannSettings(), needed_bytes(10**6, 128, ScannSettings())
        assert law == 16 * 128 * 10**6 + GB // 2
        free(2 * law)
        assert rows_a_shard(10**6, 128, settings) == 10**6
        free(2 * law - 4096)
        assert rows_a_shard(10**6, 128, settings) == 999_999
        free(law)
        assert rows_a_shard(10**6, 128, settings) == 377_929  # (half of it - .5 GB) / 2,048
        assert rows_a_shard(10**6, 128, settings, begun=500_000) == 500_000
        assert rows_a_shard(10**6, 128, ScannSettings(rows_a_shard=250_000), begun=500_000) == 250_000

    def test_too_little_memory_is_refused_before_anything_is_built_with_a_flag_that_fits(self, free):
        free(GB)
        with pytest.raises(MelError) as said:
            rows_a_shard(10**6, 128, ScannSettings(rows_a_shard=500_000))
        assert str(said.value) == (
            "Building a ScaNN index over 500,000 rows of 128 dimensions at once needs 1.5 GB of memory, and 1.0 GB are "
            "free: state --rows_a_shard=195312, or search with --index=exact."
        )
        (stated,) = re.findall(r"--rows_a_shard=(\d+)", str(said.value))
        assert rows_a_shard(10**6, 128, ScannSettings(rows_a_shard=int(stated))) == int(stated)
        assert rows_a_shard(10**6, 128, ScannSettings()) == 100_000  # which is chosen where nobody states one
        free(600 * 10**6)
        assert rows_a_shard(10**6, 128, ScannSettings()) == 20_000  # 0.9 of it would do for 19,531
        free(400 * 10**6)
        with pytest.raises(MelError, match="needs 0.5 GB of memory, and 0.4 GB are free: free some, or search with"):
            rows_a_shard(10**6, 128, ScannSettings())

    def test_nothing_is_left_of_a_refused_build(self, publish_vectors, tmp_path, free):
        free(1000)
        with pytest.raises(MelError, match="Building a ScaNN index"):
            publish_index(tmp_path / "index", "scann", publish_vectors(unit_vectors(200, 8)), SHARDS)
        assert sorted(os.listdir(tmp_path)) == ["embeddings"]


class TestEnded:
    """A build that was killed after its first two shards of three."""

    @pytest.fixture
    def ended(self, publish_vectors, tmp_path, monkeypatch):
        embeddings, built, build = publish_vectors(with_equal_rows()), [], sharded.build_tree

        def ends(tree):
            built.append(tree.first)
            if len(built) == 3:
                raise KeyboardInterrupt
            return build(tree)

        monkeypatch.setattr(sharded, "build_tree", ends)
        with pytest.raises(KeyboardInterrupt):
            publish_index(tmp_path / "index", "scann", embeddings, SHARDS)
        assert built == [0, 66, 133] and not exists(tmp_path / "index")
        return embeddings, built

    def test_goes_on_after_the_last_shard(self, ended, tmp_path):
        embeddings, built = ended
        assert not [finding for finding in verify(tmp_path) if finding.amiss]
        publish_index(tmp_path / "index", "scann", embeddings, SHARDS)
        assert built == [0, 66, 133, 133]
        assert not (tmp_path / "index_shards").exists()
        rows, _ = open_index(tmp_path / "index", embeddings).search(unit_vectors(9, 8, seed=1), 5)
        np.testing.assert_array_equal(rows, ExactIndex(with_equal_rows()).search(unit_vectors(9, 8, seed=1), 5)[0])
        assert not [finding for finding in verify(tmp_path) if finding.amiss]

    def test_goes_on_with_its_own_size_where_memory_would_say_another_now(self, ended, tmp_path):
        embeddings, built = ended
        publish_index(tmp_path / "index", "scann", embeddings, ScannSettings())
        assert built == [0, 66, 133, 133]

    def test_begins_again_with_another_size(self, ended, tmp_path):
        embeddings, built = ended
        publish_index(tmp_path / "index", "scann", embeddings, ScannSettings(rows_a_shard=100))
        assert built[3:] == [0, 100]
        assert len(open_artifact(tmp_path / "index", "index").facts["shards"]) == 2

    def test_a_damaged_or_missing_shard_is_built_again(self, ended, tmp_path):
        embeddings, built = ended
        (damaged,) = tmp_path.glob("index_shards/00000/scann/00000/dataset.npy")
        damaged.write_bytes(damaged.read_bytes()[:-4])
        shutil.rmtree(tmp_path / "index_shards" / "00001")
        publish_index(tmp_path / "index", "scann", embeddings, SHARDS)
        assert built[3:] == [0, 66, 133]

    def test_shards_over_other_embeddings_are_not_taken(self, ended, publish_vectors, tmp_path):
        _, built = ended
        publish_index(tmp_path / "index", "scann", publish_vectors(unit_vectors(200, 8, seed=5), "other"), SHARDS)
        assert built[3:] == [0, 66, 133]

    def test_what_is_left_of_a_build_is_cleared_away_when_its_index_is_opened(self, ended, tmp_path):
        embeddings, _ = ended
        shutil.copytree(tmp_path / "index_shards", tmp_path / "kept")
        publish_index(tmp_path / "index", "scann", embeddings, SHARDS)
        shutil.move(tmp_path / "kept", tmp_path / "index_shards")
        publish_or_open_index(tmp_path / "index", "scann", embeddings)
        assert not (tmp_path / "index_shards").exists()


@pytest.mark.parametrize("change", ["missing", "of another size"])
def test_an_index_with_a_shard_that_is_not_what_was_published_is_refused(publish_vectors, tmp_path, change):
    artifact = publish_index(tmp_path / "index", "scann", publish_vectors(unit_vectors(200, 8)), SHARDS)
    file = artifact / "scann" / "00001" / "dataset.npy"
    wanted = json.loads((artifact / "manifest.json").read_text())["files"]["scann/00001/dataset.npy"]["bytes"]
    if change == "missing":
        shutil.rmtree(file.parent)
        state = ".*/scann/00001/.* is missing"
    else:
        file.write_bytes(file.read_bytes() + b"....")
        state = f"{file} has {wanted + 4} bytes instead of {wanted}"
    with pytest.raises(MelError, match=f"{state}: delete {artifact.path} and run the same command again"):
        open_index(tmp_path / "index")
