"""ScaNN in shards of rows, for more rows than a tree can be built over in memory.

Shards are built one after another, each in a process of its own and published beside the index that they will be, so
that a command that was ended goes on after the last one. They are searched one after another, and what they find is
ranked by score as one tree ranks it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from mel.artifacts import Artifact, Draft, discard, exists, open_artifact, publish
from mel.corpora.workers import in_another_process
from mel.memory import free_memory
from mel.retrieval.approximate import Built, ScannIndex, ScannSettings, Tree, build_tree
from mel.retrieval.best import keys_of, rows_and_scores
from mel.retrieval.embeddings import EMBEDDINGS
from mel.retrieval.probes import DEPTH, Probes, nearest_scores, stated
from mel.retrieval.vectors import as_queries
from mel.types import MelError

KIND = "index shard"
SCANN = "scann"  # the folder of ScaNN's own files inside the artefact, one for each shard in it
SCORES = "scores.npy"  # of the rows that are nearest to each probe, and of those that the shard finds
SHARE_OF_MEMORY = 0.5  # of what is free: for a tree that is being built, and for shards that stay in memory
FULL_SHARE = 0.9  # of what is free: for a tree where half of it is too little, and the greatest that is advised
LEAST_ROWS = 100_000  # of a shard: fewer are chosen only where more do not fit
WORTHWHILE_ROWS = 20_000  # fewer are neither chosen nor advised
# Building a tree takes 3.8 times the vectors, of which a quarter is the file that they are read from, and what the
# process holds beside them; both as experiments/benchmarks/scann_shards.py measures them, rounded up.
BYTES_A_VALUE, BYTES_OF_A_PROCESS = 16, 500 * 10**6
GIGA = 10**9


class ShardedIndex:
    """Shards that are searched one after another, as many of them kept in memory as fit; the others are read each time.

    Args:
      folder: what their folders are in.
      shards: the facts of each: its "rows", and what `ScannIndex.load` needs.
      dimension: of the vectors.
      kept_bytes: what may stay in memory, at least one shard; None for a share of what is free.
    """

    def __init__(
        self, folder: pathlib.Path, shards: Sequence[Mapping[str, int]], dimension: int, kept_bytes: float | None = None
    ):
        self._folder, self._shards, self._dimension = folder, shards, dimension
        left = SHARE_OF_MEMORY * free_memory() if kept_bytes is None else kept_bytes
        self._kept: dict[int, ScannIndex] = {}
        for number in range(len(shards)):
            left -= sum(file.stat().st_size for file in (folder / _name(number)).iterdir())
            if number and left < 0:
                logging.info("%d of %d shards of %s stay in memory.", number, len(shards), folder.parent)
                break
            self._kept[number] = self._load(number)

    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `mel.retrieval.index.Index`; of equal scores the smaller row comes first."""
        queries_QD = as_queries(queries_QD, self._dimension)
        best_Qk, first_row = np.zeros((len(queries_QD), k), np.uint64), 0
        for number, shard in enumerate(self._shards):
            index = self._kept[number] if number in self._kept else self._load(number)
            rows_Qk, scores_Qk = index.search(queries_QD, k)
            found_Qk = np.where(rows_Qk < 0, np.uint64(0), keys_of(rows_Qk.astype(np.int64) + first_row, scores_Qk))
            best_Qk = np.sort(np.concatenate([best_Qk, found_Qk], axis=1), axis=1)[:, ::-1][:, :k]
            first_row += shard["rows"]
        return rows_and_scores(best_Qk)

    def _load(self, number: int) -> ScannIndex:
        facts = dict(self._shards[number])
        return ScannIndex.load(self._folder / _name(number), facts.pop("rows"), self._dimension, facts)


def build_in_shards(
    folder: pathlib.Path, embeddings: Artifact, settings: ScannSettings, probes: Probes, draft: Draft
) -> dict[str, Any]:
    """Builds what is not built yet, puts it into `draft`, and returns the facts of the index.

    Args:
      folder: where shards stand until they are all there; the caller holds a claim on what is made of them, and
        deletes it when that is published.
      embeddings: what is searched.
      settings: how.
      probes: what each shard is tuned with, and the recall of all is measured with.
      draft: of the index.

    Raises:
      MelError: an embedding is not finite, ScaNN is not installed, or a tree does not fit into memory.
    """
    embeddings_ND = np.load(embeddings / EMBEDDINGS, mmap_mode="r")
    num_rows, dimension = embeddings_ND.shape
    most = rows_a_shard(num_rows, dimension, settings, _begun_with(folder, embeddings))
    bounds = _bounds(num_rows, most)
    shards = []
    for number, (first, end) in enumerate(bounds):
        if len(bounds) > 1:
            logging.info("ScaNN: shard %d of %d, rows %d to %d", number + 1, len(bounds), first, end)
        shards.append(_shard(folder, number, embeddings, embeddings_ND, (first, end, most), settings, probes))
    for shard in shards:
        for name in shard.files:
            if name != SCORES:
                draft.adopts(shard, name)
    nearest_Qk, found_Qk = _merged([np.load(shard / SCORES) for shard in shards], DEPTH)
    needed = needed_bytes(max(end - first for first, end in bounds), dimension, settings)
    return {
        "recall": stated(probes, found_Qk, nearest_Qk),
        "shards": [shard.facts["shard"] for shard in shards],
        "needed_mb": round(needed / 1e6),
        "peak_mb": max(shard.facts["peak_mb"] for shard in shards),
    }


