"""Fusion by hand: pools, exact cosines, weights that no mention chooses for itself."""

import zlib

import numpy as np
import pytest

from mel.corpora.kb import EntityRows
from mel.evaluation.ranking import DEPTH, Ranking
from mel.systems import fusion
from mel.systems.fusion import Pool
from mel.types import MelError
from tests.evaluation.hand_made import mentions_of

ENTITIES_E = np.array([7, 5, 7, 6])
EMBEDDINGS_ED = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)


def pooled(qids, cosines, priors) -> Pool:
    return Pool(np.array(qids), np.array(cosines, np.float32), np.log(np.array(priors, np.float32)))


def encoder_says(*answers) -> Ranking:
    ranking = Ranking.empty(len(answers))
    for row, candidates in enumerate(answers):
        for place, (qid, score) in enumerate(candidates):
            ranking.entities_QK[row, place], ranking.scores_QK[row, place] = qid, score
    return ranking


def test_a_pool_by_hand():
    queries_QD = np.array([[0.8, 0.6], [0, 1]], np.float32)
    ranking = encoder_says([(5, 0.6)], [(5, 1.0), (7, 0.8)])

    def prior(surface_form, language, lemma):
        return {7: 0.5, 6: 0.2, 99: 0.2}, 0.1

    lookups, rows = mentions_of([7, 5]).lookups, EntityRows.of(ENTITIES_E)
    pool = fusion.pool_candidates(lookups, ranking, prior, queries_QD, EMBEDDINGS_ED, rows)
    assert pool.entities_QC[:, :2].tolist() == [[5, 0], [5, 7]]
    assert pool.entities_QC[:, DEPTH : DEPTH + 3].tolist() == [[7, 6, 0], [6, 0, 0]]  # the KB has no 99
    # Entity 7 has two rows, and the nearer one counts.
    np.testing.assert_allclose(pool.cosines_QC[0, [0, DEPTH, DEPTH + 1]], [0.6, 0.96, -0.8], rtol=1e-6)
    np.testing.assert_allclose(np.exp(pool.log_priors_QC[0, [0, DEPTH, DEPTH + 1]]), [0.1, 0.5, 0.2], rtol=1e-6)
    np.testing.assert_allclose(np.exp(pool.log_priors_QC[1, :2]), [0.1, 0.5], rtol=1e-6)
    assert np.isneginf(pool.cosines_QC[pool.entities_QC == 0]).all()


def test_the_weight_decides_between_cosine_and_prior():
    pool = pooled([[1, 2, 0]] * 2, [[0.9, 0.8, -np.inf]] * 2, [[0.1, 0.4, 0.1]] * 2)
    ranking = fusion.fuse(pool, np.array([0.0, 0.1]))
    assert ranking.entities_QK.tolist() == [[1, 2, 0], [2, 1, 0]]
    np.testing.assert_allclose(ranking.scores_QK[1, :2], [0.8 + 0.1 * np.log(0.4), 0.9 + 0.1 * np.log(0.1)], rtol=1e-6)
    assert np.isneginf(ranking.scores_QK[1, 2])


def test_no_mention_is_answered_with_a_weight_it_chose():
    halves = {zlib.crc32(name.encode()) % 2: name for name in ("a", "b", "c", "d", "e")}
    documents = [halves[0], halves[1]]
    # Mention 0 is right only where the prior weighs nothing, mention 1 only where it weighs enough.
    pool = pooled([[1, 2]] * 2, [[0.9, 0.85]] * 2, [[0.1, 0.4]] * 2)
    ranking, tuned = fusion.fuse_cross_fitted(pool, np.array([1, 2]), documents)
    assert ranking.entities_QK[:, 0].tolist() == [2, 1]
    least = min(weight for weight in fusion.WEIGHTS if weight * np.log(4) > 0.05)
    assert tuned["fusion_weight_by_fold"] == [least, 0.0]
    assert tuned["fusion_weight"] == 0.0  # of equals the smallest


def test_one_document_fits_no_weight():
    pool = pooled([[1, 2]] * 2, [[0.9, 0.85]] * 2, [[0.1, 0.4]] * 2)
    with pytest.raises(MelError, match="over 1 documents: state one with --fusion_weight"):
        fusion.fuse_cross_fitted(pool, np.array([1, 2]), ["a", "a"])
