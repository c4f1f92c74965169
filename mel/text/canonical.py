"""The one form of a tokenizer: the content of a `tokenizer.json`, as a dictionary.

Tokenizers that put a space before a text ("▁Paris") do so before the whole text only, not before each
piece between two special tokens: a marker inside a sentence without spaces must not add any.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

State = dict[str, Any]
Space = Literal["always", "first", "never"]
"""Where a tokenizer puts a space: before what it is given, before that if it begins a text, or nowhere."""


def canonical(state: Mapping[str, Any], lower_case: bool | None) -> State:
    """The canonical form of a tokenizer.

    Args:
      state: what its `tokenizer.json` holds.
      lower_case: whether it makes upper case lower; None leaves it as it is.
    """
    normalizer = _sequence("normalizers", list(parts_of(state["normalizer"])))  # pyright: ignore[reportArgumentType]
    pre_tokenizer = _sequence("pretokenizers", list(parts_of(state["pre_tokenizer"])))  # pyright: ignore[reportArgumentType]
    state = dict(state) | {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
    state |= {"truncation": None, "padding": None}
    if lower_case not in (None, lowers_case(state)):
        state["normalizer"] = _with_case(normalizer, lower_case)
    if _splits_at_space(state["pre_tokenizer"]):
        # XLM-R's own layout cuts a text at spaces and puts one before each word. This is the same, but one can tell
        # the first word from the others.
        one_space = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
        strip = {"type": "Strip", "strip_left": False, "strip_right": True}
        state["normalizer"] = _sequence("normalizers", [*parts_of(state["normalizer"]), one_space, strip])  # pyright: ignore[reportArgumentType]
        state["pre_tokenizer"] = state["pre_tokenizer"]["pretokenizers"][1]
    return with_space(state, "first")


def with_space(state: Mapping[str, Any], space: Space) -> State:
    """The same tokenizer, with its space before a text, if it has one, put elsewhere or left out."""
    state = dict(state) | {name: copy.deepcopy(state[name]) for name in ("normalizer", "pre_tokenizer")}
    for part in parts_of(state["pre_tokenizer"]):
        if part["type"] == "Metaspace" and part.get("prepend_scheme") != "never":
            part["prepend_scheme"] = space  # pyright: ignore[reportIndexIssue]
        elif part["type"] == "ByteLevel" and space == "never":
            part["add_prefix_space"] = False  # pyright: ignore[reportIndexIssue]
    if space == "never":
        kept = [part for part in parts_of(state["normalizer"]) if part["type"] != "Prepend"]
        state["normalizer"] = _sequence("normalizers", kept)  # pyright: ignore[reportArgumentType]
    return state


def without_names(state: Mapping[str, Any]) -> State:
    """The same tokenizer, but no text becomes one of its special tokens.

    Unigram finds a special token by its name as it finds any other piece, so a text is cut after the
    first character of such a name. BPE and BERT's words never get that far.
    """
    parts = list(parts_of(state["pre_tokenizer"]))
    if state["model"]["type"] == "BPE" or "BertPreTokenizer" in [part["type"] for part in parts]:
        return dict(state)
    special = {token["content"] for token in state["added_tokens"] if token["special"]}
    vocabulary = state["model"]["vocab"]
    pieces = vocabulary if isinstance(vocabulary, dict) else (piece for piece, _ in vocabulary)
    names = [name for name in sorted(special.intersection(pieces)) if len(name) > 1]
    if not names:
        return dict(state)
    firsts = "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names)
    cut = {"type": "Split", "pattern": {"Regex": firsts}, "behavior": "MergedWithPrevious", "invert": False}
    return dict(state) | {"pre_tokenizer": _sequence("pretokenizers", [*parts, cut])}  # pyright: ignore[reportArgumentType]


def lowers_case(state: Mapping[str, Any]) -> bool:
    """Whether it makes upper case lower."""
    return any(part.get("lowercase") or part["type"] == "Lowercase" for part in parts_of(state["normalizer"]))


def digest(state: Mapping[str, Any]) -> str:
    """Identifies vocabulary and behaviour: all but the special tokens that it puts around a text."""
    state = {name: value for name, value in state.items() if name not in ("post_processor", "version")}
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _with_case(normalizer: Mapping[str, Any] | None, lower_case: bool) -> State | None:
    parts = [dict(part) for part in parts_of(normalizer) if part["type"] != "Lowercase"]
    berts = [part for part in parts if part["type"] == "BertNormalizer"]
    for part in berts:
        part["lowercase"] = lower_case
    if lower_case and not berts:
        parts.append({"type": "Lowercase"})
    return _sequence("normalizers", parts)


def _splits_at_space(pre_tokenizer: Mapping[str, Any] | None) -> bool:
    parts = list(parts_of(pre_tokenizer))
    return [part["type"] for part in parts] == ["WhitespaceSplit", "Metaspace"] and (
        parts[1].get("prepend_scheme") == "always" and parts[1].get("split") is not False
    )


def parts_of(component: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The components that are run one after another."""
    if component is None:
        return
    if component["type"] != "Sequence":
        yield component
        return
    for part in component.get("normalizers") or component.get("pretokenizers") or []:
        yield from parts_of(part)


def _sequence(key: str, parts: list[dict]) -> State | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return {"type": "Sequence", key: parts}
