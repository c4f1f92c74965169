"""Contexts by hand: which training mentions are heard, and how much."""

import math

import numpy as np
import pytest

from mel.corpora.kb import EntityRows
from mel.evaluation.ranking import DEPTH, Ranking
from mel.retrieval.exact import ExactIndex
from mel.systems import contexts, nearest
from mel.systems.contexts import add_contexts
from mel.systems.nearest import rank_by_embeddings

ENTITIES_E = np.array([7, 5, 6, 7])
EMBEDDINGS_ED = np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8]], np.float32)
QUERY_QD = np.array([[0.8, 0.6]], np.float32)  # cosines .96 with 7, .6 with 5, -.8 with 6


LOGIT_SCALE = 10.0


def heard(context_entities, contexts_MD, weight, queries_QD=QUERY_QD):
    described = rank_by_embeddings(queries_QD, ExactIndex(EMBEDDINGS_ED), ENTITIES_E)
    index = ExactIndex(np.array(contexts_MD, np.float32))
    known = index, np.array(context_entities), EMBEDDINGS_ED, EntityRows.of(ENTITIES_E)
    return add_contexts(described, queries_QD, *known, weight, LOGIT_SCALE)


def mixed(description, context, weight):
    return math.log(math.exp(10 * description) + weight * math.exp(10 * context)) / 10


@pytest.mark.parametrize("weight, best", [(1e-9, 7), (0.5, 7), (1.0, 5)])
def test_the_nearest_training_mention_speaks_for_its_entity(weight, best):
    # Two link to 5, of which the nearer counts; that of 7 is further than the description; the KB has no 99.
    ranking = heard([5, 5, 7, 6, 99], [[0.8, 0.6], [0, 1], [0.6, -0.8], [0, 1], [0.8, 0.6]], weight)
    found = dict(zip(ranking.entities_QK[0].tolist(), ranking.scores_QK[0].tolist()))
    expected = {7: mixed(0.96, 0.0, weight), 5: mixed(0.6, 1.0, weight), 6: mixed(-0.8, 0.6, weight), 0: -math.inf}
    assert found == pytest.approx(expected, abs=1e-6)
    assert ranking.entities_QK.shape == (1, DEPTH) and ranking.entities_QK[0, 0] == best
    assert (np.diff(ranking.scores_QK[0, :3]) <= 0).all() and not ranking.entities_QK[0, 3:].any()


def test_an_entity_that_no_description_found_is_scored_by_its_own_too():
    described = Ranking.empty(1)
    described.entities_QK[0, 0], described.scores_QK[0, 0] = 5, 0.6
    index = ExactIndex(np.array([[0.8, 0.6]], np.float32))
    known = index, np.array([7]), EMBEDDINGS_ED, EntityRows.of(ENTITIES_E)
    ranking = add_contexts(described, QUERY_QD, *known, 0.5, LOGIT_SCALE)
    assert ranking.entities_QK[0, :3].tolist() == [7, 5, 0]
    np.testing.assert_allclose(ranking.scores_QK[0, :2], [mixed(0.96, 1.0, 0.5), 0.6], atol=1e-6)


def test_only_so_many_training_mentions_are_heard(monkeypatch):
    monkeypatch.setattr(contexts, "NEAREST", 1)
    ranking = heard([7, 5], [[0.8, 0.6], [0.6, 0.8]], 1.0)
    np.testing.assert_allclose(ranking.scores_QK[0, :2], [mixed(0.96, 1.0, 1.0), 0.6], atol=1e-6)


def test_blocks_of_mentions_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    some = (rng.normal(size=(9, 2)).astype("f4"), rng.choice([5, 6, 7, 99], 30), rng.normal(size=(30, 2)))
    whole = heard(some[1], some[2], 0.7, some[0])
    monkeypatch.setattr(contexts, "MENTIONS_AT_ONCE", 4)
    blocks = heard(some[1], some[2], 0.7, some[0])
    np.testing.assert_array_equal(whole.entities_QK, blocks.entities_QK)
    np.testing.assert_array_equal(whole.scores_QK, blocks.scores_QK)


def test_cosines_do_not_depend_on_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    queries_QD, embeddings_ED = rng.normal(size=(4, 3)).astype("f4"), rng.normal(size=(9, 3)).astype("f4")
    entities_E = rng.integers(1, 5, 9)
    mention_P, entity_P = rng.integers(0, 4, 20), rng.choice(entities_E, 20)
    expected = [max(queries_QD[q] @ embeddings_ED[entities_E == entity].T) for q, entity in zip(mention_P, entity_P)]
    monkeypatch.setattr(nearest, "PAIRS_AT_ONCE", 3)
    found = nearest.best_cosines(queries_QD, mention_P, entity_P, embeddings_ED, EntityRows.of(entities_E))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
