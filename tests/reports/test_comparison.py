"""Reports side by side: one table, differences by hand, refusals."""

import numpy as np
import pytest

from mel.evaluation.breakdowns import IN_TRAINING
from mel.reports import comparison
from mel.reports.report import publish_report
from mel.types import MelError
from tests.evaluation.hand_made import evaluation, report_of

RIGHT = ((1, 2, 3), (1, 2, 0), (3, 2, 1))  # the second mention is found too


def cells(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]


def publish(folder, name, evaluated=None, **changes):
    evaluated = evaluated or evaluation()
    publish_report(folder / name, report_of(evaluated, name=name, **changes), evaluated)
    return folder / name


def outcomes(path):
    return comparison.read_compared(path).outcomes


def compare(*paths):
    return comparison.compare([comparison.read_compared(path) for path in paths])


def test_outcomes_are_the_same_before_and_after_publishing(tmp_path):
    turned = evaluation(RIGHT[::-1], (9, 1, 1), mention_id=["m2", "m1", "m0"])
    read, made = outcomes(publish(tmp_path, "turned", turned)), comparison.outcomes_of(turned)
    np.testing.assert_array_equal(read.gold_rank_Q, made.gold_rank_Q)
    assert read._replace(gold_rank_Q=0) == made._replace(gold_rank_Q=0)
    assert [name for name, _ in made.mentions] == ["m0", "m1", "m2"]


def test_the_comparison_begins_with_the_alias_table():
    reports = [report_of(evaluation(), name=name) for name in ("round-0", "round-1")]
    reports.append(report_of(evaluation(), name="aliases", model="alias_table"))
    rows = cells(comparison.comparison_table(reports))
    assert [row[0] for row in rows] == ["system", "---", "aliases", "round-0", "round-1"]
    figures = ["0.333 [0.000, 0.500]", "0.500 [0.500, 0.500]", "0.000 [0.000, 0.000]", "0.667", "0.667", "0.500"]
    assert rows[2][1:] == figures


def test_a_table_cell_cannot_break_out():
    assert "a\\|b" in comparison.comparison_table([report_of(evaluation(), name="a|b")])


def test_a_system_without_a_group_shows_a_dash():
    report = report_of(evaluation())
    del report["breakdowns"][IN_TRAINING]["unseen"]
    assert cells(comparison.comparison_table([report]))[2][3] == "–"


def test_published_systems_come_last_and_are_marked():
    languages = "ar de en es fa ja sr ta tr".split()
    evaluated = evaluation([[1]] * 9, [1] * 9, ["unseen"] * 9, language=languages, document=languages)
    report = report_of(evaluated, dataset="Mewsli-9")
    text = comparison.comparison_table([report])
    rows = {row[0]: row[1:] for row in cells(text)}
    assert rows["bi-encoder, after the thesis (published)"] == ["0.885", "–", "–", "0.937", "0.950", "–"]
    assert rows["Model F+ (published, unverified)"][0] == "0.890"
    assert "- Model F+: Entity Linking in 100 Languages (arXiv 2011.02690, 2020). Quoted from memory" in text
    assert "published" not in comparison.comparison_table([report, report_of(evaluation())])


def test_the_paired_difference_by_hand(tmp_path):
    first, second = publish(tmp_path, "first"), publish(tmp_path, "second", evaluation(RIGHT))
    found = comparison.paired_differences(*map(outcomes, (first, second)))
    # Only the mention of d1 is gained: two draws of (d0: 0 of 2, d1: 1 of 1) give 0/4, 1/3 or 2/2.
    assert found["all"]["all"] == (3, pytest.approx(1 / 3), (0, 1))
    assert found["language"] == {"ar": (1, 1, (1, 1)), "de": (2, 0, (0, 0))}
    assert found[IN_TRAINING] == {"ambiguous": (2, 0, (0, 0)), "unseen": (1, 1, (1, 1))}
    lost = comparison.paired_differences(*map(outcomes, (second, first)))
    assert lost["all"]["all"] == (3, pytest.approx(-1 / 3), (-1, 0))


def test_a_pair_is_surer_than_two_figures_apart():
    rng = np.random.default_rng(7)
    first_hits = (rng.random((80, 5)) < rng.random((80, 1))).ravel()
    second_hits = first_hits | (rng.random(400) < 0.1)
    documents = [f"d{number}" for number in np.repeat(np.arange(80), 5)]
    outcomes = [
        comparison.Outcomes([], documents, {"all": ["all"] * 400}, np.where(hits, 0, -1))
        for hits in (first_hits, second_hits, np.zeros(400, bool))
    ]
    _, gain, (low, high) = comparison.paired_differences(outcomes[0], outcomes[1])["all"]["all"]
    alone = comparison.paired_differences(outcomes[2], outcomes[1])["all"]["all"].interval
    assert 0 < low < gain < high and high - low < 0.5 * (alone[1] - alone[0])


def test_compare_shows_differences_to_the_alias_table_in_every_group(tmp_path):
    paths = [publish(tmp_path, "round-0", evaluation(RIGHT)), publish(tmp_path, "aliases", model="alias_table")]
    overall, by_group = compare(*paths).split("\n\n")
    header, _, aliases, round_0 = cells(overall)
    assert header[-1] == "R@1 minus aliases"
    assert (aliases[0], aliases[-1]) == ("aliases", "–")
    assert (round_0[0], round_0[-1]) == ("round-0", "+0.333 [+0.000, +1.000]")
    assert cells(by_group) == [
        ["R@1 minus aliases", "mentions", "round-0"], ["---", "---:", "---:"],
        ["language: ar", "1", "+1.000 [+1.000, +1.000]"], ["language: de", "2", "+0.000 [+0.000, +0.000]"],
        ["surface form in training: ambiguous", "2", "+0.000 [+0.000, +0.000]"],
        ["surface form in training: unseen", "1", "+1.000 [+1.000, +1.000]"],
    ]  # fmt: skip


def test_a_report_named_twice_is_shown_once_and_one_alone_has_no_difference(tmp_path):
    path = publish(tmp_path, "only")
    rows = cells(compare(path, path))
    assert len(rows) == 3 and rows[0][-1] == "MRR"


def test_the_order_of_the_mentions_does_not_matter(tmp_path):
    turned = evaluation(RIGHT[::-1], (9, 1, 1), mention_id=["m2", "m1", "m0"])
    paths = [publish(tmp_path, "first"), publish(tmp_path, "second", turned)]
    assert "+0.333 [+0.000, +1.000]" in compare(*paths)


@pytest.mark.parametrize(
    "other",
    [
        {"mention_id": ["m0", "m1", "m3"]},
        {"golds": (1, 1, 8)},
        {"entities": RIGHT[:1], "golds": [1], "in_training": ["unseen"], "document": ["d0"], "language": ["de"]},
    ],
    ids=["other mentions", "other golds", "fewer"],
)
def test_other_mentions_are_refused(tmp_path, other):
    paths = [publish(tmp_path, "first"), publish(tmp_path, "second", evaluation(**other))]
    with pytest.raises(MelError, match=r"'first' \(3 mentions\) and 'second' \(\d\) are not about the same mentions"):
        compare(*paths)


def test_a_report_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(MelError, match="There is no report at .*nobody"):
        compare(publish(tmp_path, "first"), tmp_path / "nobody")
