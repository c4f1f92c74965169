"""Fusion by hand: pools, exact cosines, what the weight decides."""

import numpy as np

from mel.evaluation import fusion
from mel.evaluation.ranking import DEPTH, Ranking
from tests.evaluation.hand_made import kb_of, mentions_of, pool_of

KB = kb_of((7, "de", ""), (5, "de", ""), (7, "en", ""), (6, "de", ""))
EMBEDDINGS_ED = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)


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

    pool = fusion.pool_candidates(mentions_of([7, 5]).lookups, ranking, prior, queries_QD, EMBEDDINGS_ED, KB)
    assert pool.entities_QC[:, :2].tolist() == [[5, 0], [5, 7]]
    assert pool.entities_QC[:, DEPTH : DEPTH + 3].tolist() == [[7, 6, 0], [6, 0, 0]]  # the KB has no 99
    # Entity 7 has two rows, and the nearer one counts.
    np.testing.assert_allclose(pool.cosines_QC[0, [0, DEPTH, DEPTH + 1]], [0.6, 0.96, -0.8], rtol=1e-6)
    np.testing.assert_allclose(np.exp(pool.log_priors_QC[0, [0, DEPTH, DEPTH + 1]]), [0.1, 0.5, 0.2], rtol=1e-6)
    np.testing.assert_allclose(np.exp(pool.log_priors_QC[1, :2]), [0.1, 0.5], rtol=1e-6)
    assert np.isneginf(pool.cosines_QC[pool.entities_QC == 0]).all()


def test_the_weight_decides_between_cosine_and_prior():
    pool = pool_of([[1, 2, 0]] * 2, [[0.9, 0.8, -np.inf]] * 2, [[0.1, 0.4, 0.1]] * 2)
    ranking = fusion.fuse(pool, np.array([0.0, 0.1]))
    assert ranking.entities_QK.tolist() == [[1, 2, 0], [2, 1, 0]]
    np.testing.assert_allclose(ranking.scores_QK[1, :2], [0.8 + 0.1 * np.log(0.4), 0.9 + 0.1 * np.log(0.1)], rtol=1e-6)
    assert np.isneginf(ranking.scores_QK[1, 2])
