"""Approximate search with ScaNN: a tree of leaves, quantised scores inside, the best re-scored exactly."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from mel.retrieval.exact import ExactIndex
from mel.retrieval.vectors import as_queries, check_finite
from mel.types import MelError

RECALL_DEPTH = 10
RECALL_SAMPLE = 500


@dataclasses.dataclass(frozen=True)
class ScannSettings:
    """How the tree is built and searched. Zero leaves mean: a number that suits the rows.

    Attributes:
      brute_force_below: with fewer rows there is no tree, and the search is exact.
      leaves: about 2 sqrt(N) by default.
      leaves_to_search: 100 by default, at most a tenth; doubled until `least_recall` is reached.
      reorder: how many of the best are scored again without quantisation.
      least_recall: of the ten nearest, over a sample of rows.
    """

    brute_force_below: int = 20_000
    leaves: int = 0
    leaves_to_search: int = 0
    reorder: int = 250
    dimensions_per_block: int = 2
    anisotropic_threshold: float = 0.2
    least_recall: float = 0.98


@dataclasses.dataclass(frozen=True)
class ScannIndex:
    """Neighbours with a measured recall; with no leaves it is brute force, and exact.

    Building takes about 3.5 times the memory of the vectors: 75 GB for 28 million of 192 dimensions.
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
                "pre_reorder_num_neighbors": max(self.reorder, depth),
            }
        found_Qk, similarities_Qk = self.searcher.search_batched_parallel(
            queries_QD, final_num_neighbors=depth, **options
        )
        # What ScaNN does not find it returns as row 0 with similarity NaN.
        missing_Qk = np.isnan(similarities_Qk)
        rows_Qk[:, :depth] = np.where(missing_Qk, -1, found_Qk.astype(np.int64))
        scores_Qk[:, :depth] = np.where(missing_Qk, -np.inf, similarities_Qk)
        return rows_Qk, scores_Qk

    def serialize(self, folder: pathlib.Path) -> dict[str, int]:
        """Writes the index into `folder` and returns what `load` needs besides."""
        folder.mkdir()
        self.searcher.serialize(str(folder), relative_path=True)
        return {"leaves": self.leaves, "leaves_to_search": self.leaves_to_search, "reorder": self.reorder}

    @classmethod
    def load(cls, folder: pathlib.Path, num_rows: int, dimension: int, settings: Mapping[str, int]) -> ScannIndex:
        """Loads what `serialize` wrote; `settings` are what it returned."""
        return cls(_scann().load_searcher(str(folder)), num_rows, dimension, **settings)


def build(embeddings_ND: np.ndarray, settings: ScannSettings) -> ScannIndex:
    """Builds an index over float32 embeddings.

    Raises:
      MelError: an embedding is not finite (ScaNN would end the process), or ScaNN is not installed.
    """
    check_finite(embeddings_ND, "embeddings")
    num_rows, dimension = embeddings_ND.shape
    builder: Any = _scann().builder(embeddings_ND, RECALL_DEPTH, "dot_product")
    if num_rows < settings.brute_force_below:
        return ScannIndex(builder.score_brute_force().build(), num_rows, dimension, 0, 0, 0)
    leaves = settings.leaves or round(2 * math.sqrt(num_rows))
    leaves_to_search = min(leaves, settings.leaves_to_search or min(100, max(1, leaves // 10)))
    searcher = (
        builder.tree(leaves, leaves_to_search, training_sample_size=min(num_rows, 100 * leaves))
        .score_ah(settings.dimensions_per_block, anisotropic_quantization_threshold=settings.anisotropic_threshold)
        .reorder(settings.reorder)
        .build()
    )
    return ScannIndex(searcher, num_rows, dimension, leaves, leaves_to_search, settings.reorder)


def tune(index: ScannIndex, embeddings_ND: np.ndarray, least_recall: float) -> tuple[ScannIndex, float]:
    """Doubles the leaves to search until the recall suffices or all are searched; returns both.

    Vectors without structure, as of an encoder before training, need many leaves.
    """
    sample = np.linspace(0, len(embeddings_ND) - 1, RECALL_SAMPLE).astype(np.int64)
    queries_QD = embeddings_ND[sample]
    depth = min(RECALL_DEPTH, len(embeddings_ND))
    _, true_Qk = ExactIndex(embeddings_ND).search(queries_QD, depth)
    while True:
        _, scores_Qk = index.search(queries_QD, depth)
        # By score: of rows with equal embeddings either may be found.
        recall = float(np.mean(scores_Qk >= true_Qk[:, -1:] - 1e-5))
        searched = f"{index.leaves_to_search} of {index.leaves} leaves" if index.leaves else "all rows"
        logging.info("ScaNN: recall@%d is %.4f with %s searched.", depth, recall, searched)
        if recall >= least_recall or index.leaves_to_search == index.leaves:
            return index, recall
        index = dataclasses.replace(index, leaves_to_search=min(index.leaves, 2 * index.leaves_to_search))


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
