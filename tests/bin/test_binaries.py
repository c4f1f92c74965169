"""Every binary starts, explains every flag, and ends a user's mistake with one sentence."""

import dataclasses
import importlib
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from mel.bin.launch import config_from_flags, define_flags, flag_names

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARIES = (
    "prepare_data", "train", "mine_negatives", "run_rounds", "evaluate", "export", "link", "serve", "update_bundle",
    "verify",
)  # fmt: skip
FLAGFILES = sorted((ROOT / "experiments").rglob("*.flags"))


def config_class(binary):
    return importlib.import_module(f"mel.bin.{binary}").Config


def call(binary, *arguments):
    command = [sys.executable, "-m", f"mel.bin.{binary}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("binary", BINARIES)
def test_help_teaches_every_flag(binary):
    found = call(binary, "--help")
    assert all(
        f"--{name}:" in found.stdout or f"--[no]{name}:" in found.stdout for name in flag_names(config_class(binary))
    )
    assert importlib.import_module(f"mel.bin.{binary}").__doc__.strip().splitlines()[0] in found.stdout
    assert "Example" in found.stdout
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("binary", BINARIES)
def test_every_field_has_a_sentence_of_help_and_there_are_few(binary):
    fields = [field for field in dataclasses.fields(config_class(binary)) if "help" in field.metadata]
    assert len(fields) <= 15
    assert all(field.metadata["help"].endswith(".") for field in fields)


@pytest.mark.parametrize("binary", BINARIES)
def test_every_binary_is_a_console_script(binary):
    assert f'"{binary}"' in (ROOT / "setup.py").read_text()
    assert callable(importlib.import_module(f"mel.bin.{binary}").console)


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_flagfile_parses(path):
    values = flags.FlagValues()
    define_flags(config_class(path.stem), values)
    # What a recipe cannot know, where things lie, is for the user to say.
    places = [f"--{name}=somewhere" for name in ("workdir", "damuel", "tokenizer") if name in values]
    values(["program", *places, f"--flagfile={path}"])
    config = config_from_flags(config_class(path.stem), values)
    assert isinstance(config, config_class(path.stem))


def test_there_are_flagfiles():
    assert len(FLAGFILES) >= 4


def test_mistakes_end_in_one_sentence_and_status_1(tmp_path):
    for arguments, sentence in (
        ((f"--workdir={tmp_path}",), f"There is no kb at {tmp_path}/kb: run the stage that publishes it first."),
        ((), "--workdir is missing"),
        ((f"--workdir={tmp_path}", "steps"), "'steps' is not a flag: write --name=value."),
        (("--wrkdir=x",), "Did you mean: workdir"),
        ((f"--workdir={tmp_path}", "--round=9", "--rounds=3"), "--round=9 is not between -1 and 2"),
        ((f"--workdir={tmp_path}", "--batch_size=0"), "--batch_size=0 must be above 0."),
    ):
        found = call("train", *arguments)
        assert found.returncode == 1
        assert sentence in found.stderr
        assert "Traceback" not in found.stderr
