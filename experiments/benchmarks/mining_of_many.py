"""mel-mine-negatives for the mentions that a round trains on, out of 20 million, beside as many of a corpus no larger.

Both sides have the knowledge base of a prepared --workdir and its training mentions, over and over until there are so
many. mel-train publishes an encoder of random weights (two layers of 128), which states what the round draws, and the
command mines with exact search: the entities are embedded, the mentions of the round are, searched for and drawn. What
a corpus needs once, its rows decoded for memory mapping, is there before; how long that took is in the details, with
the memory of each side that is no mapped file.

  python -m experiments.benchmarks.mining_of_many --workdir=RUN
"""

from __future__ import annotations

import itertools
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks.harness import Target, interleave, options, parser, publish
from experiments.benchmarks.memory_watch import MemoryWatch
from experiments.benchmarks.rivals import open_workdir
from experiments.programs import ROOT, command, launch, run
from mel.artifacts import START, Artifact, Workdir, discard, open_artifact
from mel.artifacts import publish as publish_artifact
from mel.shards.datasets import RowSet, open_rows, read_rows, write_rows

TARGET = Target(passes=1.15, stretch=1.05, at_least=False)
BATCH, ENCODER = 512, "random:2x128x4"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    flags = parser(__doc__, repeats=3, workdir="a run that mel-prepare-data has prepared, with training mentions")
    flags.add_argument("--mentions", type=int, default=200_000, help="that the round trains on")
    flags.add_argument("--corpus", type=int, default=20_000_000, help="mentions of the larger corpus")
    flags.add_argument(
        "--folder", type=pathlib.Path, help="where both are made, 0.2 GB a million; temporary if not given"
    )
    chosen = options(flags, argv)
    mentions, corpus = (1_024, 5_000) if chosen.quick else (chosen.mentions // BATCH * BATCH, chosen.corpus)
    prepared, details = open_workdir(chosen.workdir), {"mentions": mentions, "corpus": corpus}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        sides = {}
        for side, count in ((f"of {corpus:,}", corpus), (f"of {mentions:,}", mentions)):
            work = Workdir(pathlib.Path(name) / str(count))
            details[f"{side}, seconds to decode the rows"] = make(prepared, work, count)
            steps = f"--steps_per_round={mentions // BATCH}"
            run("train", f"--workdir={work.path}", "--round=-1", f"--encoder={ENCODER}", f"--batch_size={BATCH}", steps)
            sides[side] = lambda work=work: mine(work)
        runs = interleave(sides, chosen.repeats)
    details |= {f"{side}, anonymous memory, MB": max(most for _, most in found) for side, found in runs.items()}
    seconds = {side: [took for took, _ in found] for side, found in runs.items()}
    measure = f"mining {mentions:,} mentions out of {corpus:,} ÷ out of as many"
    return publish("mining_of_many", measure, TARGET, seconds, "s", chosen.results, details)


def make(prepared: Workdir, work: Workdir, count: int) -> float:
    """Puts a working directory with so many mentions beside the prepared one; returns how long decoding took."""
    for source in (prepared.kb, prepared.tokenizer, prepared.entity_tokens):
        shutil.copytree(source, work.path / source.relative_to(prepared.path))
    tokens = open_artifact(prepared.mention_tokens("train"), "tokens")
    with publish_artifact(work.mention_tokens("train"), "tokens") as draft:
        draft.facts, draft.inputs = {**tokens.facts, "rows": count}, dict(tokens.inputs)
        write_rows(draft, over_and_over(tokens, count))
    started = time.perf_counter()
    made = open_artifact(work.mention_tokens("train"), "tokens")
    open_rows(made, work.cache(made))
    return time.perf_counter() - started


def over_and_over(tokens: Artifact, count: int) -> Iterator[RowSet]:
    """The rows of some tokens again and again, so many in all."""
    left = count
    for rows in itertools.chain.from_iterable(read_rows(tokens.path) for _ in itertools.count()):
        yield rows.take(np.arange(min(left, len(rows))))
        left -= len(rows)
        if left <= 0:
            return


def mine(work: Workdir) -> tuple[float, float]:
    """Mines for the first round; returns the seconds, and the most anonymous memory, in MB."""
    discard(work.round(0).negatives)
    discard(work.round(START).entity_embeddings)
    asked = command("mine_negatives", f"--workdir={work.path}", "--round=-1", "--index=exact")
    started = time.perf_counter()
    with MemoryWatch() as watch:
        subprocess.run(asked, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started, watch.parent


if __name__ == "__main__":
    launch(main)