def needed_bytes(rows: int, dimension: int, settings: ScannSettings) -> int:
    """What building a tree over so many rows takes at most; without a tree hardly more than the vectors."""
    if rows < settings.brute_force_below:
        return 3 * 4 * rows * dimension
    return BYTES_A_VALUE * rows * dimension + BYTES_OF_A_PROCESS


def rows_a_shard(num_rows: int, dimension: int, settings: ScannSettings, begun: int = 0) -> int:
    """How many rows a shard has at most.

    Args:
      num_rows: of the index.
      dimension: of the vectors.
      settings: where they say nothing, memory does.
      begun: how many a command that was ended had chosen, 0 for none.

    Raises:
      MelError: building over so many does not fit into the memory that is free.
    """
    free = free_memory()
    most = settings.rows_a_shard
    if not most and begun and needed_bytes(min(begun, num_rows), dimension, settings) <= free:
        most = begun
    fitting = _fitting(FULL_SHARE * free, dimension)
    usual = max(_fitting(SHARE_OF_MEMORY * free, dimension), min(LEAST_ROWS, fitting), WORTHWHILE_ROWS)
    most = min(num_rows, most or usual)
    if (needed := needed_bytes(-(-num_rows // -(-num_rows // most)), dimension, settings)) > free:
        way_out = f"state --rows_a_shard={fitting}" if fitting >= WORTHWHILE_ROWS else "free some"
        raise MelError(
            f"Building a ScaNN index over {most:,} rows of {dimension} dimensions at once needs {needed / GIGA:.1f} GB "
            f"of memory, and {free / GIGA:.1f} GB are free: {way_out}, or search with --index=exact."
        )
    return most


def _fitting(budget: float, dimension: int) -> int:
    """How many rows a tree may have that is built in so many bytes."""
    return int(min(2**31, max(0.0, (budget - BYTES_OF_A_PROCESS) / (BYTES_A_VALUE * dimension))))


def _bounds(num_rows: int, most: int) -> list[tuple[int, int]]:
    """Where shards begin and end that have so many rows at most, and as good as the same number."""
    edges = np.linspace(0, num_rows, -(-num_rows // most) + 1).astype(np.int64).tolist()
    return list(zip(edges[:-1], edges[1:], strict=True))


def _shard(
    folder: pathlib.Path, number: int, embeddings: Artifact, embeddings_ND: np.ndarray, rows: tuple[int, int, int],
    settings: ScannSettings, probes: Probes,
) -> Artifact:  # fmt: skip
    """The published shard over some rows, built where it is not there; `rows` are its first, its end, and the most."""
    path, (first, end, most) = folder / _name(number), rows
    made_with = dataclasses.asdict(dataclasses.replace(settings, rows_a_shard=most))
    asked = hashlib.sha256(np.ascontiguousarray(probes.queries_QD).tobytes()).hexdigest()
    made = {"first": first, "end": end, "settings": made_with, "probes": asked}
    if found := _open(path, embeddings, made):
        return found
    with publish(path, KIND) as draft:
        draft.reads("embeddings", embeddings)
        nearest_Qk = nearest_scores(embeddings_ND[first:end], probes.queries_QD, DEPTH)
        tree = Tree(
            embeddings / EMBEDDINGS, first, end, settings, probes.queries_QD, nearest_Qk,
            draft.path / SCANN / _name(number), -(-len(embeddings_ND) // most),
        )  # fmt: skip
        built = _built(tree)
        found = stated(probes, built.scores_Qk, nearest_Qk)
        logging.info("ScaNN: recall@%d is %.4f, %s", found["depth"], found["recall"], built.facts)
        np.save(draft / SCORES, np.stack([nearest_Qk, built.scores_Qk]))
        draft.facts = {"made": made, "shard": {"rows": end - first} | built.facts, "peak_mb": built.peak_mb}
    return open_artifact(path, KIND)


def _built(tree: Tree) -> Built:
    """A tree is built in another process, which gives its memory back; what is no tree is not worth one."""
    if tree.end - tree.first < tree.settings.brute_force_below:
        return build_tree(tree)._replace(peak_mb=0)
    return in_another_process(build_tree, tree, f"state --rows_a_shard={(tree.end - tree.first) // 2}")


def _open(path: pathlib.Path, embeddings: Artifact, made: Mapping[str, Any]) -> Artifact | None:
    """A published shard; None where it has to be built, after deleting one that is damaged or of another index."""
    if exists(path):
        try:
            shard = open_artifact(path, KIND, {"embeddings": embeddings})
            shard.settle()
            if shard.facts["made"] == made:
                return shard
        except MelError as error:
            logging.warning("%s That is done now.", error)
    if path.exists():
        discard(path)
    return None


def _begun_with(folder: pathlib.Path, embeddings: Artifact) -> int:
    """How many rows a shard had at most in a command that was ended; 0 where there was none over these embeddings."""
    try:
        first = open_artifact(folder / _name(0), KIND, {"embeddings": embeddings}, reads=())
    except MelError:
        return 0
    return first.facts["made"]["settings"]["rows_a_shard"]


def _merged(scores: Sequence[np.ndarray], depth: int) -> tuple[np.ndarray, np.ndarray]:
    """The best scores of all shards, of the nearest rows and of those found, of [2, Q, k] of each shard."""
    both_2Qm = -np.sort(-np.concatenate(scores, axis=2), axis=2)[:, :, :depth]
    return both_2Qm[0], both_2Qm[1]


def _name(number: int) -> str:
    return f"{number:05d}"
