"""A keyed permutation of 0..size-1 that is computed at any place without the places before it."""

from __future__ import annotations

import numpy as np

FEISTEL_ROUNDS = 6


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


def _encrypt(values: np.ndarray, half: np.uint64, keys: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64; overflow is meant."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
