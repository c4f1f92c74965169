"""Questions and answers small enough to count by hand."""

import numpy as np

from mel.evaluation import breakdowns
from mel.evaluation.questions import Questions
from mel.evaluation.recall import Ranking
from mel.evaluation.report import Answers, Report, measure
from mel.shards.rows import TokenRows

DIGESTS = {"mentions": "aa", "kb": "bb"}
KB = np.array([1, 2, 3, 3])
THREE = ("ambiguous", "unseen", "ambiguous")


def questions_of(golds, **columns) -> Questions:
    """One German mention a gold, each in its own document, unless `columns` say otherwise."""
    count = len(golds)
    columns = {
        "mention_ids": [f"m{number}" for number in range(count)],
        "documents": [f"d{number}" for number in range(count)],
        "languages": ["de"] * count,
        "surface_forms": ["Mond"] * count,
        "titles": [""] * count,
        "frequency_bins": [-1] * count,
        "in_references": [-1] * count,
        "lemmas": [""] * count,
    } | columns
    rows = TokenRows.from_rows([[1]] * count)
    return Questions(gold_Q=np.asarray(golds, np.int64), rows=rows, dropped={}, inputs={}, **columns)


def ranking_of(qids) -> Ranking:
    """Candidates in this order, 0 where there are no more."""
    qids = np.asarray(qids, np.int64)
    return Ranking(qids, np.where(qids > 0, -np.arange(qids.shape[1], dtype=np.float32), -np.inf))


def about(**changes) -> Report:
    return {
        "name": "hand-made", "model": "checkpoint", "round": 2, "search": "exact", "seed": 0, "dataset": "",
        "split": "dev", "languages": [], "limit": 0, "command": "mel-evaluate --workdir=W", "inputs": DIGESTS,
    } | changes  # fmt: skip


def answers(qids=((1, 2, 3), (2, 1, 0), (3, 2, 1)), golds=(1, 1, 9), in_training=THREE, **columns) -> Answers:
    """Three mentions of two documents: found first, found second, gold outside the KB."""
    columns = {"documents": ["d0", "d1", "d0"], "languages": ["de", "ar", "de"]} | columns
    return Answers(questions_of(golds, **columns), {breakdowns.IN_TRAINING: list(in_training)}, ranking_of(qids))


def report_of(answered: Answers, **changes) -> Report:
    return about(**changes) | {"dropped": {"span outside its text": 4}} | measure(answered, KB)
