"""The weight of a fusion by hand: no mention chooses its own."""

import zlib

import numpy as np
import pytest

from mel.systems import fusion
from mel.types import MelError
from tests.evaluation.hand_made import pool_of


def test_no_mention_is_answered_with_a_weight_it_chose():
    halves = {zlib.crc32(name.encode()) % 2: name for name in ("a", "b", "c", "d", "e")}
    documents = [halves[0], halves[1]]
    # Mention 0 is right only where the prior weighs nothing, mention 1 only where it weighs enough.
    pool = pool_of([[1, 2]] * 2, [[0.9, 0.85]] * 2, [[0.1, 0.4]] * 2)
    ranking, tuned = fusion.fuse_cross_fitted(pool, np.array([1, 2]), documents)
    assert ranking.entities_QK[:, 0].tolist() == [2, 1]
    least = min(weight for weight in fusion.WEIGHTS if weight * np.log(4) > 0.05)
    assert tuned["fusion_weight_by_fold"] == [least, 0.0]
    assert tuned["fusion_weight"] == 0.0  # of equals the smallest


def test_one_document_fits_no_weight():
    pool = pool_of([[1, 2]] * 2, [[0.9, 0.85]] * 2, [[0.1, 0.4]] * 2)
    with pytest.raises(MelError, match="over 1 documents: state one with --fusion_weight"):
        fusion.fuse_cross_fitted(pool, np.array([1, 2]), ["a", "a"])
