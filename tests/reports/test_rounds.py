"""The best round and the results of one, by hand."""

import pytest

from mel.artifacts import Workdir, open_artifact, publish
from mel.reports.report import publish_report
from mel.reports.rounds import best_round, results
from mel.types import MelError
from tests.evaluation.hand_made import evaluation, report_of


@pytest.fixture
def work(tmp_path) -> Workdir:
    """Three rounds with a checkpoint each."""
    work = Workdir(tmp_path)
    for number in range(3):
        with publish(work.round(number).checkpoint, "checkpoint") as draft:
            draft.facts = {"round": number}
    return work


def checkpoint(work, number):
    return open_artifact(work.round(number).checkpoint, "checkpoint")


def add(work, name, number, right, **changes):
    """A report of a round that answers so many of three mentions right."""
    golds = [(1, 1, 1), (1, 2, 1), (1, 2, 3)][right - 1]
    evaluated = evaluation(entities=((1, 2, 3), (2, 1, 0), (3, 2, 1)), golds=golds)
    inputs = {} if number is None else {"checkpoint": checkpoint(work, number).digest}
    about = {"name": name, "round": number, "split": "held_out", "inputs": inputs | {"mentions": "aa"}} | changes
    report = report_of(evaluated, **about)
    publish_report(work.report(name), report, evaluated)


def test_the_best_round_has_the_highest_r_at_1_and_is_the_first_of_equals(work):
    for number, right in enumerate((1, 3, 3)):
        add(work, f"round-{number}", number, right)
    assert best_round(work) == 1


@pytest.mark.parametrize("changes", [{"split": "mewsli"}, {"model": "fusion"}, {"limit": 5}, {"context_weight": 0.2}])
def test_what_is_no_report_of_a_round_alone_on_the_held_out_split_does_not_count(work, changes):
    add(work, "round-0", 0, 1)
    add(work, "other", 2, 3, **changes)
    assert best_round(work) == 0


def test_a_report_of_a_checkpoint_that_is_no_more_does_not_count(work):
    add(work, "gone", 0, 3, inputs={"checkpoint": "of another run", "mentions": "aa"})
    with pytest.raises(
        MelError, match="--round=best needs reports of the held-out split, .* --split=held_out --round=K"
    ):
        best_round(work)


def test_the_results_of_a_checkpoint_stand_beside_what_needs_none(work):
    add(work, "alias_table", None, 1, model="alias_table")
    add(work, "round-1", 1, 2)
    add(work, "round-2", 2, 3)
    add(work, "elsewhere", None, 1, model="alias_table", split="mewsli", inputs={"mentions": "bb"})
    shown = results(work, checkpoint(work, 1))
    assert [line.split(" | ")[0] for line in shown.splitlines() if line.startswith("| ")][2:] == [
        "| alias_table", "| round-1",
    ]  # fmt: skip
    assert shown.startswith("held_out, 3 mentions:") and results(work, checkpoint(work, 0)) == ""
