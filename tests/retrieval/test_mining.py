import numpy as np
import pytest

from mel.retrieval.exact import ExactIndex
from mel.retrieval.mining import (
    Twins,
    mine,
    negatives_by_frequency,
    random_negatives,
    same_surface_negatives,
)
from mel.types import MelError
from tests.evaluation import hand_made


def world(rows=400, mentions=300, qids=150, dimension=6, seed=0):
    """Entities of which several share a QID, and mentions near their golds."""
    generator = np.random.default_rng(seed)
    entities_E = np.concatenate([np.arange(1, qids + 1), generator.integers(1, qids + 1, size=rows - qids)])
    centres = generator.standard_normal((qids + 1, dimension))
    embeddings_ND = centres[entities_E] + 0.05 * generator.standard_normal((rows, dimension))
    gold_Q = generator.integers(1, qids + 1, size=mentions)
    queries_QD = centres[gold_Q] + 0.5 * generator.standard_normal((mentions, dimension))
    return ExactIndex(embeddings_ND.astype(np.float32)), queries_QD.astype(np.float32), gold_Q, entities_E


def distinct_wrong(index, query_D, gold, entities_E):
    """The best row of each wrong QID, best first, the slow way."""
    best = {}
    for row in index.search(query_D[None], len(entities_E))[0][0]:
        if entities_E[row] != gold:
            best.setdefault(entities_E[row], row)
    return list(best.values())


