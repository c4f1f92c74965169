"""The script that does all of README, and the pictures that README shows."""

import pathlib

import pytest
from PIL import Image

from experiments.clean_install import readme

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURES = sorted((ROOT / "experiments" / "pictures").glob("*.png"))
README = (ROOT / "README.md").read_text("utf-8")


def test_the_commands_of_the_readme_come_in_order():
    commands = readme.commands_of(README)
    programs = [command.split()[0] for command in commands]
    assert programs[:5] == ["mel-prepare-data", "mel-run-rounds", "mel-evaluate", "mel-evaluate", "mel-export"]
    assert programs[-2:] == ["mel-serve", "curl"] and programs.count("mel-update-bundle") == 2
    assert all(any(name in command for command in commands) for name in readme.SMALLER)
    assert readme.ENCODER in README


def test_what_a_command_did_is_a_row_of_the_table(tmp_path):
    def row(command):
        return readme.run("base", command, tmp_path, {"PATH": "/usr/bin:/bin"})._replace(seconds=1.6)

    assert str(row("echo a | cat")) == "| base | `echo a / cat` | 2 | yes |"
    assert str(row("echo one >&2; echo two >&2; exit 3")).endswith("| **3**: two |")
    assert row('echo \'{"error": "no"}\'').said == '**said** {"error": "no"}'
    assert row("echo 'Traceback (most recent call last):' >&2").said.startswith("**said**")
    assert readme.refused("echo one sentence; exit 1", tmp_path, {"PATH": "/bin"}, "one sentence").said == ""
    assert readme.refused("true", tmp_path, {"PATH": "/bin"}, "one sentence").said == "**wrong**: "


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_pictures_are_small_and_shown(picture):
    with Image.open(picture) as image:
        assert image.mode == "P" and picture.stat().st_size <= 150_000
    assert f"experiments/pictures/{picture.name}" in README
