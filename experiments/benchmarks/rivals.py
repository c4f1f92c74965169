"""What the rivals are given: their packages, our rows as texts, our encoder as a model of theirs."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tokenizers

from experiments.benchmarks.harness import timed
from mel.artifacts import Workdir, open_artifact
from mel.encoder.config import EncoderConfig
from mel.shards.datasets import RowSet, open_rows
from mel.shards.rows import TokenRows
from mel.text.tokenizer import MARKER, Tokenizer
from mel.types import MarkedText, Span

THREADS = len(os.sched_getaffinity(0))
BATCH_SIZES = (32, 64, 128, 256)  # that a rival chooses from


def require(*modules: str) -> None:
    """Ends the program with a sentence where a rival is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit(f'This benchmark needs {" and ".join(missing)}: pip install -e ".[bench]".')


def open_workdir(folder: pathlib.Path, exported: bool = False) -> Workdir:
    """A working directory.

    Raises:
      MelError: it lacks token rows, or a bundle if `exported`.
    """
    work = Workdir(folder)
    open_artifact(work.entity_tokens, "tokens")
    if exported:
        open_artifact(work.bundle, "bundle")
    return work


def open_tokens(work: Workdir, path: pathlib.Path) -> RowSet:
    """The rows of published tokens, mapped into memory."""
    tokens = open_artifact(path, "tokens")
    return open_rows(tokens, work.cache(tokens))


def sample(rows: TokenRows, count: int, seed: int) -> np.ndarray:
    """`count` different row ids in random order, or all of them where there are fewer."""
    return np.random.default_rng(seed).permutation(len(rows))[:count]


def pieces(rows: TokenRows) -> list[np.ndarray]:
    """The tokens of each row."""
    return np.split(rows.tokens_T, rows.offsets_N1[1:-1])


def texts_of(rows: TokenRows, tokenizer: tokenizers.Tokenizer) -> list[str]:
    """Texts that this tokenizer turns into these rows again, [CLS] and [SEP] around them left out.

    Not quite all: a row that was cut inside a word begins there with a piece that nothing continues,
    which becomes a word of its own and may get another id.
    """
    texts = []
    for row in pieces(rows):
        text = " ".join(map(tokenizer.id_to_token, row[1:-1])).removeprefix("##")
        for special in (MARKER, "[SEP]"):
            text = text.replace(f"{special} ##", f"{special} ")
        texts.append(text.replace(" ##", ""))
    return texts


def same_rows(texts: Sequence[str], rows: TokenRows, tokenizer: tokenizers.Tokenizer) -> np.ndarray:
    """Which texts the tokenizer turns into exactly these rows: bool [N]."""
    encodings = tokenizer.encode_batch_fast(list(texts))
    return np.array([np.array_equal(encoding.ids, row) for encoding, row in zip(encodings, pieces(rows), strict=True)])


def marked(text: str) -> MarkedText:
    """The text without its two markers, what they marked as its focus."""
    left, focus, right = (piece.strip() for piece in text.split(MARKER))
    before = f"{left} " if left else ""
    return MarkedText(f"{before}{focus} {right}", Span(len(before), len(before) + len(focus)))


def load_tokenizer(folder: pathlib.Path) -> tokenizers.Tokenizer:
    """The tokenizer as rivals load it, from its `tokenizer.json`."""
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def save_model(folder: pathlib.Path, config: EncoderConfig, params: Any, tokenizer: Tokenizer) -> None:
    """Writes the encoder and its tokenizer as `transformers` reads them."""
    from mel.encoder import pretrained  # here, because it brings jax into whoever imports it

    pretrained.save(folder, config, params)
    tokenizer.save(folder)


def sentence_transformer(folder: pathlib.Path, max_tokens: int):
    """The model of `save_model` in sentence-transformers: first token, dense layer, tanh, unit length."""
    import torch
    from sentence_transformers import SentenceTransformer, models

    torch.set_num_threads(THREADS)
    transformer = models.Transformer(str(folder), max_seq_length=max_tokens)
    bert, size = transformer.auto_model, transformer.get_embedding_dimension()
    dense = models.Dense(size, size, activation_function=torch.nn.Tanh())
    dense.linear.load_state_dict(bert.pooler.dense.state_dict())
    bert.pooler = None  # its work is done by the dense layer
    modules = [transformer, models.Pooling(size, pooling_mode="cls"), dense, models.Normalize()]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return SentenceTransformer(modules=modules, device=device)


def best_batch_size(model, texts: Sequence[str], sizes: Sequence[int]) -> int:
    """The batch size with which a SentenceTransformer encodes the first of these texts fastest, once warm."""
    some = list(texts[: 4 * max(sizes)])
    return fastest(lambda size: model.encode(some, batch_size=size, show_progress_bar=False), sizes)


def fastest(run: Callable[[int], Any], sizes: Sequence[int]) -> int:
    """The size with which `run` takes least time, after a warm-up with each."""
    if len(sizes) == 1:
        return sizes[0]
    seconds = {}
    for size in sizes:
        run(size)
        seconds[size] = timed(lambda: run(size))()
    return min(seconds, key=seconds.get)
