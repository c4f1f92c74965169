"""What clients send: JSON and NIF to a text to be linked, refused in a sentence where it is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from mel.corpora.names import shown
from mel.types import MelError, Span

MAX_NAME_CHARACTERS = 1000  # of a language or a title
FIELDS = {
    "text": str, "language": str, "title": str, "spans": list, "top_k": int, "nil_precision": float,
    "min_probability": float,
}  # fmt: skip
KINDS = {str: "a string", list: "a list", int: "a whole number", float: "a number"}


class Bounds(NamedTuple):
    """What one request may ask for at most."""

    spans: int
    top_k: int


class Options(NamedTuple):
    """How texts are linked; those with the same options are linked together.

    Attributes:
      top_k: candidates of each mention.
      nil_precision, min_probability: as of `Linker.link`; None for neither.
    """

    top_k: int
    nil_precision: float | None = None
    min_probability: float | None = None


class Question(NamedTuple):
    """A text to be linked.

    Attributes:
      text: itself.
      spans: its mentions; None where they are to be detected.
      language: None where it is not known.
      title: of its page, "" where there is none.
    """

    text: str
    spans: tuple[Span, ...] | None = None
    language: str | None = None
    title: str = ""


def read_json(body: bytes, bounds: Bounds) -> tuple[Question, Options]:
    """The question in a JSON object; see `FIELDS`.

    Raises:
      MelError: it is none, or asks for more than is allowed.
    """
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MelError(f"The body is not JSON ({error}).") from None
    if not isinstance(record, dict):
        raise MelError('The body is not a JSON object such as {"text": "Paris liegt an der Seine.", "language": "de"}.')
    values = {name: value for name, value in record.items() if value is not None}
    _check_fields(values)
    top_k = values.get("top_k", min(5, bounds.top_k))
    if not 1 <= top_k <= bounds.top_k:
        raise MelError(f"top_k={top_k} is not allowed: ask for 1 to {bounds.top_k} candidates.")
    spans = None
    if "spans" in values:
        spans = check_spans([_span(span) for span in values["spans"]], values["text"], bounds)
    question = Question(values["text"], spans, values.get("language") or None, values.get("title", ""))
    return question, Options(top_k, values.get("nil_precision"), values.get("min_probability"))


def check_spans(spans: list[Span], text: str, bounds: Bounds) -> tuple[Span, ...]:
    """The spans of a text, in their order.

    Raises:
      MelError: there are too many of them, one leaves the text, or two overlap.
    """
    if len(spans) > bounds.spans:
        raise MelError(f"{len(spans)} spans are too many: give at most {bounds.spans} a request.")
    for span in spans:
        span.of(text)
    in_order = sorted(spans, key=lambda span: span.start)
    for one, other in zip(in_order, in_order[1:]):
        if other.start < one.end:
            raise MelError(
                f"Spans {one.start}:{one.end} and {other.start}:{other.end} overlap: give each in a request of its own."
            )
    return tuple(spans)


def _check_fields(values: Mapping[str, Any]) -> None:
    if unknown := [name for name in values if name not in FIELDS]:
        raise MelError(f"{shown(unknown[0])} is no field of a request: there are {', '.join(FIELDS)}.")
    if "text" not in values:
        raise MelError('The request has no "text".')
    for name, value in values.items():
        kind = FIELDS[name]
        allowed = (int, float) if kind is float else (kind,)
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise MelError(f"{name} is not {KINDS[kind]}.")
    for name in ("language", "title"):
        if len(values.get(name, "")) > MAX_NAME_CHARACTERS:
            raise MelError(f"{name} has more than {MAX_NAME_CHARACTERS} characters.")
    for name in ("nil_precision", "min_probability"):
        if not (0 <= values.get(name, 0) <= 1 and math.isfinite(values.get(name, 0))):
            raise MelError(f"{name}={values[name]} is no share: choose one from 0 to 1.")


def _span(pair: Any) -> Span:
    match pair:
        case [int(start), int(end)] if type(start) is type(end) is int:
            return Span(start, end)
    raise MelError(f"span {shown(str(pair))} is no pair of whole numbers.")
