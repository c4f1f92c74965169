"""OLPEAT over an encoder of random weights: equal strings have equal embeddings."""

import numpy as np
import pytest

from mel.artifacts import START
from mel.corpora.alias_table import AliasTable
from mel.systems import olpeat
from mel.systems.trained import open_trained
from mel.text.tokenizer import Tokenizer
from tests.evaluation.hand_made import mentions_of


@pytest.fixture(scope="module")
def system(untrained):
    return (
        open_trained(untrained, START).encoder,
        Tokenizer.load(untrained.tokenizer),
        AliasTable.read(untrained.alias_table),
    )


def mentions(*surface_forms):
    return mentions_of([1] * len(surface_forms), surface_form=list(surface_forms))


def test_a_surface_form_that_is_an_alias_is_answered_as_by_the_table(system):
    _, _, table = system
    form = next(form for form in table.surface_forms() if len(table.candidates(form)) > 1)
    ranking = olpeat.rank_by_olpeat(*system, mentions(form))
    by_table = [qid for qid, _ in table.candidates(form)]
    assert ranking.entities_QK[0, : len(by_table)].tolist() == by_table
    np.testing.assert_allclose(ranking.scores_QK[0, : len(by_table)], 1, atol=1e-5)


def test_the_entities_of_the_nearest_aliases_in_order(system):
    encoder, tokenizer, table = system
    ranking = olpeat.rank_by_olpeat(*system, mentions("never seen"))
    aliases = table.surface_forms()
    rows = [olpeat._rows(tokenizer, strings) for strings in (aliases, ["never seen"])]
    embeddings_ND, queries_QD = (encoder.embed(each) for each in rows)
    cosine = dict(zip(aliases, embeddings_ND @ queries_QD[0]))
    best: dict[int, float] = {}
    for alias in aliases:
        for qid, _ in table.candidates(alias):
            best[qid] = max(best.get(qid, -1.0), cosine[alias])
    found = ranking.entities_QK[0][ranking.entities_QK[0] > 0]
    assert len(found) == len(set(found.tolist())) > 1
    np.testing.assert_allclose(ranking.scores_QK[0, : len(found)], [best[qid] for qid in found.tolist()], atol=1e-5)
    assert (np.diff(ranking.scores_QK[0, : len(found)]) <= 0).all()


def test_equal_surface_forms_have_equal_answers_wherever_they_stand(system):
    ranking = olpeat.rank_by_olpeat(*system, mentions("b", "a", "b"))
    np.testing.assert_array_equal(ranking.entities_QK[0], ranking.entities_QK[2])
    np.testing.assert_array_equal(ranking.entities_QK[1], olpeat.rank_by_olpeat(*system, mentions("a")).entities_QK[0])
