"""String similarity that knows the links of one source language alone, as the encoders of this study do.

Its alias table counts the mentions that the source's runs draw with seed 0, beside the names of all entities.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from experiments.ranks import ranks_of
from mel.artifacts import Workdir, open_artifact
from mel.corpora import alias_table
from mel.corpora.alias_columns import NAMES
from mel.corpora.alias_table import AliasTable, Counts
from mel.corpora.kb import KnowledgeBase
from mel.evaluation.evaluation_set import read_prepared
from mel.systems.alias_tables import rank_by_similarity

PREFIX = "string-similarity, links of "  # and the source: what its ranks are called


def ranks_by_source(work: Workdir, drawn: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """The name and the ranks [Q] of each source's string similarity, 0 where the gold is not among the first hundred.

    Args:
      work: where the data was prepared.
      drawn: of each source, the numbers of the training mentions that it may count.
    """
    opened = open_artifact(work.kb, "kb")
    kb = KnowledgeBase.read(opened.path, opened.facts["languages"])
    training, evaluated = read_prepared(work, "train", kb), read_prepared(work, "mewsli", kb)
    numbers = {name: number for number, name in enumerate(kb.ids)}
    whole = AliasTable.read(open_artifact(work.alias_table, "alias table").path)
    names = Counter(
        {
            (name, language, kb.ids[entity]): count
            for name, lines in whole.lines(NAMES)
            for language, entity, count in lines
        }
    )
    for source, drawn_n in drawn.items():
        lines = [training.lines[number] for number in drawn_n.tolist()]
        links = Counter((line.surface_form, line.language, line.gold) for line in lines)
        lemmas = Counter((line.lemma, line.language, line.gold) for line in lines if line.lemma)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            alias_table.write(folder, Counts(links, lemmas, names), numbers)
            table = AliasTable.read(folder)
            table.add_titles(kb)
            yield PREFIX + source, ranks_of(rank_by_similarity(table, evaluated), evaluated.gold_Q)
