"""Mentions and answers small enough to count by hand; entity n is "Qn"."""

import numpy as np

from mel.corpora.kb import KnowledgeBase
from mel.corpora.mentions import MentionLine
from mel.evaluation import breakdowns
from mel.evaluation.evaluation_set import EvaluationSet
from mel.evaluation.fusion import Pool
from mel.evaluation.ranking import Ranking
from mel.reports.report import Evaluation, Report, measure
from mel.shards.rows import TokenRows

DIGESTS = {"mentions": "aa", "kb": "bb"}
THREE = ("ambiguous", "unseen", "ambiguous")
USUAL = MentionLine("", "de", "Mond", 0, 4, "", "", "", -1, None, "", "")


def kb_of(*rows, linked=999) -> KnowledgeBase:
    """A row of each (number, language, title); entities up to `linked` are known without a row."""
    languages = list(dict.fromkeys(language for _, language, _ in rows))
    keys = [(f"Q{number}", languages.index(language)) for number, language, _ in rows]
    return KnowledgeBase.of(keys, [title for *_, title in rows], languages, [f"Q{n + 1}" for n in range(linked)])


KB = kb_of((1, "de", "Eins"), (2, "de", "Zwei"), (3, "de", "Drei"), (3, "en", "Three"))


def mentions_of(golds, **columns) -> EvaluationSet:
    """One German mention a gold, each in its own document, unless `columns` of `MentionLine` say otherwise."""
    usual = {"mention_id": [f"m{n}" for n in range(len(golds))], "document": [f"d{n}" for n in range(len(golds))]}
    by_mention = zip(*(usual | columns).values(), strict=True)
    lines = [USUAL._replace(gold=f"Q{gold}" if gold else "NIL") for gold in golds]
    lines = [line._replace(**dict(zip(usual | columns, values))) for line, values in zip(lines, by_mention)]
    return EvaluationSet(lines, np.asarray(golds, np.int64), TokenRows.from_rows([[1]] * len(golds)), {}, {})


def ranking_of(entities) -> Ranking:
    """Candidates in this order, 0 where there are no more."""
    entities = np.asarray(entities, np.int64)
    return Ranking(entities, np.where(entities > 0, -np.arange(entities.shape[1], dtype=np.float32), -np.inf))


def pool_of(entities, cosines, priors) -> Pool:
    """A pool of these candidates, their cosines and probabilities."""
    return Pool(np.array(entities), np.array(cosines, np.float32), np.log(np.array(priors, np.float32)))


def about(**changes) -> Report:
    return {
        "name": "hand-made", "model": "checkpoint", "round": 2, "search": "exact", "seed": 0, "dataset": "",
        "split": "dev", "languages": [], "limit": 0, "command": "mel-evaluate --workdir=W", "inputs": DIGESTS,
    } | changes  # fmt: skip


def evaluation(entities=((1, 2, 3), (2, 1, 0), (3, 2, 1)), golds=(1, 1, 9), in_training=THREE, **columns) -> Evaluation:
    """Three mentions of two documents: found first, found second, gold outside the KB."""
    columns = {"document": ["d0", "d1", "d0"], "language": ["de", "ar", "de"]} | columns
    groups = {breakdowns.IN_TRAINING: list(in_training)}
    return Evaluation(mentions_of(golds, **columns), groups, ranking_of(entities), KB)


def report_of(evaluated: Evaluation, **changes) -> Report:
    return about(**changes) | {"dropped": {"span outside its text": 4}} | measure(evaluated)
