"""Configs of binaries from their flags, whichever group each flag belongs to."""

import dataclasses
from typing import Any


def config_of(config_class: type, **flags: Any) -> Any:
    """The config that these flags make, all others at their defaults."""
    return with_flags(config_class(), **flags)


def with_flags(config: Any, **flags: Any) -> Any:
    """A config with other values of some flags.

    Raises:
      TypeError: it has no such flag.
    """
    changed, unknown = _with_flags(config, flags)
    if unknown:
        raise TypeError(f"{type(config).__qualname__} has no flag {', '.join(sorted(unknown))}")
    return changed


def _with_flags(config: Any, flags: dict[str, Any]) -> tuple[Any, set[str]]:
    """And the names that it does not know."""
    values, known = {}, set()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and field.name not in flags:
            values[field.name], unknown = _with_flags(value, flags)
            known |= set(flags) - unknown
        elif field.name in flags:
            values[field.name] = flags[field.name]
            known.add(field.name)
    return dataclasses.replace(config, **values), set(flags) - known
