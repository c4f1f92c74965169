"""Bytes that a mining round writes for training, beside token shards that hold the negatives' tokens.

Ours writes K entity rows, int32, for each training mention. The rival writes the tokens of each mention,
its gold and its negatives, without padding, in the same compressed shards as ours; it is weighed on a
sample and scaled up. In the details are the same tokens as the thesis code writes them, padded and not
compressed, and the token shards of the whole collection, which hold each mention and each entity once.

  python -m experiments.benchmarks.mined_bytes --workdir=RUN
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from experiments.benchmarks.harness import Target, options, parser, publish
from experiments.benchmarks.rivals import open_tokens, open_workdir
from experiments.programs import launch
from mel.artifacts import Artifact, Draft, Workdir, exists, open_artifact
from mel.shards.datasets import RowSet, write_rows
from mel.shards.negatives import Negatives, open_negatives

TARGET = Target(passes=1 / 30, stretch=1 / 60, at_least=False)
MENTIONS_AT_ONCE = 4096
ITEM_BYTES = np.dtype(np.int32).itemsize


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__, workdir="a run with at least one mined round")
    flags.add_argument("--sample", type=int, default=20_000, help="mentions whose shards are written to be weighed")
    chosen = options(flags, argv)
    work = open_workdir(chosen.workdir)
    tokens, rounds = open_artifact(work.mention_tokens("train"), "tokens"), mined_rounds(work)
    if not rounds:
        flags.error(f"--workdir={chosen.workdir} has no mined negatives.")
    mentions, entities = open_tokens(work, tokens.path), open_tokens(work, work.entity_tokens)
    most = 2_000 if chosen.quick else chosen.sample
    negatives = [open_negatives(artifact.path, tokens) for artifact in rounds]
    runs = {
        "row ids": [size(artifact) for artifact in rounds],
        "tokens": [ragged_bytes(mentions, entities, each, most) for each in negatives],
    }
    longest = max(tokens.facts["max_tokens"], open_artifact(work.entity_tokens, "tokens").facts["max_tokens"])
    collection = sum(size(open_artifact(path, "tokens")) for path in (work.entity_tokens, tokens.path))
    details = {
        "negatives a mention": negatives[-1].per_mention,
        "ours / padded tokens": runs["row ids"][-1] / padded_bytes(negatives[-1].rows_nK, longest),
        "ours / token shards of the whole collection": runs["row ids"][-1] / collection,
    }
    runs = {side: [count / 1e6 for count in counts] for side, counts in runs.items()}
    measure = "bytes written per mining round ÷ token shards with the negatives in them"
    publish("mined_bytes", measure, TARGET, runs, "MB", chosen.results, details)


def mined_rounds(work: Workdir) -> list[Artifact]:
    """The hard negatives of all rounds, in order; random ones are not mined."""
    paths = filter(exists, (work.round(number).negatives for number in work.rounds()))
    found = [open_artifact(path, "negatives") for path in paths]
    return [artifact for artifact in found if artifact.facts["settings"]["negatives"] != "random"]


def size(artifact: Artifact) -> int:
    """The bytes of an artefact's files, its manifest included."""
    return sum(file.stat().st_size for file in artifact.path.rglob("*") if file.is_file())


def padded_bytes(rows_NK: np.ndarray, longest: int) -> int:
    """int32 tokens of each mention, its gold and its K negatives, all as long as the longest row."""
    mentions, negatives = rows_NK.shape
    return mentions * (2 + negatives) * longest * ITEM_BYTES


def ragged_bytes(mentions: RowSet, entities: RowSet, negatives: Negatives, most: int) -> float:
    """The same tokens without padding in compressed shards, scaled up from the first `most` mentions."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Draft(pathlib.Path(folder) / "tokens")
        draft.path.mkdir()
        ids_n = np.arange(len(negatives)) if negatives.mentions_n is None else negatives.mentions_n
        write_rows(draft, texts_of_round(mentions.take(ids_n[:most]), entities, negatives.rows_nK[:most]))
        written = sum(file.stat().st_size for file in draft.path.iterdir())
    return written * len(negatives) / len(negatives.rows_nK[:most])


def texts_of_round(mentions: RowSet, entities: RowSet, rows_NK: np.ndarray) -> Iterator[RowSet]:
    """The token rows of mentions, and of golds and negatives; a gold outside the KB counts as row 0."""
    for first in range(0, len(rows_NK), MENTIONS_AT_ONCE):
        ids_n = np.arange(first, min(first + MENTIONS_AT_ONCE, len(rows_NK)))
        golds_n = np.maximum(mentions.entity_rows_N[ids_n], 0)
        yield mentions.take(ids_n)
        yield entities.take(np.concatenate([golds_n[:, None], rows_NK[ids_n]], axis=1).reshape(-1))


if __name__ == "__main__":
    launch(main)
