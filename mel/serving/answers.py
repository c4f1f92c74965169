"""What a linker answers, as the service gives it on."""

from __future__ import annotations

from typing import Any

from mel.linking.linker import Linker
from mel.types import Link, NamedCandidate

DIGITS = 6


def about(linker: Linker) -> dict[str, Any]:
    """What a page has to know of a linker."""
    bundle = linker.bundle
    return {
        "languages": list(bundle.kb.languages),
        "detects": bundle.detector is not None,
        "calibrated": bundle.calibration is not None,
    }


def record_of(link: Link) -> dict[str, Any]:
    """A link as JSON has it; a number that is none is null."""
    return {
        "start": link.start, "end": link.end, "surface_form": link.surface_form, "id": link.id, "title": link.title,
        "description": link.description, "score": _rounded(link.score), "probability": _rounded(link.probability),
        "is_nil": link.is_nil, "candidates": [_candidate(candidate) for candidate in link.candidates],
    }  # fmt: skip


def _candidate(candidate: NamedCandidate) -> dict[str, Any]:
    return candidate._asdict() | {"score": _rounded(candidate.score)}


def _rounded(value: float | None) -> float | None:
    return None if value is None or value == float("-inf") else round(value, DIGITS)
