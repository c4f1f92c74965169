"""Asked to end, a round saves the step it has come to, and the same command ends as if nothing had been."""

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import types

import pytest

from mel import interruption
from mel.artifacts import Workdir, open_artifact
from mel.bin import prepare_data
from mel.interruption import Interrupted
from mel.locks import claim
from mel.training import ending
from mel.training.ending import EndOnSignal
from mel.training.loop import fit
from mel.training.rounds import RoundConfig
from mel.training.settings import keep_settings
from mel.types import MelError
from tests.configs import config_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 600  # only a fault takes so long, however busy the machine is
PAGE = 4096  # the least that a pipe holds: some thirty lines of the log
TRAINING = (
    "--rounds=1 --steps_per_round=120 --batch_size=16 --encoder=random:1x16x2 --learning_rate=1e-2 --save_every=1000 "
    "--log_every=1"
)


class Checkpoints:
    def __init__(self):
        self.saved = []

    @property
    def latest_step(self):
        return self.saved[-1] if self.saved else None

    def save(self, step, state):
        self.saved.append(step)


@pytest.fixture
def come(monkeypatch):
    """Makes a signal come, as far as the program can tell."""

    def come(number=signal.SIGTERM):
        monkeypatch.setattr(interruption, "_asked", number)

    yield come


def train(checkpoints, steps, hook=lambda *step: None):
    watched = []
    metrics = types.SimpleNamespace(catch_up=lambda: watched.append("metrics"))
    with EndOnSignal(checkpoints, metrics) as last:
        fit(lambda state, batch: (state + 1, {}), 0, ((n, n) for n in range(steps)), [hook, last])
    return watched


def test_without_a_signal_nothing_is_saved_and_nothing_deferred_afterwards():
    checkpoints = Checkpoints()
    assert train(checkpoints, 3) == [] and checkpoints.saved == []
    assert interruption._deferring == 0


def test_after_a_signal_the_next_step_is_saved_and_ends_the_round(come):
    checkpoints = Checkpoints()
    with pytest.raises(Interrupted, match="ended by SIGINT at step 3, which is saved; the same command goes on"):
        train(checkpoints, 9, lambda step, *rest: come(signal.SIGINT) if step == 3 else None)
    assert checkpoints.saved == [3]
    assert interruption._deferring == 0


def test_a_step_that_was_just_saved_is_not_saved_again(come):
    checkpoints = Checkpoints()

    def save_and_come(step, *rest):
        if step == 2:
            checkpoints.save(step, None)
            come()

    with pytest.raises(Interrupted, match="SIGTERM at step 2"):
        train(checkpoints, 9, save_and_come)
    assert checkpoints.saved == [2]


def test_of_several_hosts_all_end_at_the_step_on_which_they_agree(monkeypatch):
    from jax.experimental import multihost_utils

    monkeypatch.setattr(ending.jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda step: step == 4)
    checkpoints = Checkpoints()
    with pytest.raises(Interrupted, match="at step 4"):
        train(checkpoints, 9)
    assert checkpoints.saved == [4]


@pytest.fixture(scope="module")
def prepared(tiny_world, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("prepared")
    prepare_data.main(
        config_of(
            prepare_data.Config,
            workdir=str(workdir), damuel=str(tiny_world / "damuel"), languages=("en", "ar"),
            tokenizer=str(tiny_world / "tokenizer"), mention_tokens=16, entity_tokens=16, workers=1,
        )
    )  # fmt: skip
    return workdir


@contextlib.contextmanager
def training(workdir, pipe=PAGE, **environment):
    """The round being trained in another process, whose log is at hand; it stands still while nobody reads that."""
    command = [sys.executable, "-m", "mel.bin.train", f"--workdir={workdir}", *TRAINING.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | environment
    # Unbuffered, so that no more than what is asked for is read ahead.
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, bufsize=0) as process:
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, pipe)
        yield process
        process.kill()


def wait_for(process, words):
    seen = []
    while line := process.stderr.readline().decode():
        seen.append(line)
        if words in line:
            return
    raise AssertionError("".join(seen))


