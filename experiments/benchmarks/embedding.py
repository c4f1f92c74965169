"""Embedding a KB: sentences a second of ours and of sentence-transformers' `encode`, in fp32 on the same rows.

The encoder has LEALLA-small's shape and random weights; the rows are entities of a prepared --workdir,
and the texts are decoded from them. Both tokenise their texts in the measured time. The details give the
same without tokenising, where the rival is its own modules called on sorted, padded batches made before.
`encode` sorts by length; its batch size is swept, and the best is measured.

  python -m experiments.benchmarks.embedding --workdir=RUN
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks import rivals
from experiments.benchmarks.harness import Target, in_turn, options, parser, publish, timed
from experiments.programs import launch
from mel.artifacts import open_artifact
from mel.encoder.config import EncoderConfig
from mel.shards.rows import TokenRows
from mel.text.tokenizer import Tokenizer

TARGET = Target(passes=1.3, stretch=2.0)
LEALLA_SMALL = {"hidden_size": 128, "num_layers": 24, "num_heads": 8, "ffn_size": 512}


@dataclasses.dataclass(frozen=True)
class Task:
    """What both sides are given.

    Attributes:
      folder: the encoder and its tokenizer.
      max_tokens: the longest row.
      texts: N texts, with the marker before and behind the focus.
      batch_sizes: what the rival may choose from.
    """

    folder: pathlib.Path
    max_tokens: int
    texts: tuple[str, ...]
    batch_sizes: tuple[int, ...]


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__, workdir="a run with prepared data")
    flags.add_argument("--entities", type=int, default=3_000, help="how many entities, chosen at random")
    chosen = options(flags, argv)
    rivals.require("torch", "transformers", "sentence_transformers")
    count, layers = (200, 2) if chosen.quick else (chosen.entities, LEALLA_SMALL["num_layers"])
    with tempfile.TemporaryDirectory() as folder:
        task, rows = make_task(chosen.workdir, pathlib.Path(folder), count, layers)
        if chosen.quick:
            task = dataclasses.replace(task, batch_sizes=(32,))
        sides = {"ours": (ours, task), "sentence-transformers": (sentence_transformers, task)}
        runs = in_turn(sides, chosen.repeats)
    rates, bare = (
        {side: [count / run.value[what] for run in found] for side, found in runs.items()} for what in ("texts", "rows")
    )
    ours_ND, theirs_ND = (found[-1].value["some"] for found in runs.values())
    details = {
        "ratio without tokenising": statistics.median(bare["ours"]) / statistics.median(bare["sentence-transformers"]),
        "without tokenising": bare,
        "mean tokens": float(rows.lengths_N.mean()),
        "batch size": runs["sentence-transformers"][-1].value["batch size"],
        "least cosine between both": float((ours_ND * theirs_ND).sum(axis=1).min()),
    }
    publish(
        "embedding", "embedding a KB, ours ÷ sentence-transformers, fp32", TARGET, rates, "sentences/s",
        chosen.results, details,
    )  # fmt: skip


def make_task(workdir: pathlib.Path, folder: pathlib.Path, count: int, layers: int) -> tuple[Task, TokenRows]:
    """The encoder in `folder`, and texts of `count` entities with the rows that they come from."""
    from mel.encoder.transformer import init_params

    work = rivals.open_workdir(workdir)
    rows = rivals.open_tokens(work, work.entity_tokens).rows
    tokenizer = Tokenizer.load(work.tokenizer)
    config = EncoderConfig(vocab_size=tokenizer.vocab_size, **LEALLA_SMALL | {"num_layers": layers})
    rivals.save_model(folder, config, init_params(config, seed=0), tokenizer)
    ids = rivals.sample(rows, 2 * count, seed=0)
    texts = rivals.texts_of(rows.take(ids), rivals.load_tokenizer(folder))
    # An unknown word reads [UNK] here, which is one token for them and text for us.
    kept = [i for i, text in enumerate(texts) if "[UNK]" not in text][:count]
    max_tokens = open_artifact(work.entity_tokens, "tokens").facts["max_tokens"]
    return Task(folder, max_tokens, tuple(texts[i] for i in kept), rivals.BATCH_SIZES), rows.take(ids[kept])


def ours(turn: Callable[[Any], None], task: Task) -> None:
    """Tokenises, sorts by width and embeds."""
    from mel.encoder import pretrained
    from mel.encoder.embed import Encoder

    encoder = Encoder(*pretrained.load(task.folder))
    tokenizer = Tokenizer.load(task.folder)
    texts = [rivals.marked(text) for text in task.texts]
    embeddings_ND = np.empty((len(texts), encoder.config.hidden_size), np.float32)

    def tokenise() -> TokenRows:
        return TokenRows.from_rows(tokenizer.rows(texts, task.max_tokens))

    rows = tokenise()
    embed = functools.partial(encoder.embed, out_ND=embeddings_ND)
    while True:
        seconds = {"texts": timed(lambda: embed(tokenise()))(), "rows": timed(lambda: embed(rows))()}
        turn(seconds | {"some": embeddings_ND[:100].copy()})


def sentence_transformers(turn: Callable[[Any], None], task: Task) -> None:
    """`encode` with the best batch size, and the same modules on batches tokenised before."""
    import torch
    from sentence_transformers.util import batch_to_device

    model = rivals.sentence_transformer(task.folder, task.max_tokens)

    def encode(batch_size: int, texts: Sequence[str] = task.texts) -> np.ndarray:
        return model.encode(list(texts), batch_size=batch_size, show_progress_bar=False)

    batch_size = rivals.best_batch_size(model, task.texts, task.batch_sizes)
    shortest_first = sorted(task.texts, key=len)
    batches = [model.preprocess(shortest_first[i : i + batch_size]) for i in range(0, len(shortest_first), batch_size)]

    def forward() -> None:
        with torch.inference_mode():
            for batch in batches:
                model(batch_to_device(dict(batch), model.device))["sentence_embedding"].cpu()

    while True:
        seconds = {"texts": timed(lambda: encode(batch_size))(), "rows": timed(forward)()}
        turn(seconds | {"some": encode(batch_size, task.texts[:100]), "batch size": batch_size})


if __name__ == "__main__":
    launch(main)
