"""What every index asks of the vectors it is given."""

from __future__ import annotations

import numpy as np

from mel.types import MelError

ROWS_AT_ONCE = 65_536


def check_finite(vectors_ND: np.ndarray, origin: str) -> None:
    """Checks that no vector holds NaN or infinity, a block of rows at a time.

    Raises:
      MelError: one does; the sentence begins with `origin`.
    """
    for start in range(0, len(vectors_ND), ROWS_AT_ONCE):
        finite_n = np.isfinite(vectors_ND[start : start + ROWS_AT_ONCE]).all(axis=1)
        if not finite_n.all():
            row = start + int(finite_n.argmin())
            raise MelError(
                f"{origin}: row {row} of {len(vectors_ND)} is not finite, so the encoder that made it has diverged: "
                "train it again with a lower learning rate."
            )


def as_queries(queries_QD: np.ndarray, dimension: int) -> np.ndarray:
    """The queries as contiguous float32.

    Raises:
      MelError: they have another dimension than the index, or are not finite.
    """
    if queries_QD.ndim != 2 or queries_QD.shape[1] != dimension:
        raise MelError(
            f"Queries of shape {list(queries_QD.shape)} do not fit an index of {dimension} dimensions: "
            "embed them with the checkpoint that the index was made from."
        )
    check_finite(queries_QD, "queries")
    return np.ascontiguousarray(queries_QD, np.float32)