def rest_of_log(process):
    return process.communicate(timeout=SECONDS)[1].decode()


def result(workdir):
    work = Workdir(workdir)
    checkpoint = open_artifact(work.round(0).checkpoint, "checkpoint")
    return checkpoint.digest, (work.round(0).training / "metrics.jsonl").read_bytes()


def copy(workdir, target):
    subprocess.run(["cp", "-r", workdir, target], check=True)
    return target


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    workdir = copy(prepared, tmp_path_factory.mktemp("undisturbed") / "run")
    with training(workdir) as process:
        assert rest_of_log(process) and process.returncode == 0
    return result(workdir)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_round_that_is_told_to_end_goes_on_from_that_step(prepared, undisturbed, tmp_path, number):
    workdir = copy(prepared, tmp_path / "run")
    with training(workdir) as process:
        wait_for(process, "step 3/120")
        process.send_signal(number)
        log = rest_of_log(process)
        assert process.returncode == 128 + number
    (step,) = (int(path.name) for path in (workdir / "rounds/0/training/checkpoints").glob("[0-9]*"))
    told = f"ended by {number.name} at step {step}, which is saved; the same command goes on from whatever is saved."
    assert log.strip().splitlines()[-1] == f"train.py: {told}"
    assert 3 < step < 120
    with training(workdir) as process:
        wait_for(process, f"Going on from step {step}.")
        rest_of_log(process)
        assert process.returncode == 0
    assert result(workdir) == undisturbed


def test_a_signal_while_the_step_is_compiled_ends_at_once(prepared, undisturbed, tmp_path):
    workdir = copy(prepared, tmp_path / "run")
    with training(workdir, XDG_CACHE_HOME=str(tmp_path / "no programs")) as process:
        wait_for(process, "Batch layout")
        process.terminate()
        log = rest_of_log(process)
        assert process.returncode == 143
    assert log.strip().splitlines()[-1].endswith("ended by SIGTERM; the same command goes on from whatever is saved.")
    assert not list(workdir.rglob(".draft-*"))


def test_a_second_command_for_the_same_round_is_refused(prepared, tmp_path):
    workdir = copy(prepared, tmp_path / "run")
    with claim(Workdir(workdir).round(0).training), training(workdir) as second:
        log = rest_of_log(second)
        assert second.returncode == 1
    told = f"{workdir}/rounds/0/training is being written by process {os.getpid()} on {socket.gethostname()}"
    assert told in log.splitlines()[-1]


@pytest.mark.slow
def test_of_two_processes_one_that_is_told_to_end_ends_both(prepared, tmp_path):
    workdir = copy(prepared, tmp_path / "run")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    joined = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    first = training(workdir, **joined, JAX_PROCESS_ID="0")
    second = training(workdir, 16 * PAGE, **joined, JAX_PROCESS_ID="1")  # is read last, and must not stand still
    with first as lead, second as other:
        wait_for(lead, "step 3/120")
        other.terminate()
        for process in (lead, other):
            log = rest_of_log(process)
            assert process.returncode == 143, log
            assert "ended by SIGTERM at step" in log.splitlines()[-1]
    lines = (workdir / "rounds/0/training/metrics.jsonl").read_text().splitlines()
    (step,) = (int(path.name) for path in (workdir / "rounds/0/training/checkpoints").glob("[0-9]*"))
    assert json.loads(lines[-1])["step"] == step


def test_settings_that_are_damaged_are_named_with_the_way_out(tmp_path):
    this = Workdir(tmp_path).round(0)
    keep_settings(this, RoundConfig("anywhere"))
    keep_settings(this, RoundConfig("anywhere"))
    with pytest.raises(MelError, match="was begun with another --seed than 1"):
        keep_settings(this, RoundConfig("anywhere", seed=1))
    (this.training / "settings.json").write_text('{"seed": ')
    with pytest.raises(MelError, match=f"settings.json is damaged .*: delete {this.training} to begin the round"):
        keep_settings(this, RoundConfig("anywhere"))
