"""What came after a bundle was made, in a folder of its own in the bundle: later/.

entities.npy, languages.npy   of each later row, numbers that go on where those of the bundle end
titles*.npy, descriptions*.npy
                              of each later row
new_ids*.npy                  of the entities that have no number in the bundle, in the order of their numbers
embeddings.npy                float32, of each later row
hidden.npy                    rows of the bundle that are no more, ascending
alias_table/                  of later rows, where the bundle has one
lost*.npy                     names and surface forms of hidden rows that no entity has any more, where the bundle
                              detects mentions

The fact "later" names the languages of the bundle and new ones after them, and how many rows came and went.

A search asks both layers, each with its own scores. A later entity is as probable before the context is read as all
that is known makes it; any other entity is as probable as the bundle said, whatever was added: its cosine and its
prior are the same, bit for bit. (A bundle that is written as one again counts anew.)
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mel.corpora import alias_table
from mel.corpora.alias_table import AliasTable
from mel.corpora.columns import read_column
from mel.corpora.kb import KnowledgeBase
from mel.corpora.layers import LaterRows, LayeredKnowledgeBase, LayeredStrings
from mel.corpora.shapes import Shapes
from mel.corpora.similarity import Prior, similarity_prior
from mel.corpora.strings import Strings
from mel.evaluation.contexts import Contexts
from mel.evaluation.evidence import Evidence
from mel.linking.detection import Detector
from mel.retrieval.exact import ExactIndex
from mel.retrieval.layers import LayeredIndex, LayeredRows
from mel.text.folding import fold
from mel.types import NIL

FOLDER = "later"
FACT = "later"
LOST = "lost"


class Later(NamedTuple):
    """What came after a bundle was made.

    Attributes:
      rows: which rows.
      descriptions: of each.
      embeddings_MD: of each, float32.
      table: what they are called, None where the bundle has no alias table.
      lost: what nothing is called any more; see `lost_names`.
    """

    rows: LaterRows
    descriptions: Strings
    embeddings_MD: np.ndarray
    table: AliasTable | None = None
    lost: Strings = Strings.of([])


def write_later(
    folder: pathlib.Path, rows: LaterRows, descriptions: Iterable[str], embeddings_MD: np.ndarray,
    counts: alias_table.Counts | None, numbers: Mapping[str, int],
) -> dict[str, Any]:  # fmt: skip
    """Writes what `read_later` reads.

    Args:
      folder: of the bundle.
      rows: which rows came and went.
      descriptions: of each later row.
      embeddings_MD: of each.
      counts: what later rows are called and linked by; None where the bundle has no alias table.
      numbers: of all entities in `counts`.

    Returns:
      the fact "later".
    """
    folder = folder / FOLDER
    folder.mkdir()
    np.save(folder / "entities.npy", rows.entities_M)
    np.save(folder / "languages.npy", rows.languages_M)
    np.save(folder / "hidden.npy", rows.hidden_H)
    np.save(folder / "embeddings.npy", embeddings_MD)
    for name, strings in (
        ("titles", rows.titles),
        ("new_ids", rows.new_ids),
        ("descriptions", Strings.of(descriptions)),
    ):
        strings.write(folder, name)
    if counts is not None:
        (folder / "alias_table").mkdir()
        alias_table.write(folder / "alias_table", counts, numbers)
    return {"languages": list(rows.languages), "rows": len(rows.entities_M), "hidden": len(rows.hidden_H)}


def read_later(folder: pathlib.Path, facts: Mapping[str, Any]) -> Later | None:
    """What came after the bundle in `folder` was made, None if nothing did."""
    if FACT not in facts:
        return None
    folder = folder / FOLDER
    entities_M, languages_M, hidden_H, embeddings_MD = (
        read_column(folder / f"{name}.npy") for name in ("entities", "languages", "hidden", "embeddings")
    )
    titles, new_ids, descriptions = (Strings.read(folder, name) for name in ("titles", "new_ids", "descriptions"))
    rows = LaterRows(entities_M, languages_M, tuple(facts[FACT]["languages"]), titles, new_ids, hidden_H)
    table = AliasTable.read(folder / "alias_table") if (folder / "alias_table").is_dir() else None
    lost = Strings.read(folder, LOST) if (folder / f"{LOST}.npy").is_file() else Strings.of([])
    return Later(rows, descriptions, embeddings_MD, table, lost)


def write_lost(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Writes what nothing is called any more, beside what `write_later` wrote."""
    Strings.of(names).write(folder / FOLDER, LOST)


