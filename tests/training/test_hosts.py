"""Two processes train together as one process with as many devices does."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import pytest

from mel.artifacts import START, Workdir
from mel.training.checkpoint import open_checkpoint
from mel.training.hosts import join_hosts
from mel.types import MelError

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAINING = "--rounds=1 --steps_per_round=6 --batch_size=16 --encoder=random:1x16x2 --learning_rate=1e-2 --save_every=4"


def train(workdir, **environment):
    command = [sys.executable, "-m", "mel.bin.train", f"--workdir={workdir}", *TRAINING.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | environment
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def test_two_processes_end_with_the_checkpoint_of_one_with_two_devices(prepared, tmp_path):
    one, two = (shutil.copytree(prepared, tmp_path / name) for name in ("one", "two"))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    joined = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    processes = [train(one, XLA_FLAGS="--xla_force_host_platform_device_count=2")]
    processes += [train(two, **joined, JAX_PROCESS_ID=str(place)) for place in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    metrics = [(folder / "rounds/0/training/metrics.jsonl").read_text() for folder in (one, two)]
    assert metrics[0] == metrics[1] and len(metrics[0].splitlines()) == 6
    digests = [open_checkpoint(Workdir(folder), 0).artifact.facts["params_digest"] for folder in (one, two)]
    assert digests[0] == digests[1] != open_checkpoint(Workdir(one), START).artifact.facts["params_digest"]


def test_an_incomplete_environment_is_one_sentence(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(MelError, match="could not be joined .* set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and"):
        join_hosts()


def test_one_process_alone_joins_nobody(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    join_hosts()
    assert not jax.distributed.is_initialized()


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"SLURM_NTASKS": "4"}, "SLURM_NTASKS is 4, but this process is none of these tasks .SLURM_STEP_NODELIST is "
         "not set.: start it with srun, or unset SLURM_NTASKS to train on one machine"),
        ({"SLURM_NTASKS": "4(x2)"}, "SLURM_NTASKS is '4.x2.', which is no whole number: correct it, or unset it"),
        ({"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"},
         "JAX_NUM_PROCESSES is 'two', which is no whole number"),
        ({"OMPI_COMM_WORLD_SIZE": ""}, "OMPI_COMM_WORLD_SIZE is '', which is no whole number"),
    ],
)  # fmt: skip
def test_an_environment_that_nobody_can_join_is_one_sentence_with_the_way_out(monkeypatch, environment, message):
    for name in ("JAX_COORDINATOR_ADDRESS", "SLURM_NTASKS", "SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MelError, match=message):
        join_hosts()
    for name in environment:
        monkeypatch.delenv(name)
    join_hosts()  # what the sentence advises
    assert not jax.distributed.is_initialized()
