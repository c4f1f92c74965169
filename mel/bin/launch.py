"""What every binary shares: flags derived from a frozen dataclass, logging, one-sentence errors.

A binary is `main(config)`. Its config is a frozen dataclass whose fields are made by `mel.config.flag`, and
`launch` derives the absl flags from it, so a field is stated once. A field that is itself such a
dataclass contributes its own fields; a name that several share is one flag, set in all of them.
"""

from __future__ import annotations

import dataclasses
import logging as python_logging
import os
import sys
import typing
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags, logging

import mel
from mel.artifacts import is_disk_full
from mel.config import REQUIRED
from mel.types import MelError

OURS = os.path.dirname(mel.__file__)


def launch(main: Callable[[Any], None], config_class: type) -> None:
    """Parses the command line into `config_class` and runs `main(config)`; does not return.

    A `MelError` becomes one line on standard error and exit status 1. A mistake in a flag becomes
    absl's message, with its "Did you mean".
    """
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
        logging.get_absl_handler().addFilter(_is_worth_saying)
        python_logging.getLogger("jax").setLevel(python_logging.WARNING)  # it tells which backends are not there
        try:
            if len(arguments) > 1:
                raise MelError(f"{arguments[1]!r} is not a flag: write --name=value.")
            main(config_from_flags(config_class, values))
        except MelError as error:
            _stop(str(error), 1)
        except Exception as error:
            if not is_disk_full(error):
                raise
            _stop("the disk is full; free some space, and the same command goes on from what is saved.", 1)
        except KeyboardInterrupt:
            _stop("interrupted; the same command goes on from what is saved.", 130)

    app.run(run)


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


def _leaves(config_class: type) -> Iterator[tuple[dataclasses.Field, Any]]:
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
    """Whether it is of our own code, or more than information."""
    return record.levelno > python_logging.INFO or record.pathname.startswith(OURS)


def _stop(message: str, status: int) -> None:
    logging.flush()
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
    sys.exit(status)
