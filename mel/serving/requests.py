"""What clients send in JSON: a text to be linked, refused in a sentence where it is none."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from mel.corpora.lines import without_mark
from mel.corpora.names import shown
from mel.linking.linker import Text
from mel.types import MelError, Span

MAX_NAME_CHARACTERS = 1000  # of a language or a title
SHARES = ("nil_precision", "min_probability", "detection_precision")
FIELDS = {"text": str, "language": str, "title": str, "spans": list, "top_k": int, **dict.fromkeys(SHARES, float)}
KINDS = {str: "a string", list: "a list", int: "a whole number", float: "a number"}


class Bounds(NamedTuple):
    """What one request may ask for at most."""

    characters: int
    spans: int
    top_k: int


class Options(NamedTuple):
    """How texts are linked; those with the same options are linked together.

    Attributes:
      top_k: candidates of each mention.
      nil_precision, min_probability, detection_precision: as of `Linker.link`; None for none.
    """

    top_k: int
    nil_precision: float | None = None
    min_probability: float | None = None
    detection_precision: float | None = None


def read_json(body: bytes, bounds: Bounds) -> tuple[Text, Options]:
    """The text in a JSON object, and how it is to be linked; see `FIELDS`.

    Raises:
      MelError: it is none, or asks for more than is allowed.
    """
    try:
        record = orjson.loads(without_mark(body, "The body").decode())
    except UnicodeDecodeError:
        raise MelError("The body is not UTF-8: send it so.") from None
    except orjson.JSONDecodeError as error:
        raise MelError(f"The body is not JSON ({error}).") from None
    if not isinstance(record, dict):
        raise MelError('The body is not a JSON object such as {"text": "Paris liegt an der Seine.", "language": "de"}.')
    values = {name: value for name, value in record.items() if value is not None}
    _check_fields(values)
    top_k = values.get("top_k", min(5, bounds.top_k))
    if not 1 <= top_k <= bounds.top_k:
        raise MelError(f"top_k={top_k} is not allowed: ask for 1 to {bounds.top_k} candidates.")
    spans = [_span(span) for span in values["spans"][: bounds.spans + 1]] if "spans" in values else None
    text = Text(values["text"], spans, values.get("language") or None, values.get("title", ""))
    check_text(text, bounds)
    return text, Options(top_k, *(values.get(name) for name in SHARES))


def check_text(text: Text, bounds: Bounds) -> None:
    """Refuses what cannot be linked, or not at once.

    Raises:
      MelError: the text is too long, has too many spans, one that leaves it, or two that overlap.
    """
    spans: Sequence[Any] = text.spans or ()
    if len(text.text) > bounds.characters:
        raise MelError(
            f"The text has {len(text.text):,} characters, more than {bounds.characters:,}: send it in parts."
        )
    if len(spans) > bounds.spans:
        raise MelError(f"There are more than {bounds.spans:,} spans: send them in several requests.")
    for span in spans:
        span.of(text.text)
    in_order = sorted(spans, key=lambda span: span.start)
    for one, other in itertools.pairwise(in_order):
        if other.start < one.end:
            raise MelError(
                f"Spans {one.start}:{one.end} and {other.start}:{other.end} overlap: give each in a request of its own."
            )


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
    for name in SHARES:
        if not (0 <= values.get(name, 0) <= 1 and math.isfinite(values.get(name, 0))):
            raise MelError(f"{name}={values[name]} is no share: choose one from 0 to 1.")


def _span(pair: Any) -> Span:
    match pair:
        case [int(start), int(end)] if type(start) is type(end) is int:
            return Span(start, end)
    raise MelError(f"span {shown(str(pair))} is no pair of whole numbers.")
