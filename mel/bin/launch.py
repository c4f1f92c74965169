"""What every binary shares: flags derived from a frozen dataclass, logging, one-sentence errors.

A binary is `main(config)`. Its config is a frozen dataclass whose fields are made by `mel.config.flag`, and
`launch` derives the absl flags from it, so a field is stated once. A field that is itself such a
dataclass contributes its own fields; a name that several share is one flag, set in all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging as python_logging
import os
import signal
import sys
import typing
from collections.abc import Callable, Collection, Iterator
from typing import Any

from absl import app, flags, logging

import mel
from mel.checks import CHECKS
from mel.config import REQUIRED
from mel.faults import first_line, is_memory_short, sentence_of
from mel.interruption import Interrupted, asked, listen
from mel.types import MelError

OURS = os.path.dirname(mel.__file__)


def launch(main: Callable[[Any], None], config_class: type) -> None:
    """Parses the command line into `config_class` and runs `main(config)`; does not return.

    It ends well only when every file that was opened was as published. What a user, a disk or a scheduler can cause
    becomes one line on standard error: a `MelError`, a fault of the disk or the memory and whatever a damaged artefact
    led to with exit status 1, SIGINT with 130 and SIGTERM with 143; a mistake in a flag absl's "Did you mean".
    """
    _speak_utf8()
    values = flags.FLAGS
    define_flags(config_class, values)
    flags.DEFINE_bool("version", False, "Say which version this is, and end.", flag_values=values)
    sys.modules["__main__"].__doc__ = sys.modules[main.__module__].__doc__
    for name in [*flag_names(config_class), "version"]:
        values.register_key_flag_for_module(sys.argv[0], values[name])

    def run(arguments: list[str]) -> None:
        if values["version"].value:
            print(f"{os.path.basename(sys.argv[0])} {mel.__version__}")
            return
        logging.use_absl_handler()
        logging.set_verbosity(logging.INFO)
        logging.set_stderrthreshold(logging.INFO)
        for place in (logging.get_absl_handler(), logging.get_absl_logger()):
            place.addFilter(_is_worth_saying)
        python_logging.getLogger("jax").setLevel(python_logging.WARNING)  # it tells which backends are not there
        if len(arguments) > 1:
            raise MelError(f"{arguments[1]!r} is not a flag: write --name=value.")
        main(config_from_flags(config_class, values))
        CHECKS.settle()
        sys.stdout.flush()

    with _one_sentence(flag_names(config_class)):
        listen()
        app.run(run)


@contextlib.contextmanager
def _one_sentence(names: Collection[str]) -> Iterator[None]:
    """Ends the process with a sentence where the block fails for a reason that is not the program's."""
    try:
        yield
    except MelError as error:
        _stop_if_interrupted(error)
        _stop(str(error), 1)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Interrupted as error:
        _stop(str(error), error.status)
    except KeyboardInterrupt:
        _stop("interrupted; the same command goes on from whatever is saved.", 130)
    except Exception as error:
        _stop_if_interrupted(error)
        sentence = _sentence(error, names)
        if sentence is None:
            raise
        _stop(sentence, 1)


def _sentence(error: Exception, names: Collection[str]) -> str | None:
    """What happened and what helps; None if it is the program's fault."""
    if fault := sentence_of(error):
        return f"{fault}, and run the same command again: it goes on from whatever is saved."
    try:
        CHECKS.settle()  # a library that was given a damaged file says anything
    except MelError as damaged:
        return str(damaged)
    if is_memory_short(error):
        what = " or ".join(f"--{name}" for name in ("batch_size", "workers") if name in names)
        helps = f"lower {what}, or use" if what else "use"
        return f"there is too little memory ({first_line(error)}): {helps} a machine that has more, and run it again."
    return None


def _speak_utf8() -> None:
    """Output, names of files and arguments are UTF-8, whatever the locale says; may start the process again."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"PYTHONUTF8": "1"})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def flag_names(config_class: type) -> list[str]:
    """The distinct flag names of a config, in the order of its fields."""
    return list(dict.fromkeys(field.name for field, _ in _leaves(config_class)))


def define_flags(config_class: type, values: flags.FlagValues) -> None:
    """Defines one flag for each distinct leaf field of `config_class`.

    Raises:
      TypeError: a field has a type that no flag can hold.
    """
    for field, hint in _leaves(config_class):
        if field.name not in values:
            _define(
                field.name, None if field.default == REQUIRED else field.default, field.metadata["help"], hint, values
            )


def config_from_flags(config_class: type, values: flags.FlagValues) -> Any:
    """Builds the config from parsed flags; a flag that was not given leaves the field's own default.

    Raises:
      MelError: a required flag is missing.
    """
    hints = typing.get_type_hints(config_class)
    arguments = {}
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(hints[field.name]):
            arguments[field.name] = config_from_flags(hints[field.name], values)
        elif field.name in values and values[field.name].present:
            value = values[field.name].value
            arguments[field.name] = tuple(value) if isinstance(value, list) else value
        elif field.default == REQUIRED:
            raise MelError(f"--{field.name} is missing: {field.metadata['help']}")
    return config_class(**arguments)


def _leaves(config_class: Any) -> Iterator[tuple[dataclasses.Field, Any]]:
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from ((inner, kind) for inner, kind in _leaves(hint) if not inner.metadata["driven"])
        else:
            yield field, hint


def _define(name: str, default: Any, help: str, hint: Any, values: flags.FlagValues) -> None:
    if typing.get_origin(hint) is typing.Literal:
        flags.DEFINE_enum(name, default, list(typing.get_args(hint)), help, flag_values=values)
    elif hint == tuple[str, ...]:
        flags.DEFINE_list(name, default and list(default), help, flag_values=values)
    elif hint is bool:
        flags.DEFINE_bool(name, default, help, flag_values=values)
    elif hint is int:
        flags.DEFINE_integer(name, default, help, flag_values=values)
    elif hint is float:
        flags.DEFINE_float(name, default, help, flag_values=values)
    elif hint is str:
        flags.DEFINE_string(name, default, help, flag_values=values)
    else:
        raise TypeError(f"{name}: no flag can hold {hint}.")


def _is_worth_saying(record: python_logging.LogRecord) -> bool:
    """Whether it is our own, or a warning of a library that was not told to end, of which only the line stays."""
    if record.pathname.startswith(OURS):
        return True
    record.exc_info = record.exc_text = None
    return record.levelno > python_logging.INFO and asked() is None


def _stop_if_interrupted(error: BaseException | None) -> None:
    """Ends the process as the signal asked for, where `error` is what a library has made of it on import."""
    while error is not None:
        if isinstance(error, Interrupted):
            _stop(str(error), error.status)
        error = error.__cause__ or error.__context__


def _stop(message: str, status: int) -> None:
    logging.flush()
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
    sys.exit(status)