class TestMine:
    def test_by_hand(self):
        index = ExactIndex(np.float32([[9, 0], [8, 0], [7, 0], [6, 0], [5, 0], [4, 0]]))
        entities_E = np.array([1, 2, 1, 2, 3, 4])
        rows = mine(index, np.float32([[1, 0], [1, 0], [-1, 0]]), np.array([1, 3, 77]), entities_E, 2, 2, seed=0)
        assert rows.dtype == np.int32
        np.testing.assert_array_equal(rows, [[1, 4], [0, 1], [5, 4]])

    def test_the_nearest_wrong_ones(self):
        index, queries_QD, gold_Q, entities_E = world()
        rows_QK = mine(index, queries_QD, gold_Q, entities_E, 5, 5, seed=0)
        for query, gold, rows in zip(queries_QD, gold_Q, rows_QK):
            assert list(rows) == distinct_wrong(index, query, gold, entities_E)[:5]

    def test_a_pool_of_more_rows_than_there_are_is_all_of_them(self):
        index, queries_QD, gold_Q, entities_E = world()
        whole, more = (mine(index, queries_QD, gold_Q, entities_E, 5, pool, 0) for pool in (len(entities_E), 10**9))
        np.testing.assert_array_equal(more, whole)

    @pytest.mark.parametrize("seed", range(5))
    def test_never_a_gold_and_no_entity_twice(self, seed):
        index, queries_QD, gold_Q, entities_E = world(seed=seed, qids=[10, 20, 50, 150, 350][seed])
        rows_QK = mine(index, queries_QD, gold_Q, entities_E, 4, 9, seed)
        assert np.any(entities_E[index.search(queries_QD, 4)[0]] == gold_Q[:, None])
        assert np.all((rows_QK >= 0) & (entities_E[rows_QK] != gold_Q[:, None]))
        assert all(len(set(qids)) == 4 for qids in entities_E[rows_QK])

    def test_draws_from_the_pool_evenly_and_in_order(self):
        index, queries_QD, gold_Q, entities_E = world(mentions=1)
        pool = distinct_wrong(index, queries_QD[0], gold_Q[0], entities_E)[:6]
        rows_QK = mine(index, np.repeat(queries_QD, 3000, axis=0), np.repeat(gold_Q, 3000), entities_E, 2, 6, seed=3)
        places_QK = np.array([[pool.index(row) for row in rows] for rows in rows_QK])
        assert np.all(places_QK[:, 0] < places_QK[:, 1])
        # Each is drawn with probability 1/3: 1000 times, standard deviation 26.
        counts = np.bincount(places_QK.reshape(-1), minlength=6)
        assert np.all(np.abs(counts - 1000) < 130)

    def test_depends_on_the_seed_and_not_on_the_block(self):
        index, queries_QD, gold_Q, entities_E = world()
        rows_QK, again_QK, other_QK = (
            mine(index, queries_QD, gold_Q, entities_E, 3, 9, seed, block=block)
            for seed, block in ((1, 1000), (1, 37), (2, 1000))
        )
        np.testing.assert_array_equal(rows_QK, again_QK)
        assert np.mean(rows_QK == other_QK) < 0.6

    def test_a_round_draws_anew_so_that_a_mention_meets_all_of_its_pool(self):
        index, queries_QD, gold_Q, entities_E = world()
        pools = [distinct_wrong(index, query, gold, entities_E)[:8] for query, gold in zip(queries_QD, gold_Q)]
        met = [set() for _ in pools]
        for number in range(7):
            rows_QK = mine(index, queries_QD, gold_Q, entities_E, 4, 8, seed=0, stream=number)
            for rows, known in zip(rows_QK.tolist(), met):
                known.update(rows)
        # The nearest is missed in every one of seven rounds with probability 2**-7.
        missed = np.mean([pool[0] not in known for pool, known in zip(pools, met)])
        assert missed < 0.03

    def test_twins_that_were_counted_are_not_counted_again(self):
        twins = Twins(np.array([0, 0, 2, 0]), np.array([0]))
        assert twins.most == 2 and twins._replace(first_E=None, counted=twins.most).most == 2

    def test_a_mention_draws_the_same_whatever_others_there_are(self):
        index, queries_QD, gold_Q, entities_E = world()
        whole_QK, few_Q = mine(index, queries_QD, gold_Q, entities_E, 3, 9, 1), np.array([250, 3, 77, 78])
        few_QK = mine(index, queries_QD[few_Q], gold_Q[few_Q], entities_E, 3, 9, 1, mentions_Q=few_Q)
        np.testing.assert_array_equal(few_QK, whole_QK[few_Q])
        assert not np.array_equal(few_QK, mine(index, queries_QD[few_Q], gold_Q[few_Q], entities_E, 3, 9, 1))

    def test_what_reads_like_the_gold_is_no_negative(self):
        # Rows 0 and 1 read alike, and so do 2 and 4; the gold of the first mention is row 0, of the second row 4.
        index = ExactIndex(np.float32([[9, 0], [9, 0], [7, 0], [6, 0], [7, 0], [4, 0]]))
        twins = Twins(np.array([0, 0, 2, 3, 2, 5]), np.array([0, 4, -1]))
        queries_QD, gold_Q = np.float32([[1, 0]] * 3), np.array([1, 5, 99])
        rows = mine(index, queries_QD, gold_Q, np.arange(1, 7), 2, 2, seed=0, twins=twins)
        np.testing.assert_array_equal(rows, [[2, 4], [0, 1], [0, 1]])

    def test_searches_behind_many_rows_of_the_gold(self):
        entities_E = np.array([1] * 300 + [2, 3])
        embeddings_ND = np.float32([[9, 0]] * 300 + [[2, 0], [1, 0]])
        rows = mine(ExactIndex(embeddings_ND), np.float32([[1, 0]]), np.array([1]), entities_E, 2, 2, seed=0)
        np.testing.assert_array_equal(rows, [[300, 301]])

    def test_a_pool_larger_than_the_knowledge_base(self):
        index, entities_E = ExactIndex(np.float32([[3, 0], [2, 0], [1, 0]])), np.array([1, 2, 3])
        rows = mine(index, np.float32([[1, 0]]), np.array([1]), entities_E, 2, 50, seed=0)
        np.testing.assert_array_equal(rows, [[1, 2]])

    def test_says_how_far_it_is(self):
        index, queries_QD, gold_Q, entities_E = world(mentions=25)
        done = []
        mine(index, queries_QD, gold_Q, entities_E, 1, 1, seed=0, progress=done.append, block=10)
        assert done == [10, 10, 5]

    def test_refuses_a_knowledge_base_that_is_too_small(self):
        index, entities_E = ExactIndex(np.float32([[3, 0], [2, 0], [1, 0]])), np.array([1, 2, 2])
        queries_QD, gold_Q = np.ones((3, 2), np.float32), np.array([9, 8, 2])
        with pytest.raises(MelError, match="only 1 wrong entities for mention 2, and 2 negatives are wanted"):
            mine(index, queries_QD, gold_Q, entities_E, 2, 5, seed=0, block=2)

    def test_refuses_a_pool_smaller_than_the_draw(self):
        index, queries_QD, gold_Q, entities_E = world(mentions=1)
        with pytest.raises(MelError, match="A pool of 3 is too small to draw 4"):
            mine(index, queries_QD, gold_Q, entities_E, 4, 3, seed=0)


def kb_of(entities_E, languages=("en",)):
    """A KB whose rows take turns in their language."""
    return hand_made.kb_of(*((entity, languages[row % len(languages)], "") for row, entity in enumerate(entities_E)))


def draw_random(gold_Q, entities_E, negatives_per_mention, seed):
    return random_negatives(gold_Q, entities_E, negatives_per_mention, seed)


def draw_by_frequency(gold_Q, entities_E, negatives_per_mention, seed):
    gold_rows_Q = np.array([np.flatnonzero(entities_E == gold)[0] for gold in gold_Q])
    return negatives_by_frequency(gold_Q, gold_rows_Q, entities_E, negatives_per_mention, seed)


def draw_same_surface(gold_Q, entities_E, negatives_per_mention, seed):
    forms = [f"{'Nn'[gold // 3 % 2]}ame {gold // 6}" for gold in gold_Q.tolist()]
    return same_surface_negatives(
        forms, gold_Q, ["en"] * len(forms), kb_of(entities_E), negatives_per_mention, seed, block=70
    )


