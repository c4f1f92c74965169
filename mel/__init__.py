"""Multilingual entity linking by dense retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mel.linking.linker import Linker as Linker
    from mel.linking.linker import Text as Text
    from mel.types import Link as Link
    from mel.types import MelError as MelError
    from mel.types import Span as Span

__version__ = "0.2.0"
__all__ = ["Link", "Linker", "MelError", "Span", "Text"]

_HOMES = {"Linker": "mel.linking.linker", "Text": "mel.linking.linker"} | dict.fromkeys(
    ("Link", "MelError", "Span"), "mel.types"
)


def __getattr__(name: str) -> Any:
    """What a program links texts with, loaded when it is first asked for: `import mel` costs nothing."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'mel' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
