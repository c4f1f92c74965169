"""A bundle to which entities were added, in which some were changed, and from which others were removed.

Nothing is trained, and no vector but those of the entities that are added is made: the new bundle has the files of
the old one, by links, and beside them a small layer of what came later (`mel.linking.layers`). Of a bundle that was
updated before, that layer alone is written again.
"""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from mel.artifacts import Artifact, open_artifact, publish
from mel.corpora import alias_table
from mel.corpora.alias_columns import COLUMNS
from mel.corpora.kb import KnowledgeBase
from mel.corpora.layers import LaterRows, LayeredKnowledgeBase
from mel.corpora.lines import open_file, read_lines
from mel.corpora.malformed import Malformed
from mel.corpora.names import shown
from mel.corpora.own import OwnEntity, read_entities
from mel.corpora.records import FORMATS, read_records
from mel.corpora.strings import Strings
from mel.encoder.backend import Precision
from mel.linking import card, entities
from mel.linking.bundle import ALIAS_TABLE, DETECTOR, KIND, read_encoder
from mel.linking.layers import FACT, FOLDER, Later, lost_names, read_later, write_later, write_lost
from mel.locks import claim
from mel.shards.own import count_names
from mel.shards.rows import TokenRows
from mel.text.marking import mark_entity
from mel.text.tokenizer import Tokenizer
from mel.types import OUTSIDE, Entity, EntityId, MelError, id_order, parse_id

NAMED = 5  # ids, in a sentence


class Layers(NamedTuple):
    """A bundle's entities.

    Attributes:
      bundle: the bundle.
      base: its knowledge base as it was made.
      later: what came since.
      kb: both.
    """

    bundle: Artifact
    base: KnowledgeBase
    later: Later
    kb: LayeredKnowledgeBase

    @classmethod
    def of(cls, bundle: Artifact) -> Layers:
        base = KnowledgeBase.read(bundle.path, bundle.facts["languages"])
        later = read_later(bundle.path, bundle.facts)
        if later is None:
            no_vectors = np.zeros((0, bundle.facts["encoder"]["hidden_size"]), np.float32)
            later = Later(LaterRows.none(base), Strings.of([]), no_vectors)
        return cls(bundle, base, later, LayeredKnowledgeBase.join(base, later.rows))


def update_bundle(
    path: pathlib.Path, output: pathlib.Path, add: Sequence[str], remove: Sequence[str], malformed: Malformed,
    precision: Precision = "auto", config: Any = None,
) -> Artifact:  # fmt: skip
    """Publishes a bundle with more, other or fewer entities.

    Args:
      path: the bundle to start from, which stays as it is.
      output: where the new one will stand.
      add: files of entities; one of an id and language that there is takes the place of that.
      remove: files of ids, whose entities are removed in all languages.
      malformed: where records that cannot be used are reported.
      precision: of the encoder.
      config: the config that made it.

    Raises:
      MelError: an id to be removed is not there, or is to be added, too; nothing would be left; `output` is there or
        being written; or something cannot be read.
    """
    with claim(output):
        layers = Layers.of(open_artifact(path, KIND))
        added, removed = list(read_entities(add, malformed)), read_ids(remove, malformed)
        _check_removed(layers.kb, removed, {each.entity.entity_id for each in added})
        plan = _Plan.of(layers, [each.entity for each in added], removed)
        vectors_AD = embed(layers.bundle, [each.entity for each in added], precision)
        with publish(output, KIND, config) as draft:
            draft.inputs |= layers.bundle.inputs
            draft.reads("bundle", layers.bundle)
            for name in layers.bundle.files:
                if not name.startswith(f"{FOLDER}/") and name not in (card.FILE, entities.FILE):
                    draft.adopts(layers.bundle, name)
            draft.facts = {**layers.bundle.facts, FACT: _write(draft.path, layers, plan, added, vectors_AD)}
            if (draft / DETECTOR).is_dir() and (later := read_later(draft.path, draft.facts)):
                table = draft / ALIAS_TABLE
                write_lost(draft.path, lost_names(layers.base, later, table if table.is_dir() else None))
            card.write_changed_card(draft.path, layers.bundle, _change(draft.facts))
        logging.info(
            "Published %s: %d rows added or changed, %d entities removed; %d later rows and %d hidden ones in all.",
            output, len(added), len(removed), len(plan.rows.entities_M), len(plan.rows.hidden_H),
        )  # fmt: skip
    return open_artifact(output, KIND, reads=())