@pytest.mark.parametrize("draw", [draw_random, draw_by_frequency, draw_same_surface])
class TestDrawn:
    @pytest.mark.parametrize("qids", [12, 150])
    def test_never_a_gold_and_no_entity_twice(self, draw, qids):
        _, _, gold_Q, entities_E = world(qids=qids)
        rows_QK = draw(gold_Q, entities_E, 5, 0)
        assert rows_QK.dtype == np.int32 and rows_QK.shape == (300, 5)
        assert np.all((rows_QK >= 0) & (entities_E[rows_QK] != gold_Q[:, None]))
        assert all(len(set(qids)) == 5 for qids in entities_E[rows_QK])

    def test_depends_on_the_seed_only(self, draw):
        _, _, gold_Q, entities_E = world()
        first, again, other = (draw(gold_Q, entities_E, 3, seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert np.mean(first == other) < 0.5

    def test_refuses_a_knowledge_base_that_is_too_small(self, draw):
        with pytest.raises(MelError, match="only 2 wrong entities, and 3 negatives are wanted"):
            draw(np.array([1, 2, 3]), np.array([1, 2, 3, 3]), 3, 0)


class TestRandom:
    def test_uniform(self):
        rows_QK = random_negatives(np.full(4000, 1), np.arange(1, 6), 2, seed=0)
        counts = np.bincount(rows_QK.reshape(-1), minlength=5)
        # Each wrong row is drawn with probability 1/2: 2000 times, standard deviation 32.
        assert counts[0] == 0 and np.all(np.abs(counts[1:] - 2000) < 160)


class TestByFrequency:
    def test_in_proportion_to_the_golds(self):
        gold_rows_Q = np.repeat([0, 1, 2, 3, -1], [4000, 3000, 1000, 0, 500])
        entities_E = np.array([10, 20, 30, 40])
        rows_QK = negatives_by_frequency(np.append(entities_E, 50)[gold_rows_Q], gold_rows_Q, entities_E, 1, seed=0)
        counts = np.bincount(rows_QK[:4000, 0], minlength=4)
        # Beside QID 10, 20 is gold three times as often as 30, and 40 never: 3000, standard deviation 27.
        assert counts[0] == counts[3] == 0 and abs(counts[1] - 3000) < 130
        # For a gold outside the KB nothing is excluded: 4 : 3 : 1 of 500, standard deviation 11.
        assert np.all(np.abs(np.bincount(rows_QK[-500:, 0]) - [250, 187, 63]) < 50)

    def test_takes_the_row_that_is_gold(self):
        rows_QK = negatives_by_frequency(np.array([1, 2, 2]), np.array([0, 3, 3]), np.array([1, 2, 1, 2]), 1, seed=0)
        np.testing.assert_array_equal(rows_QK, [[3], [0], [0]])


class TestSameSurface:
    FORMS = ["Java", "Java", "java", "JAVA", "Go", "go", "Lisp", "Java"]
    GOLDS = np.array([1, 2, 3, 4, 5, 5, 6, 99])  # 99 is not in the KB

    def draw(self, negatives_per_mention, seed=0, **others):
        kb = kb_of(np.arange(1, 21))
        return same_surface_negatives(self.FORMS, self.GOLDS, ["en"] * 8, kb, negatives_per_mention, seed, **others)

    @pytest.mark.parametrize("seed", range(5))
    def test_the_same_form_first_then_lower_cased_then_any(self, seed):
        entities_QK = self.draw(4, seed) + 1
        assert entities_QK[0, 0] == 2 and set(entities_QK[0, 1:3]) == {3, 4} and entities_QK[0, 3] > 4
        assert entities_QK[1, 0] == 1 and set(entities_QK[1, 1:3]) == {3, 4} and entities_QK[1, 3] > 4
        assert set(entities_QK[2, :3]) == {1, 2, 4} and set(entities_QK[3, :3]) == {1, 2, 3}
        assert set(entities_QK[7, :2]) == {1, 2} and set(entities_QK[7, 2:]) == {3, 4}
        assert not np.isin(entities_QK[4:6], 5).any() and not np.isin(entities_QK[6], 6).any()

    def test_draws_among_several_evenly(self):
        forms, golds = ["x"] * 3000, np.repeat([1, 2, 3, 4], [2700, 100, 100, 100])
        rows_QK = same_surface_negatives(forms, golds, ["en"] * 3000, kb_of(np.arange(1, 9)), 1, seed=0)
        # Three wrong ones for 2700 mentions: 900 each, standard deviation 24, however often each is linked.
        assert np.all(np.abs(np.bincount(rows_QK[:2700, 0])[1:] - 900) < 120)

    def test_in_the_language_of_the_mention_where_there_is_such_a_row(self):
        kb = hand_made.kb_of((1, "en", ""), (1, "fr", ""), (2, "en", ""), (2, "fr", ""), (3, "en", ""))
        rows_QK = same_surface_negatives(
            ["a", "a", "b", "b"], np.array([1, 2, 2, 3]), ["fr", "en", "fr", "fr"], kb, 1, 0
        )
        np.testing.assert_array_equal(rows_QK, [[3], [0], [4], [3]])

    def test_does_not_depend_on_the_block(self):
        whole, blocks = self.draw(3), self.draw(3, block=3)
        np.testing.assert_array_equal(whole, blocks)
