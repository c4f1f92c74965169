"""Exact search as it runs on CPUs and on accelerators, the latter on a CPU, too."""

import itertools

import numpy as np
import pytest

from mel.retrieval import exact, streamed
from mel.retrieval.exact import ExactIndex
from mel.retrieval.streamed import Streamed
from tests.retrieval.test_index import brute_force, on_accelerator, unit_vectors

SEARCHES = {"cpu": ExactIndex, "accelerator": on_accelerator, "kept": lambda rows_ND: on_accelerator(rows_ND, 2**20)}


@pytest.fixture(params=SEARCHES.values(), ids=SEARCHES.keys())
def make_index(request, monkeypatch):
    """Makes an index whose blocks are small."""
    monkeypatch.setattr(exact, "ROWS_AT_ONCE", 384)
    monkeypatch.setattr(exact, "ROWS_A_BLOCK", 128)
    monkeypatch.setattr(streamed, "ROWS_A_BLOCK", 128)
    monkeypatch.setattr(streamed, "BINS", (16, 4))
    return request.param


@pytest.mark.parametrize("k", [1, 3, 30, 150])
def test_blocks_change_nothing(make_index, k):
    embeddings_ND, queries_QD = unit_vectors(700, 8), unit_vectors(270, 8, seed=1)
    index = make_index(embeddings_ND)
    true_rows, true_scores = brute_force(queries_QD, embeddings_ND, k)
    for _ in range(2):  # the second time from what the device may have kept
        rows, scores = index.search(queries_QD, k)
        np.testing.assert_array_equal(rows, true_rows)
        np.testing.assert_allclose(scores, true_scores, atol=1e-6)


def test_among_equal_scores_the_smaller_row_is_first(make_index):
    # Inner products are small integers, so exact, and each occurs about forty times.
    generator = np.random.default_rng(0)
    embeddings_ND = generator.integers(-2, 3, size=(400, 3)).astype(np.float32)
    queries_QD = generator.integers(-2, 3, size=(80, 3)).astype(np.float32)
    for k in (1, 5, 20):
        rows, _ = make_index(embeddings_ND).search(queries_QD, k)
        np.testing.assert_array_equal(rows, brute_force(queries_QD, embeddings_ND, k)[0])


def test_rows_that_are_all_alike_come_in_order(make_index):
    rows, _ = make_index(np.ones((500, 4), np.float32)).search(np.ones((3, 4), np.float32), 9)
    np.testing.assert_array_equal(rows, np.tile(np.arange(9), (3, 1)))


@pytest.mark.parametrize("dimension", [16, 128, 384])
def test_not_a_bit_depends_on_the_other_queries_or_on_blocks(make_index, dimension, monkeypatch):
    embeddings_ND, queries_QD = unit_vectors(900, dimension), unit_vectors(300, dimension, seed=1)
    index = make_index(embeddings_ND)
    rows, scores = index.search(queries_QD, 5)
    for part in (slice(0, 1), slice(1, 13), slice(13, 70), slice(70, 300)):
        np.testing.assert_array_equal(index.search(queries_QD[part], 5)[1], scores[part])
    monkeypatch.undo()
    whole = make_index(embeddings_ND).search(queries_QD, 5)
    np.testing.assert_array_equal(whole[0], rows)
    np.testing.assert_array_equal(whole[1], scores)


def test_both_ways_are_equal_bit_for_bit():
    embeddings_ND, queries_QD = unit_vectors(5000, 96), unit_vectors(80, 96, seed=1)
    (rows, scores), theirs = (index(embeddings_ND).search(queries_QD, 70) for index in (ExactIndex, on_accelerator))
    np.testing.assert_array_equal(rows, theirs[0])
    np.testing.assert_array_equal(scores, theirs[1])


@pytest.mark.parametrize("make_index", [ExactIndex, on_accelerator])
def test_mapped_vectors_are_read_where_they_are(make_index, tmp_path):
    np.save(tmp_path / "vectors.npy", unit_vectors(300, 8))
    mapped_ND = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    index = make_index(mapped_ND)
    assert index._embeddings_ND is mapped_ND
    queries_QD = unit_vectors(20, 8, seed=1)
    np.testing.assert_array_equal(index.search(queries_QD, 3)[0], brute_force(queries_QD, mapped_ND, 3)[0])


@pytest.mark.parametrize("rows", [300, 256, 128])
def test_a_block_of_mapped_vectors_is_no_copy(tmp_path, rows):
    np.save(tmp_path / "vectors.npy", unit_vectors(rows, 16))
    mapped_ND = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    seen = []
    for block in itertools.chain(exact._blocks(mapped_ND, 0, 192, 128), exact._blocks(mapped_ND, 192, 1_000, 128)):
        assert block.rows_nD.unsafe_buffer_pointer() == mapped_ND[block.first_row :].ctypes.data
        assert block.rows_nD.shape == (128, 16)
        seen += range(block.first_row + block.new.start, block.first_row + block.new.stop)
    assert seen == list(range(rows))


def test_fewer_vectors_than_a_block_are_filled_up():
    [block] = exact._blocks(unit_vectors(100, 16), 0, 1_000, 128)
    assert (block.first_row, block.new) == (0, slice(0, 100))
    np.testing.assert_array_equal(block.rows_nD, np.pad(unit_vectors(100, 16), [(0, 28), (0, 0)]))


def test_the_device_keeps_no_more_blocks_than_it_may(monkeypatch):
    monkeypatch.setattr(streamed, "ROWS_A_BLOCK", 128)
    sent = []
    monkeypatch.setattr(streamed.jax, "device_put", lambda value: sent.append(np.shape(value)) or value)
    index = Streamed(unit_vectors(600, 8), kept_bytes=2 * 128 * 8 * 4 + 100)
    for _ in range(2):
        index.search(unit_vectors(3, 8), 2)
    assert sorted(index._kept) == [0, 128]
    assert sent.count((128, 8)) == 5 + 3
