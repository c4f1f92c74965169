"""Two commands in one working directory, and one that is told to end: nothing wrong is published, nobody is left."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mel.artifacts import START, Workdir, read_manifest
from mel.verification import verify
from tests.crash import standing_at

ROOT = pathlib.Path(__file__).resolve().parents[1]
SECONDS = 600  # only a fault takes so long, however busy the machine is
REFUSED = re.compile(
    r"is being written by process \d+ on .* wait until that is done|run the same command again to use it"
)


def start(binary, *arguments):
    command = [sys.executable, "-m", f"mel.bin.{binary}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def preparing(tiny_world, workdir, **flags):
    places = {"damuel": tiny_world / "damuel", "mewsli": tiny_world / "mewsli", "tokenizer": tiny_world / "tokenizer"}
    flags = places | {"languages": "en,ru,ar", "mention_tokens": 32, "workdir": workdir} | flags
    return "prepare_data", *(f"--{name}={value}" for name, value in flags.items())


def mining(workdir):
    return "mine_negatives", f"--workdir={workdir}", "--round=-1", "--negatives_per_mention=2", "--pool=4"


def training(workdir):
    flags = {"encoder": "random:1x32x2", "steps_per_round": 2, "batch_size": 8, "rounds": 1, "round": 0}
    return "train", f"--workdir={workdir}", *(f"--{name}={value}" for name, value in flags.items())


def digests(work):
    return {finding.path: finding.digest for finding in verify(work.path)}


def two_at_once(command):
    """Runs it twice, and once more for whoever was refused: what a user does who reads the message."""
    pair = [start(*command) for _ in range(2)]
    said = [process.communicate(timeout=SECONDS)[1] for process in pair]
    for process, log in zip(pair, said, strict=True):
        assert process.returncode == 0 or REFUSED.search(log.splitlines()[-1]), log
        assert "Traceback" not in log
    assert any(process.returncode == 0 for process in pair)
    last = start(*command)
    log = last.communicate(timeout=SECONDS)[1]
    assert last.returncode == 0, log


def test_two_that_prepare_publish_what_one_publishes(untrained, tiny_world, tmp_path):
    two_at_once(preparing(tiny_world, tmp_path, workers=2))
    assert not [finding for finding in verify(tmp_path) if finding.amiss]
    alone = digests(untrained)
    assert digests(Workdir(tmp_path)) == {
        name: alone[name] for name in alone if not name.startswith(("rounds", "cache"))
    }
    assert not [path for path in tmp_path.rglob(".*") if path.name.startswith((".draft-", ".lock-"))]


def test_two_that_mine_publish_sound_embeddings_and_negatives(untrained, tmp_path):
    work = Workdir(shutil.copytree(untrained.path, tmp_path / "run"))
    two_at_once(mining(work.path))
    assert not [finding for finding in verify(work.path) if finding.amiss]
    assert read_manifest(work.round(0).negatives, "negatives")
    assert not [path for path in work.path.rglob(".*") if path.name.startswith((".draft-", ".lock-"))]


def test_two_that_train_share_the_encoder_before_training_and_one_trains(untrained, tmp_path):
    work = Workdir(shutil.copytree(untrained.path, tmp_path / "run"))
    shutil.rmtree(work.path / "rounds")
    two_at_once(training(work.path))
    assert not [finding for finding in verify(work.path) if finding.amiss]
    assert read_manifest(work.round(0).checkpoint, "checkpoint")
    assert not [path for path in work.path.rglob(".*") if path.name.startswith((".draft-", ".lock-"))]


def wait_until(condition):
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def children(pid):
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            found += [int(status.parent.name)] if int(parent) == pid and state != "Z" else []
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_preparing_that_ends_by_a_signal_leaves_no_process_and_no_draft_for_long(tiny_world, tmp_path, number):
    binary, *flags = preparing(tiny_world, tmp_path, workers=3)
    with standing_at("open", "units/en/part-00000", binary, flags) as process:
        workers = children(process.pid)
        assert len(workers) == 4  # one is the tracker of resources
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        log = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in workers))
    if number == signal.SIGTERM:
        assert log.splitlines()[-1].endswith("ended by SIGTERM; the same command goes on from whatever is saved.")
        assert not (tmp_path / ".draft-kb").exists()
    again = start(binary, *flags)
    log = again.communicate(timeout=SECONDS)[1]
    assert again.returncode == 0, log
    assert not [path for path in tmp_path.rglob(".*") if path.name.startswith((".draft-", ".lock-"))]
    assert not [finding for finding in verify(tmp_path) if finding.amiss]


def test_mining_that_is_told_to_end_ends_and_goes_on(untrained, tmp_path):
    work = Workdir(shutil.copytree(untrained.path, tmp_path / "run"))
    binary, *flags = mining(work.path)
    with standing_at("os.mkdir", str(work.round(START).path / "embeddings"), binary, flags) as process:
        process.terminate()
        process.send_signal(signal.SIGCONT)
        log = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 143
    assert log.splitlines()[-1].endswith("ended by SIGTERM; the same command goes on from whatever is saved.")
    assert "Traceback" not in log
    again = start(binary, *flags)
    log = again.communicate(timeout=SECONDS)[1]
    assert again.returncode == 0, log
    assert not [finding for finding in verify(work.path) if finding.amiss]
