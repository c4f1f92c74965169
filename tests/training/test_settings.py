"""What may change from round to round, and that doing literally what a refusal says helps."""

import dataclasses
import json
import pathlib
import re
import shutil

import pytest

from mel.artifacts import Workdir, exists, open_artifact
from mel.bin import mine_negatives, run_rounds, train
from mel.training.state import OptimizerConfig
from mel.types import MelError

TOO_HIGH = 1e30


@pytest.fixture
def run(prepared, tmp_path):
    """Runs rounds of two steps in a working directory of the test's own."""
    workdir = str(shutil.copytree(prepared, tmp_path / "run"))

    def run(rounds, learning_rate=1e-2, **optimizer):
        config = run_rounds.Config(
            workdir=workdir,
            evaluate_on="held_out",
            train=train.Config(
                workdir=workdir, rounds=rounds, steps_per_round=2, batch_size=8, encoder="random:1x16x2", save_every=1,
                optimizer=OptimizerConfig(learning_rate, **optimizer),
            ),
            mine=mine_negatives.Config(workdir=workdir, negatives_per_mention=2, pool=4, index="exact"),
        )  # fmt: skip
        for number in range(rounds):  # as mel-run-rounds does, without its reports
            if number:
                run_rounds._mine(config, number)
            train.main(dataclasses.replace(config.train, round=number))
        return Workdir(workdir)

    return run


def delete_as_told(said, folder):
    """Deletes what a message says has to be."""
    paths = re.search(r"delete (/\S+(?: and /\S+)*)", said)[1].split(" and ")
    for path in paths:
        assert path.startswith(f"{folder}/run/")
        shutil.rmtree(path)
    return [pathlib.Path(path).name for path in paths]


def learning_rates(work):
    paths = [work.round(number).checkpoint for number in work.rounds() if exists(work.round(number).checkpoint)]
    return [open_artifact(path, "checkpoint").facts["settings"]["learning_rate"] for path in paths]


def test_after_a_loss_that_is_not_finite_a_lower_learning_rate_goes_on_from_the_round_before(run, tmp_path, caplog):
    first = open_artifact(run(1).round(0).checkpoint, "checkpoint").digest
    with pytest.raises(MelError, match="The loss is nan at step 4; the last good checkpoint is of step 3") as told:
        run(2, TOO_HIGH)
    assert delete_as_told(str(told.value), tmp_path) == ["training"]
    with caplog.at_level("WARNING", logger="absl"):
        work = run(2, 1e-3)
    assert "Round 0 was trained with --learning_rate=0.01; 0.001 is for later ones." in caplog.text
    assert learning_rates(work) == [1e-2, 1e-3]
    assert open_artifact(work.round(0).checkpoint, "checkpoint").digest == first
    lines = (work.round(1).training / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 4]
    run(2, 1e-3)  # and the same command finds all done


def test_the_last_round_has_to_have_the_learning_rate_that_is_asked_for(run):
    run(1)
    with pytest.raises(MelError, match="rounds/0/checkpoint was made with --learning_rate=0.01, not 0.001"):
        run(1, 1e-3)


@pytest.mark.slow
def test_rounds_can_be_added_where_the_learning_rate_is_constant(run):
    run(1)
    assert learning_rates(run(2)) == [1e-2, 1e-2]


def test_where_the_schedule_spans_all_rounds_the_refusal_says_what_can_be_done(run, tmp_path):
    run(1, schedule="linear")
    with pytest.raises(MelError, match=r"made with --rounds=1, not 2: --schedule=linear spans all rounds") as told:
        run(2, schedule="linear")
    assert delete_as_told(str(told.value), tmp_path) == ["rounds"]
    assert learning_rates(run(2, schedule="linear")) == [1e-2, 1e-2]
