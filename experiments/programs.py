"""mel's binaries and the experiments' own scripts: how they are called, and how a mistake ends them."""

from __future__ import annotations

import importlib
import logging as python_logging
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags, logging

from mel.bin.launch import config_from_flags, define_flags
from mel.types import MelError

ROOT = pathlib.Path(__file__).resolve().parents[1]


def command(binary: str, *arguments: str) -> list[str]:
    """The command line of a binary ("train"), to be run in `ROOT`."""
    return [sys.executable, "-m", f"mel.bin.{binary}", *arguments]


def run(binary: str, *arguments: str) -> None:
    """Runs a binary to its end.

    Raises:
      MelError: it failed; what it said is in the message.
    """
    done = subprocess.run(command(binary, *arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MelError(f"{_name(binary)} failed:\n{done.stderr}")


def parse(binary: str, arguments: Sequence[str]) -> Any:
    """The config that a binary would make of its flags.

    Raises:
      MelError: there is a mistake in them.
    """
    config_class, values = importlib.import_module(f"mel.bin.{binary}").Config, flags.FlagValues()
    define_flags(config_class, values)
    try:
        values([_name(binary), *arguments])
    except flags.Error as error:
        raise MelError(f"{_name(binary)} {shlex.join(arguments)}: {error}") from error
    return config_from_flags(config_class, values)


def launch(main: Callable[[], Any]) -> None:
    """Runs a script, with its log on standard error; a user's mistake ends it with one sentence."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.set_stderrthreshold(logging.INFO)
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    try:
        main()
    except MelError as error:
        sys.exit(str(error))


def _name(binary: str) -> str:
    return f"mel-{binary.replace('_', '-')}"
