"""What a linker answers, as the service asks it and gives it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mel.serving.requests import Options, Question

DIGITS = 6

Answer = Any
"""A result of `mel.Linker`."""


def link(linker: Any, options: Options, questions: Sequence[Question]) -> list[list[Answer]]:
    """The links of each question; an option that is None is not asked for."""
    return linker.link_batch(
        [question.text for question in questions],
        spans=[question.spans for question in questions],
        language=[question.language for question in questions],
        title=[question.title for question in questions],
        **options._asdict(),
    )


def about(linker: Any) -> dict[str, Any]:
    """What a page has to know of a linker."""
    return {
        "languages": list(linker.languages),
        "detects": linker.detects,
        "calibrated": linker.calibrated,
    }


def answer_record(answer: Answer) -> dict[str, Any]:
    """A link as JSON has it."""
    record = {name: getattr(answer, name) for name in ("start", "end", "surface_form", "id", "title", "description")}
    record["score"] = rounded(answer.score)
    record["probability"] = rounded(answer.probability)
    record["is_nil"] = answer.is_nil
    record["candidates"] = [_candidate(candidate) for candidate in answer.candidates]
    return record


def rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), DIGITS)


def _candidate(candidate: Any) -> Mapping[str, Any]:
    named = {name: getattr(candidate, name) for name in ("id", "title", "description")}
    return named | {"score": rounded(candidate.score)}