def read_ids(paths: Iterable[str], malformed: Malformed) -> dict[EntityId, str]:
    """{id: where it stands} of files with an id a line, or of records with an id, as `read_records` has them.

    Raises:
      MelError: a file cannot be read, or a line is no id.
    """
    found: dict[EntityId, str] = {}
    for path in map(pathlib.Path, paths):
        for line, text in _id_lines(path, malformed):
            try:
                found.setdefault(parse_id(text), f"{path}:{line}")
            except MelError as error:
                raise MelError(f"{path}:{line}: {error}") from None
    return found


def embed(bundle: Artifact, described: Sequence[Entity], precision: Precision = "auto") -> np.ndarray:
    """The embeddings of entities by the encoder of a bundle, float32 [N, D]."""
    if not described:
        return np.zeros((0, bundle.facts["encoder"]["hidden_size"]), np.float32)
    marked = [mark_entity(entity) for entity in described]
    rows = TokenRows.from_rows(Tokenizer.load(bundle / "encoder").rows(marked, bundle.facts["entity_tokens"]))
    return read_encoder(bundle, precision).embed(rows, "entities")


class _Plan(NamedTuple):
    """Which rows a new bundle has.

    Attributes:
      rows: the later ones, those that stay and then those that are added.
      kept_k: the later rows that stay, of those that there were.
      dropped: language and entity of the rows that do not.
      numbers: of the entities that are added.
    """

    rows: LaterRows
    kept_k: np.ndarray
    dropped: frozenset[tuple[str, int]]
    numbers: dict[EntityId, int]

    @classmethod
    def of(cls, layers: Layers, added: Sequence[Entity], removed: Collection[EntityId]) -> _Plan:
        """Raises MelError where no row would be left."""
        kb, later = layers.kb, layers.later.rows
        languages = tuple(dict.fromkeys((*later.languages, *(entity.language for entity in added))))
        numbers = _numbered(kb, [entity.entity_id for entity in added])
        added_n = np.array([numbers[entity.entity_id] for entity in added], np.int32)
        spoken_n = np.array([languages.index(entity.language) for entity in added], np.int32)
        gone = np.concatenate([_rows_in(kb, added_n, spoken_n), _rows_of(kb, kb.numbers_of(list(removed)))])
        pairs = zip(kb.languages_E[gone].tolist(), kb.entities_E[gone].tolist(), strict=True)
        kept_k = np.setdiff1d(np.arange(len(later.entities_M)), gone - len(layers.base))
        fresh = [name for name, number in numbers.items() if number >= len(kb.ids)]
        titles = (*(later.titles[row] for row in kept_k.tolist()), *(entity.title for entity in added))
        rows = LaterRows(
            np.concatenate([later.entities_M[kept_k], added_n]),
            np.concatenate([later.languages_M[kept_k], spoken_n]),
            languages,
            Strings.of(titles),
            Strings.of([*later.new_ids, *fresh]),
            np.union1d(later.hidden_H, gone[gone < len(layers.base)]).astype(np.int32),
        )
        if len(rows.hidden_H) == len(layers.base) and not len(rows.entities_M):
            raise MelError(f"Nothing would be left of {layers.bundle.path}: leave an entity, or add one.")
        return cls(rows, kept_k, frozenset((kb.languages[place], entity) for place, entity in pairs), numbers)


def _numbered(kb: KnowledgeBase, ids: Sequence[EntityId]) -> dict[EntityId, int]:
    """The number of each entity; new ones follow all others, in their order."""
    known = dict(zip(ids, kb.numbers_of(ids).tolist(), strict=True))
    new = sorted((name for name, number in known.items() if number == OUTSIDE), key=id_order)
    return known | {name: len(kb.ids) + place for place, name in enumerate(new)}


