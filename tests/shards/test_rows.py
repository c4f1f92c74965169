"""Ragged rows, and the padded blocks taken of them."""

import numpy as np
import pytest

from mel.shards.rows import TokenRows, bucket_width


@pytest.fixture
def rows():
    return TokenRows.from_rows([np.array([1, 2, 3]), np.array([], np.int32), np.array([4])])


def test_gather_pads_and_cuts(rows):
    assert rows.gather(np.array([2, 0, -1]), 2).tolist() == [[4, 0], [1, 2], [0, 0]]
    assert rows.gather(np.array([1]), 3).tolist() == [[0, 0, 0]]


def test_take_keeps_order(rows):
    taken = rows.take(np.array([2, 1, 0]))
    assert taken.tokens_T.tolist() == [4, 1, 2, 3]
    assert taken.offsets_N1.tolist() == [0, 1, 1, 4]


def test_widths_are_rounded_up():
    assert bucket_width(np.array([0, 1, 8, 9]), 8).tolist() == [8, 8, 8, 16]


def test_by_width_visits_every_row_once_in_few_shapes():
    generator = np.random.default_rng(0)
    rows = TokenRows.from_rows([generator.integers(1, 99, length) for length in generator.integers(0, 40, 100)])
    seen, shapes = [], set()
    for row_ids, tokens in rows.by_width(token_budget=64):
        shapes.add(tokens.shape)
        kept = row_ids >= 0
        seen.extend(row_ids[kept])
        assert np.array_equal(tokens[kept], rows.gather(row_ids[kept], tokens.shape[1]))
        assert not tokens[~kept].any()
    assert sorted(seen) == list(range(100))
    assert shapes == {(8, 8), (4, 16), (2, 24), (2, 32), (1, 40)}


def test_twins_are_equal_token_by_token():
    rows = TokenRows.from_rows([np.array(row) for row in ([5, 6], [6, 5], [5, 6], [5], [5, 6, 0], [], [5, 6], [])])
    assert rows.twins().tolist() == [0, 1, 0, 3, 4, 5, 0, 5]


def test_twins_do_not_depend_on_how_many_are_read_at_once(monkeypatch):
    generator = np.random.default_rng(0)
    rows = TokenRows.from_rows([generator.integers(1, 3, generator.integers(1, 5)) for _ in range(200)])
    whole = rows.twins()
    monkeypatch.setattr("mel.shards.rows.ROWS_AT_ONCE", 7)
    assert whole.tolist() == rows.twins().tolist()
    listed = [tuple(rows.take(np.array([row])).tokens_T.tolist()) for row in range(200)]
    assert whole.tolist() == [listed.index(row) for row in listed]
