"""Random numbers by key: each depends on its own place alone."""

import numpy as np

from mel.shards.permutation import fold, uniform


def test_a_number_does_not_depend_on_other_rows_or_their_order():
    whole = uniform(np.arange(1000), 5, seed=3, stream=2)
    chosen = np.array([7, 999, 0, 7])
    np.testing.assert_array_equal(uniform(chosen, 5, 3, 2), whole[chosen])
    np.testing.assert_array_equal(uniform(np.arange(1000), 3, 3, 2), whole[:, :3])


def test_seed_stream_row_and_column_all_tell_draws_apart():
    draws = [uniform(np.arange(500), 4, seed, stream) for seed, stream in ((0, 0), (0, 1), (1, 0))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(draws[one].ravel(), draws[other].ravel())[0, 1]) < 0.1
    assert len(np.unique(draws)) == 3 * 500 * 4
    assert len({fold(seed, stream) for seed in range(9) for stream in range(9)}) == 81


def test_numbers_are_evenly_spread():
    values = uniform(np.arange(40_000), 3, 0, 0)
    assert 0 <= values.min() and values.max() < 1
    for column in values.T:  # each twentieth holds 2000 of 40,000, standard deviation 44
        assert np.all(np.abs(np.histogram(column, 20, (0, 1))[0] - 2000) < 220)
    assert abs(np.corrcoef(values.T)[0, 1:]).max() < 0.02
    assert abs(np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]) < 0.02