def _rows_in(kb: KnowledgeBase, entities_n: np.ndarray, languages_n: np.ndarray) -> np.ndarray:
    """The rows that entities have in languages; none for what is not there."""
    there_n = languages_n < len(kb.languages)
    keys_n = entities_n[there_n].astype(np.int64) * len(kb.languages) + languages_n[there_n]
    places_n = np.searchsorted(kb.entity_rows.keys_E, keys_n)
    found_n = np.zeros(len(keys_n), bool)
    inside_n = places_n < len(kb.entity_rows.keys_E)
    found_n[inside_n] = kb.entity_rows.keys_E[places_n[inside_n]] == keys_n[inside_n]
    return kb.entity_rows.order_E[places_n[found_n]].astype(np.int64)


def _rows_of(kb: KnowledgeBase, entities_n: np.ndarray) -> np.ndarray:
    """All rows of entities."""
    first_n, end_n = kb.entity_rows.ranges(entities_n)
    places = [np.arange(first, end) for first, end in zip(first_n.tolist(), end_n.tolist(), strict=True)]
    return kb.entity_rows.order_E[np.concatenate([np.zeros(0, np.int64), *places])].astype(np.int64)


def _check_removed(kb: KnowledgeBase, removed: Mapping[EntityId, str], added: Collection[EntityId]) -> None:
    ids = list(removed)
    there_n = kb.entity_rows.has(kb.numbers_of(ids)).tolist()
    if missing := [name for name, there in zip(ids, there_n, strict=True) if not there]:
        names = ", ".join(f"{shown(name)} ({removed[name]})" for name in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise MelError(
            f"--remove names {names}{more}, which the bundle does not have: take them out of the list and run again; "
            "nothing was changed."
        )
    if both := [name for name in ids if name in added]:
        raise MelError(
            f"{shown(both[0])} is to be added and to be removed ({removed[both[0]]}): leave it out of one of the two."
        )


def _change(facts: Mapping[str, Any]) -> str:
    rows, hidden = facts[FACT]["rows"], facts[FACT]["hidden"]
    left_out = f" {entities.FILE} is left out: compacting the bundle writes it." if has_entities_file(facts) else ""
    return f"{rows:,} rows of entities came later, and {hidden:,} of those that there were are no more.{left_out}"


def has_entities_file(facts: Mapping[str, Any]) -> bool:
    """Whether a bundle was asked to hold all entities in one file for other programs."""
    return bool(facts["settings"].get("entities_file"))


def _write(
    folder: pathlib.Path, layers: Layers, plan: _Plan, added: Sequence[OwnEntity], vectors_AD: np.ndarray
) -> dict[str, Any]:
    later = layers.later
    described = (
        *(later.descriptions[row] for row in plan.kept_k.tolist()),
        *(each.entity.description for each in added),
    )
    vectors_MD = np.concatenate([later.embeddings_MD[plan.kept_k], vectors_AD])
    if not (folder / ALIAS_TABLE).is_dir():
        return write_later(folder, plan.rows, described, vectors_MD, None, {})
    counts, numbers = count_names(added), dict(plan.numbers)
    if later.table is not None:
        for name, count in zip(COLUMNS, counts, strict=True):
            count.update(_kept_names(later.table, name, layers.kb, plan.dropped, numbers))
    return write_later(folder, plan.rows, described, vectors_MD, counts, numbers)


def _kept_names(
    table: alias_table.AliasTable, column: str, kb: KnowledgeBase, dropped: Collection[tuple[str, int]],
    numbers: dict[EntityId, int],
) -> Counter[tuple[str, str, EntityId]]:  # fmt: skip
    """What a table counts of the rows that stay; `numbers` is told their entities."""
    kept: Counter[tuple[str, str, EntityId]] = Counter()
    for string, lines in table.lines(column):
        for language, entity, count in lines:
            if (language, entity) not in dropped:
                numbers[kb.ids[entity]] = entity
                kept[string, language, kb.ids[entity]] += count
    return kept


def _id_lines(path: pathlib.Path, malformed: Malformed) -> Iterable[tuple[int, str]]:
    if any(suffix in FORMATS for suffix in path.suffixes[-2:]):
        for line, record in read_records(path, {"id": str}, ("id",), malformed):
            yield line, record["id"]
        return
    with open_file(path) as file:
        for line, data in read_lines(file, str(path), lambda line, reason: malformed.add(str(path), line, reason)):
            try:
                if text := data.decode("utf-8").strip():
                    yield line, text
            except UnicodeDecodeError:
                raise MelError(f"{path}:{line} is not UTF-8: write one id a line, in UTF-8.") from None
