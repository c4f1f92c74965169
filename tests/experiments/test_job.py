"""The batch job under a stand-in for the scheduler: told to end, it is queued again and ends as if nothing had been."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments.programs import parse
from mel.artifacts import Workdir, exists, open_artifact
from mel.bin import prepare_data

ROOT = pathlib.Path(__file__).resolve().parents[2]
JOB = ROOT / "experiments" / "mewsli9" / "job.sbatch"
RECIPE = """
--encoder=random:1x16x2
--rounds=1
--steps_per_round=150
--batch_size=8
--learning_rate=1e-2
--save_every=1000
--log_every=1
--index=exact
"""


@pytest.fixture
def scheduler(tmp_path):
    """Starts the job in a working directory as the scheduler does; what it is asked for ends up in `asked`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    run = f'#!/bin/bash\nexec "{sys.executable}" -m mel.bin.run_rounds "$@"\n'
    for name, text in (("mel-run-rounds", run), ("scontrol", f'#!/bin/bash\necho "$@" >> {tmp_path}/asked\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / "recipe.flags").write_text(RECIPE)

    def start(workdir):
        environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
            "SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_SUBMIT_DIR": str(ROOT), "WORKDIR": str(workdir),
            "RECIPE": str(tmp_path / "recipe.flags"),
        }  # fmt: skip
        with open(tmp_path / "log", "a") as log:
            return subprocess.Popen(["bash", JOB], env=environment, stderr=log, stdout=log)

    start.asked, start.log = tmp_path / "asked", tmp_path / "log"
    return start


@pytest.fixture(scope="module")
def prepared(tiny_world, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("prepared")
    flags = (
        f"--workdir={workdir} --damuel={tiny_world}/damuel --mewsli={tiny_world}/mewsli --languages=en "
        f"--tokenizer={tiny_world}/tokenizer --mention_tokens=16 --entity_tokens=16 --workers=1 --limit=1"
    )
    prepare_data.main(parse("prepare_data", flags.split()))
    return workdir


def test_the_scheduler_is_asked_for_a_signal_and_may_queue_the_job_again():
    asked = [line.removeprefix("#SBATCH ") for line in JOB.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert {"--signal=B:TERM@120", "--requeue", "--open-mode=append"} <= set(asked)
    subprocess.run(["bash", "-n", JOB], check=True)


@pytest.mark.slow
def test_told_to_end_it_is_queued_again_and_ends_as_if_nothing_had_been(scheduler, prepared, tmp_path):
    whole, run = (Workdir(shutil.copytree(prepared, tmp_path / name)) for name in ("whole", "run"))
    assert scheduler(whole.path).wait() == 0
    assert not scheduler.asked.exists()
    scheduler.log.write_text("")
    statuses = []
    while not exists(run.report("round-0")):
        job = scheduler(run.path)
        seen = scheduler.log.read_text().count(" step ")
        while job.poll() is None and len(statuses) < 2 and scheduler.log.read_text().count(" step ") < seen + 3:
            time.sleep(0.02)
        if len(statuses) < 2 and job.poll() is None:
            job.send_signal(signal.SIGTERM)  # the shell alone, as --signal=B: says
        statuses.append(job.wait())
    assert statuses == [143, 143, 0]
    assert scheduler.asked.read_text() == "requeue 7\nrequeue 7\n"
    assert scheduler.log.read_text().count("Going on from step") == 2
    one, other = (open_artifact(work.round(0).checkpoint, "checkpoint").digest for work in (whole, run))
    assert one == other


def test_a_failure_is_not_queued_again(scheduler, tmp_path):
    assert scheduler(tmp_path / "nothing").wait() == 1
    assert not scheduler.asked.exists()
