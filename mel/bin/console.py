"""The console scripts: each starts its binary, or says which extra is not installed.

The script mel-train is `mel.bin.console.train`; no binary is imported before it is asked for. Flagfiles of
experiments/ are found by the names that documents give them, wherever a script is started and however it was installed.
"""

from __future__ import annotations

import functools
import importlib
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Sequence

import mel

PACKAGE = pathlib.Path(mel.__file__).resolve().parent
PLACES = (PACKAGE / "recipes", PACKAGE.parent)  # of a wheel, which setup.py puts them into; of a checkout
FLAGFILE = "--flagfile="
EXTRAS = {"serve": ("serve", "serving needs"), "": ("train", "preparing, training and evaluating need")}


def __getattr__(binary: str) -> Callable[[], None]:
    if binary.startswith("_"):
        raise AttributeError(binary)
    return functools.partial(start, binary)


def start(binary: str) -> None:
    """Runs `mel.bin.<binary>`; where a package is not installed, says how to get it."""
    if "--version" in sys.argv[1:]:  # which every installation can say
        print(f"{os.path.basename(sys.argv[0])} {mel.__version__}")
        return
    sys.argv[:] = with_recipes(sys.argv)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is begun while modules are imported: end without a word
    try:
        importlib.import_module(f"mel.bin.{binary}").console()
    except ModuleNotFoundError as error:
        missing = (error.name or "mel").partition(".")[0]
        if missing == "mel":
            raise
        extra, what = EXTRAS.get(binary, EXTRAS[""])
        sys.exit(
            f"{os.path.basename(sys.argv[0])}: the package {missing} is not installed: "
            f'pip install "mel-linker[{extra}]" brings what {what}.'
        )


def with_recipes(arguments: Sequence[str], places: Sequence[pathlib.Path] = PLACES) -> list[str]:
    """The arguments, in which --flagfile=experiments/... is that of the package where there is no such file here."""
    return [_found(argument, places) if argument.startswith(FLAGFILE) else argument for argument in arguments]


def _found(argument: str, places: Sequence[pathlib.Path]) -> str:
    path = pathlib.Path(argument.removeprefix(FLAGFILE))
    if path.is_absolute() or path.exists() or path.parts[:1] != ("experiments",):
        return argument
    return next((f"{FLAGFILE}{place / path}" for place in places if (place / path).is_file()), argument)
