"""The whole mining call: embed mentions and entities, index, search, draw, beside `mine_hard_negatives`.

Both use the encoder of an exported bundle on the token rows of a prepared --workdir, all entities and a
sample of the training mentions; the rival gets them as texts and both its ways, with and without FAISS,
are run. Ours reads rows that `mel-prepare-data` has tokenised once and for all; the details say what the
ratio is when it tokenises as well. Both draw 3 negatives from the 12 nearest. The rival leaves out only
the mention's own positive text; ours leaves out every row of the gold's QID.

  python -m experiments.benchmarks.mining_call --workdir=RUN
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks import rivals
from experiments.benchmarks.harness import Target, in_turn, options, parser, publish
from experiments.benchmarks.mining_search import tuned_index
from experiments.programs import launch
from mel.shards.datasets import RowSet
from mel.shards.rows import TokenRows, bucket_width
from mel.text.tokenizer import Tokenizer

TARGET = Target(passes=3.0, stretch=8.0)
NEGATIVES, POOL = 3, 12
QUERIES_AT_ONCE = 2048  # scores of so many mentions against all entities still fit in memory


@dataclasses.dataclass(frozen=True)
class Task:
    """What both sides are given.

    Attributes:
      workdir: the run; its bundle holds the encoder.
      mentions: how many training mentions.
      entities: how many entities, the first; the mentions are of these.
      batch_sizes: what the rival may choose from.
    """

    workdir: pathlib.Path
    mentions: int
    entities: int | None
    batch_sizes: tuple[int, ...]

    def rows(self) -> tuple[RowSet, np.ndarray, RowSet]:
        """All mentions, the rows of those taken, and the entities."""
        work = rivals.open_workdir(self.workdir)
        mentions = rivals.open_tokens(work, work.mention_tokens("train"))
        entities = rivals.open_tokens(work, work.entity_tokens)
        entities = entities.take(np.arange(min(self.entities or len(entities), len(entities))))
        usable = np.flatnonzero((mentions.entity_rows_N >= 0) & (mentions.entity_rows_N < len(entities)))
        return mentions, np.random.default_rng(0).permutation(usable)[: self.mentions], entities


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__, repeats=3, workdir="a run that mel-export has exported")
    flags.add_argument("--mentions", type=int, default=10_000, help="training mentions, chosen at random")
    chosen = options(flags, argv)
    rivals.require("torch", "sentence_transformers", "datasets", "faiss")
    rivals.open_workdir(chosen.workdir, exported=True)
    task = Task(chosen.workdir.absolute(), chosen.mentions, None, rivals.BATCH_SIZES)
    if chosen.quick:
        task = dataclasses.replace(task, mentions=300, entities=500, batch_sizes=(32,))
    rival = {"mine_hard_negatives with FAISS": (theirs, task, True), "mine_hard_negatives": (theirs, task, False)}
    runs = in_turn({"ours": (ours, task)} | rival, chosen.repeats, warmups=0)
    seconds = {side: [run.value["seconds"] for run in found] for side, found in runs.items()}
    faster, slower = sorted(rival, key=lambda side: statistics.median(seconds[side]))
    tokenising = statistics.median(run.value["tokenising"] for run in runs["ours"])
    ours_s, best_s = (statistics.median(seconds[side]) for side in ("ours", faster))
    details = {
        "ratio where ours tokenises too": best_s / (ours_s + tokenising),
        "stages of ours, seconds": runs["ours"][-1].value["stages"],
        "mentions and entities": runs["ours"][-1].value["rows"],
        "batch size": runs[faster][-1].value["batch size"],
    }
    count = runs["ours"][-1].value["rows"][0]
    rates = {side: [count / value for value in seconds[side]] for side in ("ours", faster, slower)}
    measure = "the whole mining call, ours ÷ the faster mine_hard_negatives"
    publish("mining_call", measure, TARGET, rates, "mentions/s", chosen.results, details)


def ours(turn: Callable[[Any], None], task: Task) -> None:
    """What `mel-mine-negatives` does between its files."""
    from mel.linking.bundle import open_bundle
    from mel.retrieval.mining import Twins, mine

    bundle = rivals.open_workdir(task.workdir).bundle
    encoder = open_bundle(bundle).encoder
    mentions, ids_Q, entities = task.rows()
    mention_rows = mentions.rows.take(ids_Q)

    for rows in (mention_rows, entities.rows):  # compiles every width
        _, first = np.unique(bucket_width(rows.lengths_N), return_index=True)
        encoder.embed(rows.take(first))
    tokenising = seconds_to_tokenise(bundle / "encoder", [mention_rows, entities.rows])
    while True:
        clock = [time.perf_counter()]
        embeddings_ED, queries_QD = encoder.embed(entities.rows), encoder.embed(mention_rows)
        clock.append(time.perf_counter())
        index = tuned_index(embeddings_ED, queries_QD)
        clock.append(time.perf_counter())
        twins = Twins(entities.rows.twins(), mentions.entity_rows_N[ids_Q])
        mine(index, queries_QD, mentions.entities_N[ids_Q], entities.entities_N, NEGATIVES, POOL, seed=0, twins=twins)
        clock.append(time.perf_counter())
        stages = dict(zip(("embed", "index", "search and draw"), np.diff(clock).tolist()))
        rows = len(ids_Q), len(entities)
        turn({"seconds": clock[-1] - clock[0], "stages": stages, "rows": rows, "tokenising": tokenising})


def seconds_to_tokenise(folder: pathlib.Path, row_sets: Sequence[TokenRows]) -> float:
    """What our tokenizer takes for the texts of these rows."""
    theirs, tokenizer = rivals.load_tokenizer(folder), Tokenizer.load(folder)
    texts = [[rivals.marked(text) for text in rivals.texts_of(rows, theirs)] for rows in row_sets]
    start = time.perf_counter()
    for some, rows in zip(texts, row_sets):
        tokenizer.rows(some, int(rows.lengths_N.max()))
    return time.perf_counter() - start


def theirs(turn: Callable[[Any], None], task: Task, use_faiss: bool) -> None:
    """`mine_hard_negatives` with the batch size that is best for encoding."""
    import datasets
    import faiss
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    torch.set_num_threads(rivals.THREADS)
    faiss.omp_set_num_threads(rivals.THREADS)
    datasets.disable_progress_bars()
    bundle = rivals.open_workdir(task.workdir).bundle
    model, tokenizer = SentenceTransformer(str(bundle)), rivals.load_tokenizer(bundle / "encoder")
    mentions, ids_Q, entities = task.rows()
    corpus = rivals.texts_of(entities.rows, tokenizer)
    anchors = rivals.texts_of(mentions.rows.take(ids_Q), tokenizer)
    positives = [corpus[row] for row in mentions.entity_rows_N[ids_Q]]
    pairs = datasets.Dataset.from_dict({"anchor": anchors, "positive": positives})
    batch_size = rivals.best_batch_size(model, anchors, task.batch_sizes)
    while True:
        start = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars cannot be switched off
            mine_hard_negatives(
                pairs, model, corpus=corpus, range_max=POOL, num_negatives=NEGATIVES, sampling_strategy="random",
                output_format="n-tuple", batch_size=batch_size, faiss_batch_size=QUERIES_AT_ONCE, use_faiss=use_faiss,
                verbose=False,
            )  # fmt: skip
        turn({"seconds": time.perf_counter() - start, "batch size": batch_size})


if __name__ == "__main__":
    launch(main)
