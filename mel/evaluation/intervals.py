"""How far a figure can be trusted: percentile bootstrap over documents, translations of one page together.

The mentions of one document share its subject and its author, and so do those of its translations, so it is documents
that are drawn anew, each with all its mentions and with its translations: `documents` names what is drawn as one.
Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3, with documents as the units.
A single document gives an interval of width 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
RESAMPLES_AT_ONCE = 64  # bounds the memory of the counts, [64, documents]

Interval = tuple[float, float]


def resampled_means(
    values_Q: np.ndarray,
    documents: Sequence[str],
    headings: Mapping[str, Sequence[str]],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[str, dict[str, np.ndarray]]:
    """The mean of a value over each group of mentions, in R resamples of the documents.

    All groups see the same resamples, and the order of the mentions changes nothing.

    Args:
      values_Q: the value of each mention, such as 1 for a hit and 0 for a miss, or the difference of
        two systems' hits.
      documents: the document of each.
      headings: the group of each, under any number of headings.
      rng: what draws.
      resamples: R.

    Returns:
      {heading: {group: means_R}}, NaN where a resample holds no mention of the group.
    """
    names, document_Q = np.unique(np.asarray(documents, np.str_), return_inverse=True)
    groups, totals, counts = [], [], []
    for heading, group_of_mention in headings.items():
        group_names, group_Q = np.unique(np.asarray(group_of_mention, np.str_), return_inverse=True)
        shape = len(names), len(group_names)
        cell_Q = document_Q * shape[1] + group_Q
        groups += [(heading, str(group)) for group in group_names]
        totals.append(np.bincount(cell_Q, values_Q, shape[0] * shape[1]).reshape(shape))
        counts.append(np.bincount(cell_Q, minlength=shape[0] * shape[1]).reshape(shape))
    sums_R2G = _resampled_sums(np.concatenate(totals + counts, axis=1), rng, resamples)
    totals_RG, counts_RG = np.split(sums_R2G, 2, axis=1)
    means_RG = np.divide(totals_RG, counts_RG, out=np.full_like(totals_RG, np.nan), where=counts_RG > 0)
    result: dict[str, dict[str, np.ndarray]] = {heading: {} for heading in headings}
    for (heading, group), means_R in zip(groups, means_RG.T, strict=True):
        result[heading][group] = means_R
    return result


def macro_means(means: Mapping[str, np.ndarray]) -> np.ndarray:
    """The plain mean over groups in each of R resamples, of the groups that a resample holds."""
    return np.nanmean(list(means.values()), axis=0)


def interval(means_R: np.ndarray, level: float = LEVEL) -> Interval:
    """The middle `level` of the resamples that have a mean."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(means_R, [tail, 1 - tail])
    return float(low), float(high)


def _resampled_sums(sums_DS: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Sums over as many documents as there are, drawn with replacement: [R, S]."""
    documents, blocks = len(sums_DS), []
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        counts_RD = np.stack([
            np.bincount(rng.integers(documents, size=documents), minlength=documents)
            for _ in range(min(RESAMPLES_AT_ONCE, resamples - start))
        ])  # fmt: skip
        blocks.append(counts_RD.astype(np.float64) @ sums_DS)
    return np.concatenate(blocks)
