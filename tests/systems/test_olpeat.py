"""OLPEAT over an encoder of random weights: equal strings have equal embeddings."""

from collections import Counter

import numpy as np
import pytest

from mel.artifacts import START
from mel.corpora import alias_table
from mel.corpora.alias_table import AliasTable, Counts
from mel.systems import olpeat
from mel.systems.trained import open_trained
from mel.text.tokenizer import Tokenizer
from tests.evaluation.hand_made import kb_of, mentions_of


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
    ranking = olpeat.rank_by_linked_aliases(*system, mentions(form))
    by_table = [qid for qid, _ in table.candidates(form)]
    assert ranking.entities_QK[0, : len(by_table)].tolist() == by_table
    np.testing.assert_allclose(ranking.scores_QK[0, : len(by_table)], 1, atol=1e-5)


def test_the_entities_of_the_nearest_aliases_in_order(system):
    encoder, tokenizer, table = system
    ranking = olpeat.rank_by_linked_aliases(*system, mentions("never seen"))
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
    ranking = olpeat.rank_by_linked_aliases(*system, mentions("b", "a", "b"))
    np.testing.assert_array_equal(ranking.entities_QK[0], ranking.entities_QK[2])
    np.testing.assert_array_equal(
        ranking.entities_QK[1], olpeat.rank_by_linked_aliases(*system, mentions("a")).entities_QK[0]
    )


class Angles:
    """An encoder and its tokenizer in which a string is a number, and near another if the numbers are near."""

    def rows(self, marked, max_tokens):
        return [np.array([int(each.text)]) for each in marked]

    def embed(self, rows, what):
        angles_N = rows.tokens_T / 1000
        return np.stack([np.cos(angles_N), np.sin(angles_N)], axis=1).astype(np.float32)


def table_of(folder, links, names=()):
    """A table of links (string, language, entity number, count) and of names without a count."""
    counts = Counter({(string, language, f"Q{entity}"): count for string, language, entity, count in links})
    named = Counter((string, language, f"Q{entity}") for string, language, entity in names)
    alias_table.write(folder, Counts(counts, Counter(), named), {f"Q{number}": number for number in range(1, 200)})
    return AliasTable.read(folder)


def answers(rank, table, form, language):
    asked = mentions_of([1], surface_form=[form], language=[language])
    found = rank(Angles(), Angles(), table, asked).entities_QK[0]
    return found[found > 0].tolist()


def test_the_aliases_of_the_language_alone_with_titles_and_labels_among_them(tmp_path):
    links = [("10", "en", 1, 3), ("10", "en", 2, 5), ("10", "de", 3, 9), ("40", "en", 4, 1), ("20", "de", 4, 1)]
    table = table_of(tmp_path, links, [("10", "en", 5), ("10", "en", 2), ("30", "en", 6), ("15", "de", 7)])
    table.add_titles(kb_of((8, "en", "20"), (9, "de", "20"), linked=9))
    assert answers(olpeat.rank_by_olpeat, table, "10", "en") == [2, 1, 5, 8, 6, 4]
    assert answers(olpeat.rank_by_olpeat, table, "10", "de") == [3, 7, 4, 9]
    assert answers(olpeat.rank_by_olpeat, table, "10", "ja") == []
    assert answers(olpeat.rank_by_linked_aliases, table, "10", "en") == [3, 2, 1, 4]


def test_it_reads_on_until_there_are_enough_entities(tmp_path):
    links = [(str(number), "en", 1, 1) for number in range(150)] + [("900", "en", 2, 1), ("950", "en", 3, 1)]
    table = table_of(tmp_path, links)
    assert answers(olpeat.rank_by_olpeat, table, "0", "en") == [1, 2, 3]
    assert answers(olpeat.rank_by_linked_aliases, table, "0", "en") == [1]  # so are the 100 nearest


def test_each_mention_is_answered_in_its_language_wherever_it_stands(tmp_path):
    table = table_of(tmp_path, [("1", "en", 1, 1), ("1", "de", 2, 1), ("5", "de", 3, 1)])
    asked = mentions_of([1, 1, 1], surface_form=["1", "1", "5"], language=["de", "en", "de"])
    ranking = olpeat.rank_by_olpeat(Angles(), Angles(), table, asked)
    assert ranking.entities_QK[:, :3].tolist() == [[2, 3, 0], [1, 0, 0], [3, 2, 0]]
    np.testing.assert_allclose(ranking.scores_QK[0, :2], [1, np.cos(0.004)], rtol=1e-6)