def lost_names(base: KnowledgeBase, later: Later, table: pathlib.Path | None) -> list[str]:
    """Names and surface forms of hidden rows that no entity has any more, whatever their case.

    Args:
      base: the knowledge base of the bundle as it was made.
      later: what came since.
      table: the folder of the alias table of the bundle; None where it has none, and then titles are all that is known.
    """
    hidden_H, kb = later.rows.hidden_H, LayeredKnowledgeBase.join(base, later.rows)
    names = {base.titles[row] for row in hidden_H.tolist()}
    joined = None
    if table is not None and later.table is not None:
        names.update(alias_table.strings_of(table, set(base.entities_E[hidden_H].tolist())))
        joined = AliasTable.read(table).joined(later.table, kb, replaced_names(base, later.rows))

    def is_alive(name: str) -> bool:
        meant = joined.meant_by(name) if joined is not None else kb.entities_E[kb.by_title.rows(name.lower())]
        return bool(kb.entity_rows.has(np.array([*meant], np.int64)).any())

    return sorted(name for name in names if not (is_alive(name) or is_alive(fold(name).strip())))


def join_descriptions(base: Strings, later: Later | None) -> Strings:
    """The descriptions of all rows."""
    return base if later is None else LayeredStrings(base, later.descriptions)


def join_detector(base: Detector | None, later: Later | None) -> Detector | None:
    """What finds mentions, the names of later rows among them, and none that no entity has any more."""
    if base is None or later is None:
        return base
    names = later.table.surface_forms(with_names=True) if later.table is not None else []
    return base.without(later.lost).with_names(itertools.chain(later.rows.titles, names))


def join_evidence(base: Evidence, later: Later | None) -> Evidence:
    """What is known of all entities."""
    if later is None:
        return base
    kb = LayeredKnowledgeBase.join(base.kb, later.rows)
    table = None
    if base.table is not None and later.table is not None:
        table = base.table.joined(later.table, kb, replaced_names(base.kb, later.rows))
    return LayeredEvidence(
        kb,
        LayeredRows(base.embeddings_ED, later.embeddings_MD),  # pyright: ignore[reportArgumentType]
        LayeredIndex(base.index, ExactIndex(later.embeddings_MD), len(base.kb)),
        _still_known(base.contexts, kb, later.rows),
        table,
        base=base,
        later=later,
    )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LayeredEvidence(Evidence):
    """What is known of both layers.

    Attributes:
      base: what the bundle knew when it was made.
      later: what came since.
    """

    base: Evidence
    later: Later

    @property
    def outside(self) -> float:
        """As it was."""
        return self.base.outside

    def prior(self, lookups: Sequence[tuple[str, str, str]], what: str = "") -> Prior:
        """See `Evidence.prior`; only later entities have another probability than they had in the base."""
        before = self.base.prior(lookups, what)
        if self.table is None or self.later.table is None:
            return before
        later_entities = frozenset(self.later.rows.entities_M.tolist())
        names = _LaterNames(self.table, self.later.table, self.later.rows.titles)
        now = similarity_prior(names, lookups, self.outside)  # pyright: ignore[reportArgumentType]

        def prior(form: str, language: str, lemma: str) -> tuple[dict[int, float], float]:
            (old, outside), (new, _) = before(form, language, lemma), now(form, language, lemma)
            untouched = {entity: share for entity, share in old.items() if entity not in later_entities}
            return untouched | {entity: share for entity, share in new.items() if entity in later_entities}, outside

        return prior


class _LaterNames(NamedTuple):
    """All that is known, as an alias table of which only later names are compared with forms that nobody linked."""

    table: AliasTable
    later: AliasTable
    titles: Strings

    def prior(self, *lookup: Any, **options: Any) -> tuple[dict[int, float], float]:
        return self.table.prior(*lookup, **options)

    def shaped(self) -> list[tuple[Strings, Shapes]]:
        return [*self.later.shaped(), (self.titles, Shapes.of(self.titles))]


def replaced_names(base: KnowledgeBase, later: LaterRows) -> frozenset[tuple[str, int]]:
    """Language and entity of all hidden rows: what the base calls them there is no name of theirs any more."""
    entities_H, languages_H = base.entities_E[later.hidden_H].tolist(), base.languages_E[later.hidden_H].tolist()
    return frozenset((base.languages[place], entity) for entity, place in zip(entities_H, languages_H, strict=True))


def _still_known(contexts: Contexts | None, kb: LayeredKnowledgeBase, later: LaterRows) -> Contexts | None:
    """Training mentions, without those of entities that are no more."""
    if contexts is None or not len(later.hidden_H):
        return contexts
    hidden_H = np.unique(kb.base.entities_E[later.hidden_H])
    gone = hidden_H[~kb.entity_rows.has(hidden_H)]
    return contexts._replace(entities_M=np.where(np.isin(contexts.entities_M, gone), NIL, contexts.entities_M))
