"""The soak itself: short of it in the tests, and two minutes of it where slow tests are asked for."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys

import pytest

from experiments.soak import killed_preparation
from experiments.soak.faults import cut, flip
from experiments.soak.loop import kind_of
from experiments.soak.processes import Process
from experiments.soak.run import matrix
from experiments.soak.soak import Event

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_units_are_told_from_drafts_and_by_the_file_that_they_are(tmp_path):
    for name in ("one", ".draft-two"):
        (tmp_path / "units" / "es" / name).mkdir(parents=True)
        (tmp_path / "units" / "es" / name / "manifest.json").write_text('{"digest": "0"}')
    before = killed_preparation.units(tmp_path)
    assert list(before) == ["units/es/one"] and len(killed_preparation.drafts(tmp_path)) == 1
    (tmp_path / "again.json").write_text('{"digest": "0"}')
    (tmp_path / "again.json").rename(tmp_path / "units" / "es" / "one" / "manifest.json")
    after = killed_preparation.units(tmp_path)
    assert killed_preparation.made_anew(before, before, all_published=False) == set()
    assert killed_preparation.made_anew(before, after, all_published=True) == {"units/es/one"}
    assert killed_preparation.made_anew(before, {}, all_published=False) == {"units/es/one"}
    assert killed_preparation.made_anew(before, {}, all_published=True) == set()


def test_the_workers_of_a_command_are_not_what_python_starts_beside_them(tmp_path):
    script = """
import multiprocessing, time
multiprocessing.set_start_method("spawn")
if __name__ == "__main__":
    worker = multiprocessing.Process(target=time.sleep, args=(60,))
    worker.start()
    print(worker.pid, flush=True)
    worker.join()
"""
    (tmp_path / "command.py").write_text(script)
    command = [sys.executable, str(tmp_path / "command.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as started:
        worker = int(started.stdout.readline())
        assert Process(started.pid, tmp_path / "log").workers() == [worker]
        os.killpg(started.pid, signal.SIGKILL)


def soak(folder, *flags):
    command = [sys.executable, "-m", "experiments.soak.run", f"--folder={folder}", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_one_loop_with_faults_ends_as_one_without(tmp_path):
    found = soak(tmp_path, "--faults=1", "--seed=3")
    assert found["problems"] == [] and found["loops"] == 1 and found["faults"] == len(found["events"]) >= 4
    assert all(event["outcome"] for event in found["events"])
    assert len(soak(tmp_path, "--faults=1", "--seed=3")["events"]) == found["faults"]  # it was done


@pytest.mark.slow
def test_two_minutes_of_faults_break_no_promise(tmp_path):
    found = soak(tmp_path, "--faults=1000", "--seconds=120", "--seed=4")
    assert found["problems"] == [] and found["faults"] >= 10


def test_a_fault_is_drawn_from_the_seed_and_damages_one_bit_or_the_end(tmp_path):
    content = bytes(range(256))
    (tmp_path / "file").write_bytes(content)
    flip(tmp_path / "file", random.Random(1))
    flipped = (tmp_path / "file").read_bytes()
    assert sum((a ^ b).bit_count() for a, b in zip(content, flipped, strict=True)) == 1
    cut(tmp_path / "file", random.Random(1))
    left = (tmp_path / "file").read_bytes()
    assert len(left) < 256 and flipped.startswith(left)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("kb/entities.jsonl", "kb"),
        ("kb/manifest.json", "manifest"),
        ("tokens/tokenizer/vocab.txt", "tokenizer"),
        ("tokens/entities/rows.array_record", "tokens"),
        ("cache/entities-0123/tokens.npy", "row cache"),
        ("rounds/0/checkpoint/params/d/1", "checkpoint"),
        ("rounds/0/training/checkpoints/4/state/d/1", "step checkpoint"),
        ("rounds/0/training/settings.json", "settings.json"),
        ("links.jsonl", "links.jsonl"),
        ("cost.jsonl", None),
        ("rounds/0/training/tensorboard/events", None),
        ("tokens/.draft-entities/rows", None),
    ],
)
def test_a_file_belongs_to_a_kind(name, kind):
    assert kind_of(name) == kind


def test_the_matrix_counts_outcomes_by_stage_and_fault():
    events = [Event(0, "mine", "kill", "killed"), Event(1, "mine", "kill", "done"), Event(1, "mine", "kill", "killed")]
    events.append(Event(1, "train", "flipped bit: kb", "refused by train"))
    assert matrix(events).splitlines()[2:] == [
        "| mine | kill | 2 killed, 1 done |",
        "| train | flipped bit | 1 refused by train |",
    ]
