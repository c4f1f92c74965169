"""Tokenizers as their owners publish them: loaded through `transformers`, which knows what their files mean."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import orjson
import tokenizers
from absl import logging

from mel.text.canonical import State, canonical, lowers_case
from mel.text.tokenizer import MARKER, PREFIXES, Prefixes, Special, Tokenizer
from mel.types import MelError

FILES = ("tokenizer*.json", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model")
"""What a tokenizer may consist of, as patterns."""


def read_tokenizer(
    source: str | os.PathLike, lower_case: bool | None = None, prefixes: Prefixes | None = None
) -> Tokenizer:
    """Reads the tokenizer of a folder or of a hub model, and adds the marker.

    Args:
      source: a folder that holds a tokenizer, itself or in a folder inside it; or a hub id.
      lower_case: whether upper case is made lower. None is as `transformers` has it; a folder with a
        vocab.txt and no config of its tokenizer does not say, and is cased if its vocabulary is; a
        tokenizer.json alone says it itself.
      prefixes: what the encoder was trained to find before mentions and entities. None is what the
        folder says, if it was written here, or nothing.

    Raises:
      MelError: there is none, or it lacks what a row needs, or has the marker as a piece of its own.
    """
    folder = tokenizer_folder(source if os.path.isdir(source) else _download(str(source)))
    if folder is None:
        raise MelError(f"{source} holds no tokenizer.json, no vocab.txt and no *.model: it is no tokenizer.")
    theirs = _load(folder)
    if not hasattr(theirs, "backend_tokenizer"):
        raise MelError(
            f"The tokenizer in {folder} is a {type(theirs).__name__}, which is a program of its own: "
            "convert it to a tokenizer.json."
        )
    if lower_case is None and not _says_its_case(folder):
        lower_case = not _has_upper_case(theirs.get_vocab())
        kept = "no upper-case pieces, so it is read as uncased" if lower_case else "upper-case pieces, so it is cased"
        logging.info("%s does not say its case; its vocabulary has %s (--case overrides).", folder, kept)
    special, prefixes = _special(theirs, folder), prefixes or _prefixes(folder)
    return Tokenizer(_state(theirs.backend_tokenizer, special, lower_case, folder), special, prefixes)


def tokenizer_folder(folder: str | os.PathLike) -> pathlib.Path | None:
    """The folder or the one inside it that holds a tokenizer, None if there is none."""
    folder = pathlib.Path(folder)
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    return next((path for path in (folder, *inside) if _holds_tokenizer(path)), None)


def _holds_tokenizer(folder: pathlib.Path) -> bool:
    names = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
    return any(path.is_file() for name in names for path in folder.glob(name))


def _load(folder: pathlib.Path) -> Any:
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it advises to install PyTorch
    import transformers  # slow to import, and needed for preparing only

    try:
        if (folder / "tokenizer.json").is_file() and not (folder / "tokenizer_config.json").is_file():
            # It says all there is. AutoTokenizer would go by the model beside it and make BERT's of anything.
            return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        if (folder / "vocab.txt").is_file() and not (folder / "tokenizer.json").is_file():
            kind = _read_object(folder / "tokenizer_config.json").get("tokenizer_class")
            model = _read_object(folder / "config.json").get("model_type")
            if kind in (None, "BertTokenizer", "BertTokenizerFast") and model in (None, "bert"):
                return transformers.BertTokenizer.from_pretrained(folder, local_files_only=True)
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except MelError:
        raise
    except Exception as error:  # whatever its dozens of classes raise
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise MelError(f"The tokenizer in {folder} cannot be loaded by transformers: {reason}") from error


def _prefixes(folder: pathlib.Path) -> Prefixes:
    """Those that a folder says that was written here."""
    try:
        return Prefixes(**_read_object(folder / PREFIXES))
    except TypeError:
        raise MelError(f"{folder / PREFIXES} names no prefixes of mentions and entities: fetch it again.") from None


def _says_its_case(folder: pathlib.Path) -> bool:
    """Whether there is more than a vocabulary of words."""
    said = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    return said or not (folder / "vocab.txt").is_file()


def _has_upper_case(vocabulary: dict[str, int]) -> bool:
    return any(
        character.isupper()
        for piece in vocabulary
        if not (piece.startswith("[") and piece.endswith("]"))
        for character in piece
    )


def _special(theirs: Any, folder: pathlib.Path) -> Special:
    """The special tokens, from what the tokenizer puts around a text or else from what it says of itself."""
    backend = theirs.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    around = backend.encode("", add_special_tokens=True).tokens
    if len(around) == 2:
        cls, sep = around
    else:
        cls, sep = theirs.cls_token or theirs.bos_token, theirs.sep_token or theirs.eos_token
    pad = theirs.pad_token or _known(backend, "[PAD]", "<pad>")
    unk = theirs.unk_token or _known(backend, "[UNK]", "<unk>")
    special = Special(*(None if token is None else str(token) for token in (cls, sep, pad, unk)))
    for name, token in zip(("begins a row", "ends a row", "pads a row"), special, strict=False):
        if token is None or backend.token_to_id(token) is None:
            raise MelError(
                f"The tokenizer in {folder} has no token that {name}: it belongs to no encoder that can be loaded; "
                "name its special tokens in tokenizer_config.json if it does."
            )
    return special


def _known(backend: Any, *names: str) -> str | None:
    return next((name for name in names if backend.token_to_id(name) is not None), None)


def _state(backend: Any, special: Special, lower_case: bool | None, folder: pathlib.Path) -> State:
    """The canonical form, with the marker as the last token.

    The special tokens are there as such, whether or not the owner said so.
    """
    added = {token.content: number for number, token in backend.get_added_tokens_decoder().items()}
    number = backend.token_to_id(MARKER)
    if number is not None and not (MARKER in added and number == max(backend.get_vocab().values())):
        raise MelError(
            f"The tokenizer in {folder} has {MARKER} as piece {number}, and rows mark the focus with it: "
            "rename that piece in its files."
        )
    backend.add_special_tokens([token for token in special if token is not None and token not in added])
    # It takes the space before it, so that a text with marks between its spaces has the tokens of one without.
    backend.add_special_tokens([tokenizers.AddedToken(MARKER, lstrip=True, normalized=False, special=True)])
    if len(backend.encode("", add_special_tokens=True).ids) != 2:
        ids = [(token, backend.token_to_id(token)) for token in (special.cls, special.sep)]
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single=[special.cls, "$A", special.sep], special_tokens=ids
        )
    state = canonical(orjson.loads(backend.to_str()), lower_case)
    logging.info("The tokenizer in %s %s.", folder, "lowers case" if lowers_case(state) else "keeps case")
    return state


def _read_object(file: pathlib.Path) -> dict:
    """A JSON object, empty if there is no such file."""
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_bytes())
    except ValueError as error:
        raise MelError(f"{file} is not JSON ({error}): fetch it again.") from None
    if not isinstance(values, dict):
        raise MelError(f"{file} is no JSON object: fetch it again.")
    return values


def _download(hub_id: str) -> pathlib.Path:
    """Fetches the tokenizer files of a hub model and returns their folder."""
    import huggingface_hub  # slow to import, and needed for hub ids only

    try:
        patterns = [*FILES, "config.json", *(f"0_Transformer/{name}" for name in FILES)]
        return pathlib.Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:  # the hub client raises a dozen kinds, all with the same way out
        raise MelError(
            f"The tokenizer {hub_id!r} is no local folder and could not be fetched from the hub "
            f"({type(error).__name__}): give a folder that holds tokenizer.json or vocab.txt."
        ) from error
