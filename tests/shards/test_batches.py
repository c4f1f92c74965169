"""Batch n is a pure function of (seed, n), and says the same as the rows it was made from."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from mel.shards.batches import BatchSource, Layout, best_widths, chunk_count
from mel.shards.datasets import RowSet
from mel.shards.negatives import Negatives
from mel.shards.permutation import permuted
from mel.shards.rows import TokenRows
from mel.types import MelError

MENTIONS, ENTITIES, NEGATIVES = 100, 30, 2


@pytest.fixture
def source():
    generator = np.random.default_rng(0)

    def rows(count):
        return TokenRows.from_rows([generator.integers(1, 999, generator.integers(1, 48)) for _ in range(count)])

    entity_qids = np.repeat(np.arange(1, 16), 2)  # every QID in two languages
    gold_rows = generator.integers(ENTITIES, size=MENTIONS)
    entities = RowSet(rows(ENTITIES), entity_qids, np.zeros(ENTITIES), np.arange(ENTITIES))
    mentions = RowSet(rows(MENTIONS), entity_qids[gold_rows], np.zeros(MENTIONS), gold_rows)
    negatives = generator.integers(ENTITIES, size=(MENTIONS, NEGATIVES)).astype(np.int32)
    return BatchSource(mentions, entities, Negatives(negatives), batch_size=8, seed=1, chunk_tokens=96)


def texts(batch):
    """The tokens of every text slot, padding taken off."""
    return [line[line != 0].tolist() for group in batch.tokens for line in group]


def row_tokens(rows, row):
    return rows.take(np.array([row])).tokens_T.tolist()


def test_a_permutation_visits_every_place_once_and_differs_by_epoch_and_seed():
    for size in (1, 2, 5, 64, 1000):
        assert sorted(permuted(np.arange(size), size, seed=3, epoch=0)) == list(range(size))
    orders = [permuted(np.arange(50), 50, seed, epoch).tolist() for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order) for order in orders}) == 3
    assert permuted(np.array([17]), 50, 0, 0)[0] == orders[0][17]


def test_every_mention_occurs_once_an_epoch(source):
    epoch = np.concatenate([source.mention_rows(n) for n in range(12)])
    assert len(np.unique(epoch)) == 96
    assert not np.array_equal(source.mention_rows(0), source.mention_rows(12))


def test_a_batch_holds_its_mentions_golds_and_negatives(source):
    batch = source.batch_at(5, source.plan())
    mention_rows = source.mention_rows(5)
    found = texts(batch)
    for place, row in enumerate(mention_rows):
        assert found[batch.mention_row_B[place]] == row_tokens(source.mentions.rows, row)
    real = batch.entity_C != 0
    wanted = set(source.mentions.entity_rows_N[mention_rows]) | set(source.negatives.of(mention_rows).reshape(-1))
    assert real.sum() == len(wanted)
    by_text = {tuple(row_tokens(source.entities.rows, row)): row for row in wanted}
    columns = [by_text[tuple(found[slot])] for slot in batch.candidate_row_C[real]]
    assert sorted(columns) == sorted(wanted)
    assert np.array_equal(np.array(columns)[batch.gold_column_B], source.mentions.entity_rows_N[mention_rows])
    assert np.array_equal(batch.gold_B, source.mentions.entities_N[mention_rows])
    assert np.array_equal(batch.entity_C[real], source.entities.entities_N[columns])


def test_all_batches_of_a_plan_have_one_shape(source):
    layouts = source.plan()
    shapes = {
        tuple(leaf.shape for leaf in [*batch.tokens, *batch[1:]])
        for batch in (source.batch_at(n, layouts) for n in range(20))
    }
    assert len(shapes) == 1
    for width, texts in zip(layouts[0].widths, layouts[0].texts):
        chunks = chunk_count(texts, width, 96)
        assert texts == 0 or (texts % chunks == 0 and texts // chunks * width <= 96)


def test_a_layout_is_no_larger_than_the_largest_need_and_its_rounding(source):
    usual, _ = source.plan()
    most = max(len(source._lengths(rows, source.entity_rows(rows))) for rows in map(source.mention_rows, range(64)))
    rounding = sum(1 + chunk_count(texts, width, 96) for width, texts in zip(usual.widths, usual.texts))
    assert most <= sum(usual.texts) <= most * 1.02 + rounding


def test_the_layout_of_the_round_before_stays_where_it_does(source):
    best, widest = source.plan()
    *narrower, last = best.texts
    larger = dataclasses.replace(best, candidates=best.candidates + 1)
    assert source.plan(before=larger) == (larger, widest)
    one_width = Layout(best.widths[-1:], (sum(best.texts),), best.candidates)
    too_few = dataclasses.replace(best, texts=(*narrower, last - 2))
    too_many = dataclasses.replace(best, texts=(*narrower, last * 2))
    unrounded = dataclasses.replace(best, texts=(*narrower, last + 1))
    for other in (
        one_width, too_few, too_many, unrounded, dataclasses.replace(best, candidates=best.candidates * 2),
        dataclasses.replace(best, candidates=2), dataclasses.replace(best, widths=(*best.widths[:-1], 56)),
    ):  # fmt: skip
        assert source.plan(before=other) == (best, widest)
    assert source.plan(most_widths=1, before=best) == source.plan(most_widths=1)
    assert source.plan(0, 1000, before=larger) == (larger, widest)
    assert source.plan(0, 2000, before=larger) == (best, widest)  # so many steps pay for compiling the best one
    eight = dataclasses.replace(source, devices=8)
    assert eight.plan(before=larger) == eight.plan()


def test_widths_pad_as_little_as_their_number_allows():
    lengths = np.array([3, 8, 8, 15, 16, 17, 40])
    assert best_widths(lengths, 40, most=5) == (8, 16, 24, 40)
    assert best_widths(lengths, 40, most=2) == (16, 40)  # 6 texts of 24 tokens or 5 of 16 beside 2 of 40
    assert best_widths(lengths, 41, most=1) == (48,)
    for most in (1, 2, 3):
        chosen = best_widths(lengths, 40, most)
        every = itertools.combinations((8, 16, 24, 32), most - 1)
        assert padded(lengths, chosen) == min(padded(lengths, (*below, 40)) for below in every)


def padded(lengths, widths):
    return sum(widths[place] for place in np.searchsorted(widths, lengths))


def test_a_batch_that_does_not_fit_the_plan_takes_the_layout_that_holds_any(source):
    tight = Layout((16, 32, 48), (6, 0, 0), 4)
    _, widest = source.plan()
    batch = source.batch_at(0, (tight, widest))
    assert [len(group) for group in batch.tokens] == list(widest.texts)
    usual = source.batch_at(0, source.plan())
    assert sorted(filter(None, texts(batch))) == sorted(filter(None, texts(usual)))


def test_without_negatives_the_candidates_are_the_golds(source):
    plain = BatchSource(source.mentions, source.entities, None, 8, 1, 96)
    batch = plain.batch_at(0, plain.plan())
    golds = np.unique(source.mentions.entity_rows_N[plain.mention_rows(0)])
    assert (batch.entity_C != 0).sum() == len(golds)


def test_every_leading_axis_is_divisible_by_the_devices(source):
    eight = BatchSource(source.mentions, source.entities, source.negatives, 8, 1, 96, devices=8)
    for layouts in (eight.plan(), eight.plan()[1:]):
        batch = eight.batch_at(0, layouts)
        assert all(len(leaf) % 8 == 0 for leaf in [*batch.tokens, *batch[1:]])


def test_mentions_whose_gold_the_kb_lacks_are_never_drawn(source):
    golds = source.mentions.entity_rows_N.copy()
    golds[::2] = -1
    half = dataclasses.replace(source, mentions=dataclasses.replace(source.mentions, entity_rows_N=golds))
    drawn = np.concatenate([half.mention_rows(n) for n in range(6)])
    assert len(np.unique(drawn)) == 48 and (drawn % 2 == 1).all()


def test_log_q_by_hand():
    """Of 8 draws of an epoch, entities 0 and 3 are 3 each and 1 and 2 one each; a batch makes 4 draws."""
    rows, golds, negatives = TokenRows.from_rows([[1]] * 5), np.array([0, 0, 1, 2]), np.array([[3], [3], [3], [0]])
    mentions = RowSet(rows.take(np.arange(4)), golds + 1, np.zeros(4), golds)
    entities = RowSet(rows, np.arange(1, 6), np.zeros(5), np.arange(5))
    asked = BatchSource(mentions, entities, Negatives(negatives), 2, 0, 96, log_q=True)
    often, seldom = math.log(1 - (5 / 8) ** 4), math.log(1 - (7 / 8) ** 4)
    log_q_E = np.array([often, seldom, seldom, often])
    for n in range(2):
        columns = asked.entity_rows(asked.mention_rows(n))
        log_q_C = asked.batch_at(n, asked.plan()).log_q_C
        np.testing.assert_allclose(log_q_C[: len(columns)], log_q_E[columns], rtol=1e-6)
        assert not log_q_C[len(columns) :].any()
        assert not dataclasses.replace(asked, log_q=False).batch_at(n, asked.plan()).log_q_C.any()


def only(source, mentions_n):
    """The source with the negatives of these mentions alone."""
    return dataclasses.replace(source, negatives=Negatives(source.negatives.of(mentions_n), mentions_n))


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip([*one.tokens, *one[1:]], [*other.tokens, *other[1:]], strict=True))


def test_negatives_of_the_asked_mentions_alone_give_the_same_batches(source):
    asked_n = source.order.asked(3, 6)
    assert len(asked_n) == 24
    few, layouts = only(source, asked_n), source.plan()
    for n in range(3, 6):
        assert same(few.batch_at(n, layouts), source.batch_at(n, layouts))
        few.batch_at(n, few.plan(3, 6))
    with pytest.raises(KeyError, match="has no negatives"):
        few.batch_at(6, layouts)


def test_where_all_mentions_have_negatives_the_plan_is_that_of_the_first_batches(source):
    every = only(source, np.arange(MENTIONS))
    assert every.plan(3, 6) == source.plan(3, 6) == source.plan()


def test_for_log_q_mentions_with_negatives_stand_for_those_without(source):
    """Golds count as they are; the negatives of every second mention count twice, as if the next had the same."""
    half_n = np.arange(0, MENTIONS, 2)
    few = dataclasses.replace(only(source, half_n), log_q=True)
    doubled = np.repeat(source.negatives.rows_nK[half_n], 2, axis=0)
    whole = dataclasses.replace(source, negatives=Negatives(doubled), log_q=True)
    np.testing.assert_array_equal(few._log_q_E, whole._log_q_E)
    assert not np.array_equal(few._log_q_E, dataclasses.replace(source, log_q=True)._log_q_E)


def test_a_batch_from_disk_is_the_same_and_announces_what_it_needs(source, tmp_path, monkeypatch):
    def mapped(name, row_set):
        np.save(tmp_path / f"{name}.npy", row_set.rows.tokens_T)
        tokens_T = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        return dataclasses.replace(row_set, rows=TokenRows(tokens_T, row_set.rows.offsets_N1))

    announced, announce = [], TokenRows.announce
    monkeypatch.setattr(TokenRows, "announce", lambda rows, ids: announced.append(ids) or announce(rows, ids))
    mentions, entities = mapped("mentions", source.mentions), mapped("entities", source.entities)
    disk = dataclasses.replace(source, mentions=mentions, entities=entities, from_disk=True)
    layouts = source.plan()
    assert same(disk.batch_at(4, layouts), source.batch_at(4, layouts))
    mention_rows = source.mention_rows(4)
    assert [each.tolist() for each in announced] == [mention_rows.tolist(), source.entity_rows(mention_rows).tolist()]


def test_refusals(source):
    with pytest.raises(
        MelError, match="--batch_size=101 is not between 1 and the 100 mentions whose gold is in the KB"
    ):
        BatchSource(source.mentions, source.entities, None, 101, 1, 96)
    with pytest.raises(MelError, match="--batch_size=12 cannot be split over 8 devices"):
        BatchSource(source.mentions, source.entities, None, 12, 1, 96, devices=8)
    with pytest.raises(MelError, match="A chunk of 8 tokens cannot hold one row of 48"):
        BatchSource(source.mentions, source.entities, None, 8, 1, 8).plan()
