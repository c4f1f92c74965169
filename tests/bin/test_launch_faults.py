"""Whatever a user, a disk or a scheduler does to a binary, it says one line and ends with the right status."""

import os
import pathlib
import subprocess
import sys

import pytest

from mel.artifacts import publish

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = """
'''A binary.'''
import dataclasses, errno, os, pathlib, signal, sys, time
import numpy as np
from mel import artifacts
from mel.bin.launch import launch
from mel.config import flag
from mel.types import MelError

@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag("", "Where.")
    batch_size: int = flag(1, "How many.")

def main(config):
{}

sys.argv[0] = "mel-try"
launch(main, Config)
"""
LONG = "x" * 300
AGAIN = "and run the same command again: it goes on from whatever is saved."


def run(body, *arguments, **environment):
    program = BINARY.format("\n".join(f"    {line}" for line in body.splitlines()))
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, env=environment, check=False, timeout=600)


def last_line(ended):
    return ended.stderr.decode().strip().splitlines()[-1]


@pytest.mark.parametrize(
    "body, said",
    [
        ("raise MelError('--workdir=x is wrong: choose another.')", "--workdir=x is wrong: choose another."),
        (
            "open('/dev/null/x')",
            "/dev/null/x leads through a file where a folder has to be: choose another path, {again}",
        ),
        ("open('/')", "/ is a folder, and a file has to be there: choose another path, {again}"),
        ("open('/' + 'x' * 300)", f"/{LONG} is too long a name for its file system: choose a shorter one, " + AGAIN),
        (
            "raise OSError(errno.EROFS, os.strerror(errno.EROFS), '/data/kb')",
            "/data/kb is on a read-only file system: use a folder that can be written to, {again}",
        ),
        (
            "files = [open(os.devnull) for _ in range(10**6)]",
            "this process may not open more files (/dev/null): raise the limit (ulimit -n) or lower --workers, {again}",
        ),
        (
            "with artifacts.publish(config.workdir + '/a', 'thing'): raise OSError(errno.ENOSPC, 'x')",
            "The disk is full while writing {tmp_path}/a; nothing of it was kept: free some space and run again.",
        ),
        (
            "np.empty((2**40, 2**10))",
            "there is too little memory (Unable to allocate 8.00 PiB for an array with shape (1099511627776, 1024) and "
            "data type float64): lower --batch_size, or use a machine that has more, and run it again.",
        ),
        ("raise KeyboardInterrupt", "interrupted; the same command goes on from whatever is saved."),
    ],
)  # fmt: skip
def test_faults_are_one_line(tmp_path, body, said):
    ended = run(body, f"--workdir={tmp_path}")
    assert last_line(ended) == f"mel-try: {said.format(tmp_path=tmp_path, again=AGAIN)}"
    assert b"Traceback" not in ended.stderr
    assert ended.returncode == (130 if "interrupted" in said else 1)


def test_a_fault_of_the_program_is_not_hidden():
    ended = run("{}['missing']")
    assert ended.returncode == 1
    assert last_line(ended) == "KeyError: 'missing'"


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_signals_are_one_line_and_drafts_are_removed(tmp_path, name, status):
    ended = run(
        "with artifacts.publish(config.workdir + '/a', 'thing'):\n"
        f"    os.kill(os.getpid(), signal.{name})\n"
        "    time.sleep(60)",
        f"--workdir={tmp_path}",
    )
    assert last_line(ended) == f"mel-try: ended by {name}; the same command goes on from whatever is saved."
    assert ended.returncode == status
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def damaged(tmp_path):
    """An artefact whose array is damaged where no reader looks, and large enough to be read beside the work."""
    with publish(tmp_path / "a", "thing") as draft:
        (draft / "array").write_bytes(bytes(3 << 20))
    with open(tmp_path / "a" / "array", "r+b") as file:
        file.write(b"\1")
    return tmp_path


@pytest.mark.parametrize("then", ["print('figures')", "raise ValueError('bad magic number')", "{}['missing']"])
def test_nothing_ends_well_and_nothing_is_blamed_on_the_program_after_a_damaged_file(damaged, then):
    ended = run(f"artifacts.open_artifact(config.workdir + '/a', 'thing')\n{then}", f"--workdir={damaged}")
    assert ended.returncode == 1
    assert last_line(ended) == (
        f"mel-try: {damaged}/a/array is damaged, its content is not what was published: "
        f"delete {damaged}/a and run the same command again."
    )
    assert b"Traceback" not in ended.stderr


LOCALES = (
    {"LC_ALL": "C"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX", "PYTHONIOENCODING": "latin-1"},
)


SWALLOWED = """
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
except KeyboardInterrupt as error:  # as a module in C++ does that is being imported
    raise ImportError("initialization failed") from error
"""


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_signal_that_a_library_makes_an_error_of_is_still_one(wrapped):
    body = SWALLOWED
    if wrapped:
        indented = "".join(f"    {line}\n" for line in SWALLOWED.splitlines())
        body = f"try:\n{indented}except ImportError as error:\n    raise MelError('install it') from error"
    ended = run(body)
    assert ended.returncode == 143
    assert ended.stderr.decode() == "mel-try: ended by SIGTERM; the same command goes on from whatever is saved.\n"


@pytest.mark.parametrize("locale", LOCALES)
def test_output_and_names_are_utf_8_whatever_the_locale(tmp_path, locale):
    (tmp_path / "Zürich").mkdir()
    said = ascii("東京 · Zürich")
    ended = run(
        f"print({said})\npathlib.Path(config.workdir, {said}).mkdir()\nraise MelError(config.workdir + {said})",
        f"--workdir={tmp_path}/Zürich", **locale,
    )  # fmt: skip
    assert ended.stdout.decode() == "東京 · Zürich\n"
    assert last_line(ended) == f"mel-try: {tmp_path}/Zürich東京 · Zürich"
    assert os.listdir(tmp_path / "Zürich") == ["東京 · Zürich"]


def test_a_name_that_is_no_text_can_be_printed(tmp_path):
    ended = run("print(config.workdir)\nraise MelError(config.workdir)", b"--workdir=/data/\xff")
    assert ended.stdout == b"/data/\\udcff\n"
    assert ended.returncode == 1


def test_a_reader_that_has_seen_enough_is_no_error():
    program = BINARY.format("    for _ in range(10**5): print('line')")
    command = f"{sys.executable} -c '{program.replace(chr(39), chr(34))}' | head -1; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, check=False, timeout=600
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("line\n", "", 141)
