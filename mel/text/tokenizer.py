"""Marked texts to rows of token ids: a page is tokenised once, where its mentions are; every window is cut from that.

A row is `[CLS] (prefix) (header [SEP]) left [M] focus [M] right [SEP]`, with the tokenizer's own tokens
for `[CLS]` and `[SEP]`. The prefix is what the encoder was trained to find before a text of that role
("query: ", "passage: "); most were trained with none.

Rows are padded with 0 whatever the tokenizer pads with. Where its padding has another id, that id and
0 change places in every row, and nowhere else: the encoder's token table has the same two rows
exchanged as long as it is in memory (`mel.encoder.pretrained`), and files have the tokenizer's ids.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import orjson
import tokenizers

from mel.text.canonical import State, digest, lowers_case, with_space, without_names
from mel.text.cutting import Cutter, Part, grouped
from mel.text.pieces import spell
from mel.text.windows import Cut, Page, Piece
from mel.types import MarkedText, MelError

MARKER = "[M]"
PREFIXES = "prefixes.json"
MIN_TOKENS = 8


class Prefixes(NamedTuple):
    """What stands before every text of a role."""

    mention: str = ""
    entity: str = ""


class Special(NamedTuple):
    """The tokens that begin and end a row, that pad it, and that stand for what the vocabulary lacks."""

    cls: str
    sep: str
    pad: str
    unk: str | None


class _Window(NamedTuple):
    """What of a marked text is in a row."""

    text: MarkedText
    header: Cut
    left: Cut
    focus: Cut
    right: Cut


class Tokenizer:
    """A vocabulary with one added marker, always the last id, and how texts become rows of its ids.

    Attributes:
      cls_id, sep_id, pad_id, unk_id, marker_id: as the tokenizer has them; `row_ids` says how rows have them.
      vocab_size: the marker included.
      prefixes: of mentions and entities.
    """

    def __init__(self, state: State, special: Special, prefixes: Prefixes = Prefixes()):
        """Use `load`, or `mel.text.foreign.read_tokenizer`; `state` is in canonical form and has the marker."""
        self._state, self._special, self.prefixes = state, special, prefixes
        self._backend = _backend(with_space(state, "always"))
        normalizer = self._backend.normalizer
        self._cutter = Cutter(state, normalizer.normalize_str if normalizer else str)
        self.cls_id, self.sep_id, self.pad_id = (self._id(token) for token in special[:3])
        self.unk_id = None if special.unk is None else self._id(special.unk)
        self.marker_id = self._id(MARKER)
        self.vocab_size = self.marker_id + 1
        self._around = [np.array([token], np.int32) for token in (self.cls_id, self.sep_id, self.marker_id)]
        self._prefix_ids = {role: self._ids(prefix.rstrip()) for role, prefix in prefixes._asdict().items()}

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Tokenizer:
        """Loads what `save` wrote.

        Raises:
          MelError: a file is missing or damaged.
        """
        folder = pathlib.Path(folder)
        try:
            state, config, prefixes = (
                orjson.loads((folder / name).read_bytes())
                for name in ("tokenizer.json", "tokenizer_config.json", PREFIXES)
            )
            special = Special(*(config.get(f"{name}_token") for name in Special._fields))
            return cls(state, special, Prefixes(**prefixes))
        except FileNotFoundError as error:
            raise MelError(
                f"{folder} holds no tokenizer that was prepared here: {pathlib.Path(error.filename).name} is missing."
            ) from None
        except Exception as error:  # the reader of tokenizer.json raises plain exceptions
            raise MelError(f"The tokenizer in {folder} is damaged ({error}): prepare the data again.") from error

    def save(self, folder: str | os.PathLike) -> None:
        """Writes a folder that this class and `transformers.AutoTokenizer` load."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **{f"{name}_token": token for name, token in self._special._asdict().items()},
            "additional_special_tokens": [MARKER], "model_max_length": 512,
        }  # fmt: skip
        (folder / "tokenizer.json").write_text(json.dumps(self._state, ensure_ascii=False), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
        (folder / PREFIXES).write_text(json.dumps(self.prefixes._asdict()) + "\n")

    def facts(self) -> dict:
        """What identifies the tokenizer: its vocabulary, its behaviour, its special tokens and prefixes."""
        vocabulary = json.dumps(sorted(self._backend.get_vocab().items(), key=lambda item: item[1]))
        return {
            "vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest(), "behaviour": digest(self._state),
            "lower_case": lowers_case(self._state), "vocab_size": self.vocab_size,
            "marker": MARKER, "marker_id": self.marker_id, "cls_id": self.cls_id, "sep_id": self.sep_id,
            "pad_id": self.pad_id, "unk_id": self.unk_id, "prefixes": self.prefixes._asdict(),
        }  # fmt: skip

    def rows(self, texts: Sequence[MarkedText], max_tokens: int) -> list[np.ndarray]:
        """One int32 row a text, at most `max_tokens` long, the focus centred.

        Consecutive texts that share one text object are cut from one tokenisation of it.

        Raises:
          MelError: `max_tokens` leaves no room for a focus.
        """
        rows = [np.zeros(0, np.int32)] * len(texts)
        for place, window in self._placed_windows(texts, max_tokens):
            rows[place] = self._row(window)
        return rows

    def _windows(self, texts: Sequence[MarkedText], max_tokens: int) -> list[_Window]:
        return [window for _, window in sorted(self._placed_windows(texts, max_tokens), key=lambda placed: placed[0])]

    def _placed_windows(self, texts: Sequence[MarkedText], max_tokens: int) -> Iterator[tuple[int, _Window]]:
        """The window of each text, and which text it is of."""
        least = MIN_TOKENS + max(map(len, self._prefix_ids.values()))
        if max_tokens < least:
            raise MelError(f"{max_tokens} tokens a row leave no room for a focus: {least} is the least.")
        headers: dict[str, Cut] = {}
        for some in grouped(self._parts(texts, max_tokens)):
            for (text, part), page in zip(some, self._pages(some), strict=True):
                for place in part.places:
                    header = texts[place].header
                    if header not in headers:
                        headers[header] = self._header(header, max_tokens)
                    yield place, self._window(page, texts[place], headers[header], max_tokens)

    def _parts(self, texts: Sequence[MarkedText], max_tokens: int) -> Iterator[tuple[str, Part]]:
        """The parts of texts that are tokenised, and for which of the texts."""
        for _, group in itertools.groupby(range(len(texts)), key=lambda place: id(texts[place].text)):
            places = list(group)
            text = texts[places[0]].text
            for part in self._cutter.parts(text, [texts[place].focus for place in places], max_tokens // 2):
                yield text, dataclasses.replace(part, places=[places[each] for each in part.places])

    def _pages(self, parts: Sequence[tuple[str, Part]]) -> list[Page]:
        """The tokens of some parts of texts."""
        encodings: dict[int, tokenizers.Encoding] = {}
        for backend, begins in ((self._backend, True), (self._without_space, False)):
            some = [number for number, (_, part) in enumerate(parts) if (part.start == 0) == begins]
            given = [parts[number][0][parts[number][1].start : parts[number][1].end] for number in some]
            encodings |= zip(some, backend.encode_batch(given, add_special_tokens=False), strict=True)
        return [Page(text, encodings[number], part.start, part.end) for number, (text, part) in enumerate(parts)]

    def render(self, text: MarkedText, max_tokens: int) -> str:
        """The text that other programs must be given to read the row of `rows`, [CLS] and [SEP] around it left to them.

        Raises:
          MelError: no text gives them the same tokens, as where it holds the name of a special token.
        """
        (window,) = self._windows([text], max_tokens)
        wanted = self.row_ids(self._row(window)).tolist()
        for rendered in self._spellings(window):
            if self._as_others.encode(rendered).ids == wanted:
                return rendered
        around = text.text[max(text.focus.start - 20, 0) : text.focus.end + 20]
        raise MelError(
            f"No text makes other programs read the row of {around!r}, perhaps because it holds the name of a special "
            "token: give them the ids of its tokens."
        )

    def row_ids(self, ids: np.ndarray) -> np.ndarray:
        """The tokenizer's ids as rows have them, and the other way round: padding and 0 change places."""
        if self.pad_id == 0:
            return ids
        return np.where(ids == 0, self.pad_id, np.where(ids == self.pad_id, 0, ids)).astype(np.int32)

    def decode(self, row: Sequence[int]) -> tuple[str, str, str]:
        """About the text before, in and after the focus of a row, in pieces that join without a gap.

        The prefix and the header are left out.
        """
        ids = self.row_ids(np.asarray(row, np.int32)).tolist()
        first = ids.index(self.marker_id)
        second = ids.index(self.marker_id, first + 1)
        header_end = ids.index(self.sep_id)  # after the focus where there is no header
        start = header_end + 1 if header_end < first else 1 + self._prefix_length(ids[1:first])
        pieces = ids[start:first], ids[first + 1 : second], ids[second + 1 : -1]
        tokens = [[self._backend.id_to_token(token) or "" for token in piece] for piece in pieces]
        return spell(tokens, self._backend.decoder)

    def count_unknown(self, rows: Sequence[np.ndarray]) -> tuple[int, int]:
        """How many tokens in the focuses of some rows the vocabulary lacks, and how many there are."""
        flat = self.row_ids(np.concatenate([*rows, np.zeros(0, np.int32)]))
        marker = flat == self.marker_id
        inside = (np.cumsum(marker) % 2 == 1) & ~marker
        return int((inside & (flat == self.unk_id)).sum()), int(inside.sum())

    def _header(self, header: str, max_tokens: int) -> Cut:
        encoding = self._encode(header, True)
        return Page(header, encoding).first_of(Piece.of(encoding), max_tokens // 4, self._encode)

    def _window(self, page: Page, text: MarkedText, header: Cut, max_tokens: int) -> _Window:
        room = max_tokens - 4 - len(self._prefix_ids[text.role])  # [CLS], two markers and the closing [SEP]
        room -= len(header.ids_t) + 1 if len(header.ids_t) else 0
        tokens = max_tokens
        while not page.reaches(text.focus, room):
            part = self._cutter.around(text.text, text.focus, tokens)
            (page,), tokens = self._pages([(text.text, part)]), 4 * tokens
        left, focus, right = page.pieces(text.focus, room, self._encode)
        in_focus = page.first_of(focus, room, self._encode)
        room -= len(in_focus.ids_t)
        before = min(len(left.ids_t), max(room // 2, room - len(right.ids_t)))
        in_left = page.last_of(left, before, self._encode)
        return _Window(text, header, in_left, in_focus, page.first_of(right, room - before, self._encode))

    def _row(self, window: _Window) -> np.ndarray:
        header, (cls, sep, marker) = window.header.ids_t, self._around
        start = [cls, self._prefix_ids[window.text.role], *([header, sep] if len(header) else [])]
        pieces = *start, window.left.ids_t, marker, window.focus.ids_t, marker, window.right.ids_t, sep
        return self.row_ids(np.concatenate(pieces))

    def _spellings(self, window: _Window) -> Iterator[str]:
        """Texts for a window, the likeliest first: only trying tells where a tokenizer wants a space before a piece."""
        text, header = window.text.text, window.text.header[: window.header.end]
        start = window.left.start if len(window.left.ids_t) else window.text.focus.start
        end = window.right.end if len(window.right.ids_t) else window.text.focus.end
        left, space = text[start : window.text.focus.start], ""
        if stripped := left.rstrip():
            left, space = stripped, left[len(stripped) :]
        focus, right = text[window.text.focus.start : window.focus.end], text[window.text.focus.end : end]
        prefix = self.prefixes._asdict()[window.text.role].rstrip()
        title = f"{header}{self._special.sep}" if len(window.header.ids_t) else ""
        begins = (" ", "") if prefix or title else ("", " ")
        gaps = (" ", "") if prefix else ("",), begins, (space, "") if space else ("", " "), ("", " ")
        for before, before_left, before_focus, before_right in itertools.product(*gaps):
            marked = f"{before_left}{left.lstrip()}{MARKER}{before_focus}{focus}{MARKER}{before_right}{right}"
            yield f"{prefix}{before}{title}{marked}"

    def _id(self, token: str) -> int:
        number = self._backend.token_to_id(token)
        if number is None:
            raise MelError(f"The tokenizer has no token {token!r}, which rows need: make it again.")
        return number

    def _ids(self, text: str, begins: bool = True) -> np.ndarray:
        """The ids of a text, or of a piece that something stands before."""
        return np.asarray(self._encode(text, begins).ids, np.int32)

    def _encode(self, text: str, begins: bool) -> tokenizers.Encoding:
        backend = self._backend if begins else self._without_space
        return backend.encode(text, add_special_tokens=False)

    @functools.cached_property
    def _without_space(self) -> tokenizers.Tokenizer:
        """The same, but it puts no space before what it is given, and is given no beginning of a page."""
        always, never = (with_space(self._state, space) for space in ("always", "never"))
        return self._backend if always == never else _backend(never)

    @functools.cached_property
    def _as_others(self) -> tokenizers.Tokenizer:
        """What is saved, as it is loaded by others: names of special tokens in a text are these tokens."""
        return tokenizers.Tokenizer.from_str(json.dumps(self._state))

    def _prefix_length(self, ids: list[int]) -> int:
        lengths = [len(prefix) for prefix in self._prefix_ids.values() if ids[: len(prefix)] == prefix.tolist()]
        return max(lengths, default=0)


def _backend(state: State) -> tokenizers.Tokenizer:
    """What gives the ids of a text alone, in which the names of special tokens are text, not instructions."""
    backend = tokenizers.Tokenizer.from_str(json.dumps(without_names(state) | {"post_processor": None}))
    backend.encode_special_tokens = True
    return backend
