"""Ranks that are kept, and the figures made from them, by hand."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import ranks
from mel.types import MelError

FORMS = ("ambiguous", "unseen", "ambiguous", "unambiguous")


def write_report(folder, found, ids="abcd"):
    """A report's predictions of four mentions on two pages; None where the gold is missing."""
    folder.mkdir()
    lines = [
        {
            "id": name, "language": "de", "cluster": f"page {place // 2}", "rank": rank,
            "groups": {ranks.IN_TRAINING: form, ranks.LINKED: "linked"},
        }
        for place, (name, rank, form) in enumerate(zip(ids, found, FORMS, strict=True))
    ]  # fmt: skip
    (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


@pytest.fixture
def kept(tmp_path):
    file = tmp_path / "kept" / "ranks.npz"
    ranks.keep(file, {"one": write_report(tmp_path / "1", (0, None, 9, 0))})
    ranks.keep(file, {"two": write_report(tmp_path / "2", (0, 99, 0, 0))})
    return file


def test_what_is_kept_is_read_again(kept):
    found = ranks.read(kept)
    assert {name: rank_Q.tolist() for name, rank_Q in found.ranks.items()} == {
        "one": [1, 0, 10, 1],
        "two": [1, 100, 1, 1],
    }
    assert found.columns["page"].tolist() == ["page 0", "page 0", "page 1", "page 1"]
    assert tuple(found.columns["form"]) == FORMS


def test_hits_and_means_by_hand(kept):
    found = ranks.read(kept)
    assert [found.hits("one", depth).mean() for depth in (1, 10, 100)] == [0.5, 0.75, 0.75]
    assert found.mean(found.hits("two"), "form", "ambiguous")[0] == 1.0
    mean, (low, high) = found.mean(found.hits("two") - found.hits("one"))
    assert mean == 0.25 and low == 0.0 and high == 0.5  # the first page gains nothing, the second a half


def test_a_row_of_the_table(kept):
    header, _, one, two = ranks.figures(ranks.read(kept), ["one", "two"], ["one"])
    assert header == "| system | R@1 | R@1 ambiguous | R@1 unseen | R@10 | R@100 | R@1 minus one |"
    assert one == "| one | 0.500 [0.500, 0.500] | 0.500 | 0.000 | 0.750 | 0.750 | – |"
    assert two.endswith("| 1.000 | 0.000 | 0.750 | 1.000 | +0.2500 [+0.0000, +0.5000] |")


def test_rounds_stand_last_in_order_each_beside_the_one_before(kept):
    found = ranks.read(kept)
    named = {"a-round-0": found.ranks["one"], "b": found.ranks["one"], "a-round-1": found.ranks["two"]}
    found = ranks.Ranks(found.mentions, found.columns, named)
    assert ranks.in_order(found) == ["b", "a-round-0", "a-round-1"]
    as_kept = {f"{layers}-layers-round-{number}": None for layers in (2, 12) for number in (0, 1)}
    assert ranks.in_order(dataclasses.replace(found, ranks=as_kept)) == list(as_kept)
    header, _, *rows = ranks.figures(found, ranks.in_order(found))
    assert header.endswith("| R@100 | R@1 minus the round before |")
    assert [row.rsplit("|", 2)[1].strip() for row in rows] == ["–", "–", "+0.2500 [+0.0000, +0.5000]"]


@pytest.mark.parametrize(
    "system, before", [("round-1", "round-0"), ("x-round-10", "x-round-9"), ("round-0", ""), ("of-10", ""), ("b", "")]
)
def test_the_round_before(system, before):
    assert ranks.round_before(system) == before


def test_other_mentions_are_refused(kept, tmp_path):
    with pytest.raises(MelError, match="is of other mentions than"):
        ranks.keep(kept, {"three": write_report(tmp_path / "3", (0, 0, 0, 0), "abce")})


def test_what_is_no_report_is_named(tmp_path):
    with pytest.raises(MelError, match="is no report"):
        ranks.read_report(tmp_path)


def test_the_table_of_the_pretrained_encoder_is_that_of_its_ranks():
    folder = ranks.pathlib.Path(ranks.__file__).parent / "mdn_pretrained"
    found = ranks.read(folder / "ranks.npz")
    page = (folder / "README.md").read_text("utf-8")
    for line in ranks.figures(found, ranks.in_order(found), ["alias_table", "string-similarity"]):
        assert line in page
    assert np.unique(found.columns["page"]).size == 693
