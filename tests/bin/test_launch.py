"""Flags derived from a dataclass: stated once, shared by name, refused in a sentence."""

import dataclasses
import logging
import signal
import sys
from typing import Literal

import pytest
from absl import flags

from mel.bin import launch
from mel.bin.launch import config_from_flags, define_flags, flag_names
from mel.config import REQUIRED, flag
from mel.types import MelError


@dataclasses.dataclass(frozen=True)
class Inner:
    workdir: str = flag(REQUIRED, "Where.")
    round: int = flag(7, "Which.", driven=True)
    index: Literal["exact", "scann"] = flag("scann", "How.")


@dataclasses.dataclass(frozen=True)
class Outer:
    workdir: str = flag(REQUIRED, "Where.")
    languages: tuple[str, ...] = flag(("en", "ja"), "Which ones.")
    rate: float = flag(0.5, "How fast.")
    inner: Inner = dataclasses.field(default_factory=Inner)


def parse(config_class, *arguments):
    values = flags.FlagValues()
    define_flags(config_class, values)
    values(["program", *arguments])
    return config_from_flags(config_class, values)


def test_defaults_are_those_of_the_dataclass():
    assert parse(Outer, "--workdir=w") == Outer(workdir="w", inner=Inner(workdir="w"))


def test_a_shared_name_is_one_flag_and_sets_both():
    config = parse(Outer, "--workdir=w", "--index=exact", "--languages=de", "--rate=2")
    assert config == Outer("w", ("de",), 2.0, Inner("w", 7, "exact"))
    assert flag_names(Outer) == ["workdir", "languages", "rate", "index"]


def test_a_driven_flag_belongs_to_its_own_binary():
    assert parse(Inner, "--workdir=w", "--round=3").round == 3
    with pytest.raises(flags.UnrecognizedFlagError):
        parse(Outer, "--workdir=w", "--round=3")


def test_mistakes_are_answered_with_the_way_out():
    with pytest.raises(flags.UnrecognizedFlagError, match="Did you mean: workdir"):
        parse(Outer, "--wrkdir=w")
    with pytest.raises(flags.IllegalFlagValueError, match="exact|scann"):
        parse(Outer, "--workdir=w", "--index=brute")
    with pytest.raises(MelError, match="--workdir is missing: Where."):
        parse(Outer)


def test_a_field_that_no_flag_can_hold_is_a_programming_error():
    @dataclasses.dataclass(frozen=True)
    class Wrong:
        table: frozenset = flag(frozenset(), "What.")

    with pytest.raises(TypeError, match="table: no flag can hold"):
        define_flags(Wrong, flags.FlagValues())


@pytest.mark.parametrize(
    "path, level, said",
    [
        (launch.__file__, logging.INFO, True),
        ("/lib/tensorflow_datasets/core/dataset_info.py", logging.INFO, False),
        ("/lib/tensorflow_datasets/core/dataset_info.py", logging.WARNING, True),
    ],
)
def test_libraries_speak_only_where_they_warn(path, level, said):
    record = logging.LogRecord("absl", level, path, 1, "Load dataset info from", (), None)
    assert launch._is_worth_saying(record) == said


def test_a_library_fails_in_one_line_and_in_none_after_a_signal(monkeypatch):
    try:
        raise OSError("no more room")
    except OSError:
        failure = sys.exc_info()
    theirs, ours = (
        logging.LogRecord("absl", logging.ERROR, path, 1, "it failed", (), failure)
        for path in ("/lib/orbax/async_checkpointer.py", launch.__file__)
    )
    assert launch._is_worth_saying(theirs) and launch._is_worth_saying(ours)
    said = logging.Formatter("%(message)s")
    assert said.format(theirs) == "it failed" and "OSError: no more room" in said.format(ours)
    monkeypatch.setattr(launch, "asked", lambda: signal.SIGINT)
    assert launch._is_worth_saying(ours) and not launch._is_worth_saying(theirs)
