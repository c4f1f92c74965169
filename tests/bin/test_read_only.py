"""A working directory that is read-only: what is published can be read, what cannot be written is a sentence."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from mel.artifacts import START, Workdir, discard
from mel.bin import evaluate
from mel.systems.system import SystemConfig

ROOT = pathlib.Path(__file__).resolve().parents[2]
MOUNT = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


@pytest.fixture(scope="module")
def evaluated(untrained, tmp_path_factory):
    """A working directory with a report, `again` of which can be asked for."""
    work = Workdir(shutil.copytree(untrained.path, tmp_path_factory.mktemp("evaluated") / "run"))
    evaluate.main(evaluate.Config(workdir=str(work.path), name="first", system=SystemConfig(round=START)))
    return work


def run(work, binary, *arguments):
    """Runs a binary that sees `work` read-only, in a name space of its own; skips where the system forbids that."""
    command = ["unshare", "-m", "sh", "-c", MOUNT, str(work.path)]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    command += [sys.executable, "-m", f"mel.bin.{binary}", f"--workdir={work.path}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_what_is_published_is_read_and_verified(evaluated):
    shown = run(evaluated, "evaluate", "--name=first", "--round=-1")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("# first")
    assert run(evaluated, "verify").returncode == 0


@pytest.mark.parametrize(
    "binary, arguments",
    [
        ("evaluate", ("--name=other", "--model=alias_table")),
        ("train", ("--round=0", "--rounds=1", "--encoder=random:1x32x2", "--steps_per_round=2", "--batch_size=8")),
        ("mine_negatives", ("--round=-1",)),
        ("mine_negatives", ("--round=-1", "--negatives=random")),
        ("export", ("--round=-1",)),
    ],
)
def test_what_cannot_be_written_is_one_sentence(evaluated, binary, arguments):
    ended = run(evaluated, binary, *arguments)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    last_line = ended.stderr.splitlines()[-1]
    assert f"{evaluated.path}" in last_line and "is on a read-only file system: use a folder that can be" in last_line


def test_a_cache_that_would_have_to_be_made_is_one_sentence(evaluated, tmp_path):
    work = Workdir(shutil.copytree(evaluated.path, tmp_path / "run"))
    for cache in work.path.glob("cache/*"):
        discard(cache)
    ended = run(work, "evaluate", "--name=other", "--round=-1")
    assert ended.returncode == 1
    assert "cache/" in ended.stderr.splitlines()[-1]
    assert "is on a read-only file system" in ended.stderr.splitlines()[-1]
