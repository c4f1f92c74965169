"""Fields of configs, which become flags: a room owns the dataclass of its settings, a binary composes them."""

from __future__ import annotations

import dataclasses
from typing import Any

REQUIRED = "(required)"


def flag(default: Any, help: str, driven: bool = False) -> Any:
    """A config field with its default and its line of help.

    Args:
      default: the default, or `REQUIRED` where the user must say.
      help: one sentence for `--help`.
      driven: set by the driving binary where the config is nested in another, and no flag there.
    """
    return dataclasses.field(default=default, metadata={"help": help, "driven": driven})


def group(config_class: type) -> Any:
    """A field that holds the settings of a room, all at their defaults."""
    return dataclasses.field(default_factory=config_class)
