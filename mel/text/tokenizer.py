"""Marked texts to rows of token ids: a page is tokenised once, every window is cut from it.

A row is `[CLS] (header [SEP]) left [M] focus [M] right [SEP]`. WordPiece works word by word, so a
window cut from the tokens of the whole page equals the tokens of its three pieces; only a word that
a focus boundary splits is tokenised again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pathlib
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers.implementations import BertWordPieceTokenizer
from tokenizers.processors import TemplateProcessing

from mel.types import MarkedText, MelError

MARKER = "[M]"
PAGES_AT_ONCE = 64  # bounds memory: a page's offsets are Python tuples until they become arrays
MIN_TOKENS = 8


class Tokenizer:
    """A cased or uncased WordPiece vocabulary with one added marker, always the last id."""

    def __init__(self, backend: tokenizers.Tokenizer):
        ids = {token: backend.token_to_id(token) for token in ("[PAD]", "[CLS]", "[SEP]")}
        if ids["[PAD]"] != 0 or None in ids.values():
            raise MelError(f"The tokenizer has special tokens {ids}: a BERT vocabulary with [PAD] at id 0 is needed.")
        backend.add_special_tokens([MARKER])
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True  # "[SEP]" in a page is text, not an instruction
        self._backend = backend
        self.cls_id, self.sep_id = ids["[CLS]"], ids["[SEP]"]
        self.marker_id = backend.token_to_id(MARKER)
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        if self.marker_id != self.vocab_size - 1:
            raise MelError(f"The vocabulary holds {MARKER} at id {self.marker_id}; it must be absent or the last.")

    @classmethod
    def load(cls, source: str | os.PathLike) -> Tokenizer:
        """Loads `tokenizer.json`, or else `vocab.txt`, from a local folder or a hub id.

        Raises:
          MelError: there is no such folder and no such model on the hub, or it holds neither file.
        """
        folder = pathlib.Path(source) if os.path.isdir(source) else _download(str(source))
        if (folder / "tokenizer.json").is_file():
            return cls(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")))
        if (folder / "vocab.txt").is_file():
            config = folder / "tokenizer_config.json"
            lowercase = json.loads(config.read_bytes()).get("do_lower_case", False) if config.is_file() else False
            wordpiece = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lowercase)
            return cls(wordpiece._tokenizer)
        raise MelError(f"{folder} holds no tokenizer.json and no vocab.txt.")

    def save(self, folder: str | os.PathLike) -> None:
        """Writes a folder that this class and `transformers.AutoTokenizer` load."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        special = [("[CLS]", self.cls_id), ("[SEP]", self.sep_id)]
        copy = tokenizers.Tokenizer.from_str(self._backend.to_str())
        copy.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
        )
        copy.save(str(folder / "tokenizer.json"))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
            "additional_special_tokens": [MARKER], "model_max_length": 512,
        }  # fmt: skip
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")

    def facts(self) -> dict:
        """What identifies the vocabulary and its special tokens."""
        vocabulary = json.dumps(sorted(self._backend.get_vocab().items(), key=lambda item: item[1]))
        return {
            "vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest(), "vocab_size": self.vocab_size,
            "marker": MARKER, "marker_id": self.marker_id, "cls_id": self.cls_id, "sep_id": self.sep_id,
        }  # fmt: skip

    def rows(self, texts: Sequence[MarkedText], max_tokens: int) -> list[np.ndarray]:
        """One int32 row a text, at most `max_tokens` long, the focus centred.

        Consecutive texts that share one text object are cut from one tokenisation of it.

        Raises:
          MelError: `max_tokens` leaves no room for a focus.
        """
        if max_tokens < MIN_TOKENS:
            raise MelError(f"{max_tokens} tokens a row leave no room for a focus: {MIN_TOKENS} is the least.")
        pages = [list(group) for _, group in itertools.groupby(texts, key=lambda text: id(text.text))]
        rows = []
        for first in range(0, len(pages), PAGES_AT_ONCE):
            some = pages[first : first + PAGES_AT_ONCE]
            encodings = self._backend.encode_batch([page[0].text for page in some], add_special_tokens=False)
            for page, encoding in zip(some, encodings):
                tokens = _page_tokens(encoding)
                headers = {header: self._ids(header) for header in {text.header for text in page}}
                rows.extend(self._row(tokens, text, headers[text.header], max_tokens) for text in page)
        return rows

    def decode(self, row: Sequence[int]) -> tuple[str, str, str]:
        """About the text before, in and behind the focus of a row, in pieces that join without a gap.

        A row holds no spaces: `_gap` guesses them. The header is left out.
        """
        ids = list(row)
        first = ids.index(self.marker_id)
        second = ids.index(self.marker_id, first + 1)
        header_end = ids.index(self.sep_id)  # behind the focus where there is no header
        start = header_end + 1 if header_end < first else 1
        texts, previous = ["", "", ""], ""
        for place, piece in enumerate((ids[start:first], ids[first + 1 : second], ids[second + 1 : -1])):
            for token in map(self._backend.id_to_token, piece):
                gap = "" if token.startswith("##") else _gap(previous[-1:], token[:1])
                texts[0 if place == 1 and not texts[1] else place] += gap  # never in the focus, at its rims
                texts[place] += token.removeprefix("##")
                previous = token
        return tuple(texts)

    def _row(self, page: _PageTokens, text: MarkedText, header: list[int], max_tokens: int) -> np.ndarray:
        left, focus, right = self._split(page, text)
        prefix = [self.cls_id, *header[: max_tokens // 4], self.sep_id] if header else [self.cls_id]
        room = max_tokens - len(prefix) - 3  # two markers and the closing [SEP]
        focus = focus[:room]
        room -= len(focus)
        before = min(len(left), max(room // 2, room - len(right)))
        marker = [self.marker_id]
        pieces = (prefix, left[len(left) - before :], marker, focus, marker, right[: room - before], [self.sep_id])
        return np.concatenate([np.asarray(piece, np.int32) for piece in pieces])

    def _split(self, page: _PageTokens, text: MarkedText) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The tokens before, in and behind the focus."""
        start, end = text.focus.start, text.focus.end
        before = int(np.searchsorted(page.ends, start, side="right"))
        behind = int(np.searchsorted(page.starts, end, side="left"))
        left, focus, right = page.ids[:before], page.ids[before:behind], page.ids[behind:]
        split_start, split_end = page.word_split_by(start), page.word_split_by(end)
        if split_start:
            left = np.concatenate([page.ids[: split_start.first], self._ids(text.text[split_start.start : start])])
        if split_end:
            right = np.concatenate([self._ids(text.text[end : split_end.end]), page.ids[split_end.last :]])
        if split_start or split_end:
            focus = np.asarray(self._ids(text.text[start:end]))
        return left, focus, right

    def _ids(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids


class _Word(NamedTuple):
    """Tokens first..last (exclusive) and characters start..end (exclusive) of one word."""

    first: int
    last: int
    start: int
    end: int


class _PageTokens(NamedTuple):
    """A tokenised page: ids and character offsets by token, token and character bounds by word."""

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    word_first: np.ndarray
    word_last: np.ndarray

    def word_split_by(self, position: int) -> _Word | None:
        """The word that has characters on both sides of `position`."""
        if not len(self.word_first):
            return None
        word = int(np.searchsorted(self.starts[self.word_first], position, side="left")) - 1
        first, last = int(self.word_first[word]), int(self.word_last[word])
        if word < 0 or self.ends[last - 1] <= position:
            return None
        return _Word(first, last, int(self.starts[first]), int(self.ends[last - 1]))


def _page_tokens(encoding: tokenizers.Encoding) -> _PageTokens:
    offsets = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
    words = np.asarray(encoding.word_ids, np.int64)
    word_first = np.flatnonzero(np.diff(words, prepend=-1))
    word_last = np.append(word_first[1:], len(words)) if len(words) else word_first
    return _PageTokens(np.asarray(encoding.ids, np.int32), offsets[:, 0], offsets[:, 1], word_first, word_last)


def _gap(left: str, right: str) -> str:
    """What stands between two words, by the character before and the one behind."""
    joined = "'’-_/"
    touching = left in "([{«¿¡" + joined or right in ")]}»,.;:!?%،؟" + joined  # nothing is in every string
    return "" if touching or (_is_cjk(left) and _is_cjk(right)) else " "


def _is_cjk(character: str) -> bool:
    """Whether a script without spaces writes it: Korean, as wide as its neighbours, has spaces."""
    return unicodedata.east_asian_width(character) in "WF" and not "가" <= character <= "힣"


def _download(hub_id: str) -> pathlib.Path:
    """Fetches the tokenizer files of a hub model and returns their folder."""
    import huggingface_hub  # slow to import, and needed for hub ids only

    try:
        files = ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
        return pathlib.Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=files))
    except Exception as error:  # the hub client raises a dozen kinds, all with the same way out
        raise MelError(
            f"The tokenizer {hub_id!r} is no local folder and could not be fetched from the hub "
            f"({type(error).__name__}): give a folder that holds tokenizer.json or vocab.txt."
        ) from error
