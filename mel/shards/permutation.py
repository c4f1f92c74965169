"""Randomness by key: permutations and numbers that are computed at any place without the places before it."""

from __future__ import annotations

import numpy as np

FEISTEL_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the step of SplitMix64: 2^64 divided by the golden ratio


def permuted(positions: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """Where the permutation of `epoch` puts each position; int64, all in 0..size-1.

    A Feistel network over the smallest even number of bits that holds `size`, walked until the
    value falls inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
    """
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    keys = np.random.Generator(np.random.Philox(key=[seed, epoch])).integers(
        2**63, size=FEISTEL_ROUNDS, dtype=np.uint64
    )
    values = np.asarray(positions, np.uint64)
    outside = np.ones(len(values), bool)
    while outside.any():
        values[outside] = _encrypt(values[outside], half, keys)
        outside = values >= size
    return values.astype(np.int64)


def uniform(rows_n: np.ndarray, columns: int, seed: int, stream: int) -> np.ndarray:
    """Numbers evenly spread over 0 <= u < 1, float64 [n, columns].

    Each depends on the seed, the stream, its row and its column, and on nothing else: neither on the other
    rows nor on their order. (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014.)

    Args:
      rows_n: what the rows are numbered; not negative.
      columns: how many numbers a row.
      seed: of all streams.
      stream: what tells draws of one seed apart, such as a round; not negative.
    """
    row_n = mix(np.asarray(rows_n, np.uint64) * _GOLDEN + np.uint64(fold(seed, stream)))
    column_C = (np.arange(columns, dtype=np.uint64) + np.uint64(1)) * _GOLDEN
    return (mix(row_n[:, None] + column_C) >> np.uint64(11)) * 2.0**-53


def fold(seed: int, stream: int) -> int:
    """A seed for one of many draws with the same seed, such as those of a round; neither may be negative."""
    return int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0])


def _encrypt(values: np.ndarray, half: np.uint64, keys: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (mix(right ^ key) & mask)
    return (left << half) | right


def mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64; overflow is meant."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
