"""Approximate search with ScaNN: a tree of leaves, quantised scores inside, the best re-scored exactly."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from mel.cost import peak_memory_mb
from mel.retrieval.best import keys_of, rows_and_scores
from mel.retrieval.vectors import as_queries, check_finite
from mel.types import MelError

NEIGHBOURS = 10  # of a search that does not say how many
REORDERED = 2.5  # times as many as are asked for are scored again: at twice, one in fifty of the nearest is lost
# Iterations of k-means. A million rows take a third longer with twelve, for .003 more found in as many leaves; of few
# rows that costs nothing.
ITERATIONS, FEW_ITERATIONS, MANY_ROWS = 12, 4, 200_000
QUANTISED = 20_000  # rows that quantisation learns from
ROUNDING = 1e-5  # of a score, by which two ways to compute it may differ


@dataclasses.dataclass(frozen=True)
class ScannSettings:
    """How the tree is built and searched. Zero leaves mean: a number that suits the rows.

    Attributes:
      brute_force_below: with fewer rows there is no tree, and the search is exact.
      leaves: about 2 sqrt(N) by default.
      leaves_to_search: 50 by default, at most a tenth, of one tree, and as much work in all of several; doubled until
        `least_recall` is reached.
      reorder: how many of the best are scored again without quantisation, at least.
      anisotropic_threshold: of the quantisation; 0 for a plain one, with which a million rows are built in 8 s and not
        13, for .0035 less found.
      least_recall: of the rows nearest to a sample of queries.
      rows_a_shard: rows in one tree at most; 0 for as many as memory allows.
    """

    brute_force_below: int = 20_000
    leaves: int = 0
    leaves_to_search: int = 0
    reorder: int = 250
    dimensions_per_block: int = 2
    anisotropic_threshold: float = 0.0
    least_recall: float = 0.98
    rows_a_shard: int = 0


@dataclasses.dataclass(frozen=True)
class ScannIndex:
    """One tree, the neighbours of which have a measured recall; with no leaves it is brute force, and exact.

    It is not reproducible, so an index is published once and not rebuilt.
    """

    searcher: Any
    num_rows: int
    dimension: int
    leaves: int
    leaves_to_search: int
    reorder: int

    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `mel.retrieval.index.Index`. A greater k searches more leaves: k = N finds all rows."""
        queries_QD = as_queries(queries_QD, self.dimension)
        rows_Qk = np.full((len(queries_QD), k), -1, np.int32)
        scores_Qk = np.full((len(queries_QD), k), -np.inf, np.float32)
        depth = min(k, self.num_rows)
        if not depth or not len(queries_QD):
            return rows_Qk, scores_Qk
        options = {}
        if self.leaves:
            # Enough leaves to hold four times as many rows as are asked for.
            needed = max(self.leaves_to_search, -(-4 * depth * self.leaves // self.num_rows))
            options = {
                "leaves_to_search": min(needed, self.leaves),
                "pre_reorder_num_neighbors": min(max(self.reorder, round(REORDERED * depth)), self.num_rows),
            }
        found_Qk, similarities_Qk = self.searcher.search_batched_parallel(
            queries_QD, final_num_neighbors=depth, **options
        )
        # What ScaNN does not find it returns as row 0 with similarity NaN; equal scores it returns in any order.
        keys_Qk = np.where(np.isnan(similarities_Qk), 0, keys_of(found_Qk, similarities_Qk)).astype(np.uint64)
        rows_Qk[:, :depth], scores_Qk[:, :depth] = rows_and_scores(np.sort(keys_Qk, axis=1)[:, ::-1])
        return rows_Qk, scores_Qk

    def serialize(self, folder: pathlib.Path) -> dict[str, int]:
        """Writes the index into `folder` and returns what `load` needs besides."""
        folder.mkdir(parents=True)
        self.searcher.serialize(str(folder), relative_path=True)
        return {"leaves": self.leaves, "leaves_to_search": self.leaves_to_search, "reorder": self.reorder}

    @classmethod
    def load(cls, folder: pathlib.Path, num_rows: int, dimension: int, settings: Mapping[str, int]) -> ScannIndex:
        """Loads what `serialize` wrote; `settings` are what it returned."""
        return cls(_scann().load_searcher(str(folder)), num_rows, dimension, **settings)


def build(embeddings_ND: np.ndarray, settings: ScannSettings, shards: int = 1) -> ScannIndex:
    """Builds a tree over float32 embeddings.

    Args:
      embeddings_ND: its rows.
      settings: how.
      shards: how many trees like it are searched beside it, itself included.

    Raises:
      MelError: an embedding is not finite (ScaNN would end the process), or ScaNN is not installed.
    """
    check_finite(embeddings_ND, "embeddings")
    num_rows, dimension = embeddings_ND.shape
    builder: Any = _scann().builder(embeddings_ND, NEIGHBOURS, "dot_product")
    if num_rows < settings.brute_force_below:
        return ScannIndex(builder.score_brute_force().build(), num_rows, dimension, 0, 0, 0)
    leaves = settings.leaves or round(2 * math.sqrt(num_rows))
    # A leaf of a tree of N rows has sqrt(N) / 2, so that many trees of N / s have as many in sqrt(s) times the leaves.
    usual = max(1, round(min(50, max(1, leaves // 10)) / math.sqrt(shards)))
    leaves_to_search = min(leaves, settings.leaves_to_search or usual)
    iterations = ITERATIONS if num_rows < MANY_ROWS else FEW_ITERATIONS
    quantisation: dict[str, float] = {"training_sample_size": QUANTISED}
    if settings.anisotropic_threshold:
        quantisation["anisotropic_quantization_threshold"] = settings.anisotropic_threshold
    searcher = (
        builder.tree(leaves, leaves_to_search, min(num_rows, 100 * leaves), training_iterations=iterations)
        .score_ah(settings.dimensions_per_block, **quantisation)
        .reorder(settings.reorder)
        .build()
    )
    return ScannIndex(searcher, num_rows, dimension, leaves, leaves_to_search, settings.reorder)


def tune(
    index: ScannIndex, queries_QD: np.ndarray, nearest_Qk: np.ndarray, least_recall: float, shards: int = 1
) -> tuple[ScannIndex, np.ndarray]:
    """Doubles the leaves to search until the recall suffices or all are searched.

    Vectors without structure, as of an encoder before training, need many leaves. Of several trees each has a part of
    what is nearest, so it is tuned at twice the depth of that part.

    Args:
      index: what is tuned.
      queries_QD: what it is tried with.
      nearest_Qk: the scores of the rows that are nearest to each, best first.
      least_recall: of these rows.
      shards: see `build`.

    Returns:
      the index, and the scores of the k rows that it finds.
    """
    depth = nearest_Qk.shape[1]
    tuned_at = min(depth, -(-2 * depth // shards))
    while True:
        _, scores_Qk = index.search(queries_QD, tuned_at)
        recall = share_found(scores_Qk, nearest_Qk[:, :tuned_at])
        searched = f"{index.leaves_to_search} of {index.leaves} leaves" if index.leaves else "all rows"
        logging.info("ScaNN: recall@%d is %.4f with %s searched.", tuned_at, recall, searched)
        if recall >= least_recall or index.leaves_to_search == index.leaves:
            return index, scores_Qk if tuned_at == depth else index.search(queries_QD, depth)[1]
        index = dataclasses.replace(index, leaves_to_search=min(index.leaves, 2 * index.leaves_to_search))


def share_found(scores_Qk: np.ndarray, nearest_Qk: np.ndarray) -> float:
    """The recall of what was found, by its scores: of rows with equal embeddings either may be found.

    Args:
      scores_Qk: of what was found for each query.
      nearest_Qk: of the rows that are nearest to it, best first.
    """
    return float(np.mean(scores_Qk >= nearest_Qk[:, -1:] - ROUNDING))


class Tree(NamedTuple):
    """A tree to be built, in a process of its own.

    Attributes:
      embeddings: the file of all embeddings.
      first, end: the rows that are in it.
      settings: how.
      queries_QD, nearest_Qk: see `tune`.
      folder: what it is written into.
      shards: see `build`.
    """

    embeddings: pathlib.Path
    first: int
    end: int
    settings: ScannSettings
    queries_QD: np.ndarray
    nearest_Qk: np.ndarray
    folder: pathlib.Path
    shards: int = 1


class Built(NamedTuple):
    """What became of a tree.

    Attributes:
      facts: what `ScannIndex.load` needs besides its files.
      scores_Qk: of what it finds for the queries.
      peak_mb: the most memory that its process ever had; 0 where it had none of its own.
    """

    facts: dict[str, int]
    scores_Qk: np.ndarray
    peak_mb: int


def build_tree(tree: Tree) -> Built:
    """Builds a tree, tunes it and writes it."""
    embeddings_nD = np.asarray(np.load(tree.embeddings, mmap_mode="r"))[tree.first : tree.end]
    index = build(embeddings_nD, tree.settings, tree.shards)
    index, scores_Qk = tune(index, tree.queries_QD, tree.nearest_Qk, tree.settings.least_recall, tree.shards)
    return Built(index.serialize(tree.folder), scores_Qk, peak_memory_mb())


@functools.cache
def _scann() -> Any:
    """The library. Its import fails beside an installed TensorFlow that it was not built for, so it sees none."""
    hide = "tensorflow" not in sys.modules
    if hide:
        sys.modules["tensorflow"] = None  # pyright: ignore[reportArgumentType]
    try:
        from scann import scann_ops_pybind
    except ImportError as error:
        raise MelError(f"ScaNN cannot be imported ({error}): install scann, or search with --index=exact.") from error
    finally:
        if hide:
            del sys.modules["tensorflow"]
    return scann_ops_pybind
