"""What the transfer study says of sources and targets, by hand."""

import numpy as np
import pytest

from experiments.mdn_pretrained.transfer import effects, similarity
from experiments.ranks import Ranks, ranks_of
from mel.evaluation.ranking import Ranking
from mel.types import NIL

SOURCE = {"en": 0.1, "ru": 0.3}  # of which a source is good
TARGET = {"de": 0.0, "en": 0.2, "es": 0.1, "ru": 0.4, "uk": 0.2}
OWN, SCRIPT = 0.25, 0.125


def kept_of(hits, languages):
    """Ranks of runs whose hits are given, on two pages a language that hold the same."""
    count = len(languages)
    columns = {"language": np.array(languages), "page": np.array([f"page {place % 2}" for place in range(count)])}
    ranked = {f"{name}, seed {seed}": np.where(hits_Q, 1, 0).astype(np.uint8) for (name, seed), hits_Q in hits.items()}
    return Ranks("", columns, ranked)


def test_effects_are_told_from_how_good_sources_and_targets_are():
    languages = [language for language in TARGET for _ in range(4)]
    hits = {}
    for source, worth in SOURCE.items():
        common = [effects.in_common(source, target) for target in languages]
        hits[source] = np.array([
            worth + TARGET[target] + {None: 0.0, 0: OWN, 1: 0.5, 2: SCRIPT}[what]
            for target, what in zip(languages, common, strict=True)
        ])  # fmt: skip
    found = effects.effects(kept_of({}, languages), hits, np.ones(len(languages), bool))
    (own, own_bounds), (family, _), (script, script_bounds) = found
    assert (own, script) == (pytest.approx(OWN), pytest.approx(SCRIPT)) and own_bounds == pytest.approx((OWN, OWN))
    assert script_bounds == pytest.approx((SCRIPT, SCRIPT)) and family == pytest.approx(0)  # no pair is of one family


@pytest.mark.parametrize(
    "source, target, common", [("es", "es", 0), ("es", "pt", 1), ("es", "en", 2), ("ru", "en", None), ("ja", "zh", 2)]
)
def test_what_two_languages_have_in_common(source, target, common):
    assert effects.in_common(source, target) == common


def test_hits_are_means_over_seeds():
    runs = {("es", 0): np.array([1, 0]), ("es", 1): np.array([1, 1]), ("all", 0): np.array([0, 0])}
    kept = kept_of(runs, ["es", "en"])
    assert {name: hits_Q.tolist() for name, hits_Q in effects.by_source(kept).items()} == {
        "es": [1.0, 0.5],
        "all": [0.0, 0.0],
    }
    header, _, row, _ = effects.matrix(kept, effects.by_source(kept))
    assert (header, row) == ("| trained on | en | es | the others |", "| es | 0.500 | **1.000** | 0.500 |")


def test_a_source_is_compared_on_other_languages_by_whether_it_links_the_gold():
    kept = kept_of({("es", 0): np.array([1, 1, 0, 0])}, ["es", "en", "en", "en"])
    kept = Ranks("", {**kept.columns, effects.SOURCES: np.array(["", "en es", "es", "en"])}, kept.ranks)
    rows = effects.against(kept, effects.by_source(kept), [])
    assert rows[2] == "| es | 3 | 0.333 [0.000, 0.500] |"
    assert rows[3] == "| es, gold linked | 2 | 0.500 [0.000, 1.000] |"
    assert rows[4] == "| es, gold not linked | 1 | 0.000 [0.000, 0.000] |"


def test_a_source_is_compared_with_the_string_similarity_that_knows_its_links():
    kept = kept_of({("es", 0): np.array([1, 1, 0, 0])}, ["es", "en", "en", "en"])
    own = {f"{similarity.PREFIX}es": np.array([0, 0, 1, 0], np.uint8)}
    kept = Ranks("", {**kept.columns, effects.SOURCES: np.array(["es"] * 4)}, {**kept.ranks, **own})
    header, _, row, *_ = effects.against(kept, effects.by_source(kept), [])
    assert header.endswith("| R@1 | minus string-similarity, links of the source |")
    assert row == "| es | 3 | 0.333 [0.000, 0.500] | +0.0000 [-1.0000, +0.5000] |"


def test_ranks_count_from_one_and_are_nought_where_the_gold_is_missing():
    ranking = Ranking(np.array([[5, 7, NIL], [7, 5, 9], [5, NIL, NIL]]), np.zeros((3, 3), np.float32))
    assert ranks_of(ranking, np.array([5, 9, 7])).tolist() == [1, 3, 0]
