"""A bundle that is written anew: one layer of it and what came later, or its encoder with another knowledge base."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from mel.artifacts import Artifact, allocate, open_artifact, publish
from mel.corpora.alias_columns import COLUMNS, LINKS, NAMES, AliasTableWriter
from mel.corpora.alias_table import AliasTable
from mel.corpora.columns import read_column
from mel.corpora.kb import KnowledgeBase, read_entities
from mel.corpora.malformed import Malformed
from mel.corpora.own import OwnConfig
from mel.corpora.redirects import Redirects
from mel.corpora.strings import Strings
from mel.encoder.backend import Precision
from mel.files import DRAFT
from mel.linking import card, entities
from mel.linking.bundle import (
    ALIAS_TABLE,
    CALIBRATION,
    CONTEXT_ENTITIES,
    CONTEXTS,
    DESCRIPTIONS,
    DETECTOR,
    KIND,
    copy_files,
    read_detector,
    read_encoder,
    read_evidence,
    write_encoder,
    write_entity_columns,
)
from mel.linking.layers import FACT, FOLDER, join_descriptions, join_detector, replaced_names
from mel.linking.update import Layers, has_entities_file
from mel.locks import claim
from mel.progress import Progress
from mel.retrieval import embeddings
from mel.retrieval.layers import LayeredRows
from mel.shards.archives import Archives, ArchivesConfig
from mel.shards.blocks import grouped
from mel.shards.prepare import publish_kb
from mel.shards.rows import TokenRows
from mel.text.marking import mark_entity
from mel.text.tokenizer import Tokenizer
from mel.types import NIL, EntityId, MelError

ROWS_AT_ONCE = 65_536
ENTITIES_AT_ONCE = 8192
WRITTEN_ANEW = ("index/", f"{ALIAS_TABLE}/", f"{DETECTOR}/", f"{FOLDER}/")


def compact_bundle(path: pathlib.Path, output: pathlib.Path, config: Any = None) -> Artifact:
    """Publishes a bundle that holds the same entities as another in one layer, its hidden rows left out.

    Args:
      path: the bundle to start from, which stays as it is.
      output: where the new one will stand.
      config: the config that made it.

    Raises:
      MelError: nothing came later than the bundle was made, or `output` is there or being written.
    """
    with claim(output), _scratch(output) as scratch:
        layers = Layers.of(open_artifact(path, KIND))
        bundle, facts = layers.bundle, layers.bundle.facts
        if FACT not in facts:
            raise MelError(f"{path} is one layer already: there is nothing to compact.")
        rows = np.flatnonzero(layers.kb.entities_E != NIL)
        kb = _renumbered(layers, rows)
        vectors = _gather(scratch / "embeddings", _vectors(layers), rows)
        every = join_descriptions(Strings.read(bundle.path, DESCRIPTIONS), layers.later)
        with publish(output, KIND, config) as draft:
            draft.inputs |= bundle.inputs
            draft.reads("bundle", bundle)
            draft.facts = {name: value for name, value in facts.items() if name != FACT}
            draft.facts["languages"] = list(kb.languages)
            write_entity_columns(draft.path, kb, (every[row] for row in rows.tolist()), facts["index"], vectors)
            numbers_I = kb.numbers_of(list(layers.kb.ids))
            if f"{ALIAS_TABLE}/links.npy" in bundle.files:
                _write_alias_table(draft / ALIAS_TABLE, layers, numbers_I)
            if CONTEXT_ENTITIES in bundle.files:
                (draft / CONTEXTS).mkdir()
                entities_M = np.maximum(numbers_I[read_column(bundle / CONTEXT_ENTITIES)], NIL)
                np.save(draft / CONTEXT_ENTITIES, entities_M.astype(np.int32))
            if has_entities_file(facts):
                entities.write_entities(draft.path, read_evidence(draft.path, draft.facts))
            if detector := join_detector(read_detector(bundle), layers.later):
                (draft / DETECTOR).mkdir()
                detector.write(draft / DETECTOR)
            card.write_changed_card(draft.path, bundle, f"Its entities are {len(kb):,} rows now.")
            for name in bundle.files:
                if not name.startswith(WRITTEN_ANEW) and not (draft / name).exists():
                    draft.adopts(bundle, name)
    logging.info("Published %s: %d rows in one layer.", output, len(kb))
    return open_artifact(output, KIND, reads=())


def replace_kb(
    path: pathlib.Path, output: pathlib.Path, files: Sequence[str], malformed: Malformed,
    precision: Precision = "auto", config: Any = None,
) -> Artifact:  # fmt: skip
    """Publishes a bundle with the encoder of another and other entities.

    Args:
      path: the bundle whose encoder it is, which stays as it is.
      output: where the new one will stand.
      files: of the entities.
      malformed: its bounds are those of records that cannot be used.
      precision: of the encoder.
      config: the config that made it.

    Raises:
      MelError: `output` is there or being written, or a file cannot be read.
    """
    with claim(output), _scratch(output) as scratch:
        bundle = open_artifact(path, KIND)
        bounds = ArchivesConfig(max_malformed=malformed.limit, max_malformed_share=malformed.share)
        archives = Archives.find(bounds, Redirects(), OwnConfig(entities=tuple(files)))
        publish_kb(scratch / "kb", scratch / "aliases", archives, archives.own.settings)
        kb, aliases = open_artifact(scratch / "kb", "kb"), open_artifact(scratch / "aliases", "alias table")
        known = KnowledgeBase.read(kb.path, kb.facts["languages"])
        vectors = _embed(scratch / "embeddings", bundle, kb, len(known), precision)
        with publish(output, KIND, config) as draft:
            draft.inputs |= bundle.inputs
            draft.reads("bundle", bundle)
            draft.reads("kb", kb)
            draft.facts = {name: value for name, value in bundle.facts.items() if name != FACT}
            draft.facts |= {"languages": kb.facts["languages"], "context_weight": 0.0}
            encoder = read_encoder(bundle, precision)
            write_encoder(draft.path, Tokenizer.load(bundle / "encoder"), encoder, bundle.facts["max_tokens"])
            descriptions = (entity.description for entity in read_entities(kb.path))
            write_entity_columns(draft.path, known, descriptions, bundle.facts["index"], vectors)
            if f"{ALIAS_TABLE}/links.npy" in bundle.files:
                copy_files(aliases, draft / ALIAS_TABLE)
            if detector := read_detector(bundle):
                names = itertools.chain(known.titles, Strings.read(aliases.path, NAMES))
                (draft / DETECTOR).mkdir()
                detector.of_others(names, Strings.read(aliases.path, LINKS)).write(draft / DETECTOR)
            if has_entities_file(bundle.facts):
                entities.write_entities(draft.path, read_evidence(draft.path, draft.facts))
            card.write_changed_card(draft.path, bundle, f"Its entities are others: {len(known):,} rows.")
            for name in set(bundle.files) & {"encoder.onnx"}:
                draft.adopts(bundle, name)
    parts = {"calibration": CALIBRATION, "contexts": CONTEXTS}
    lost = [what for what, name in parts.items() if (path / name).exists()]
    if lost:
        logging.warning("%s has no %s: those of %s are of other entities.", output, " and no ".join(lost), path)
    logging.info("Published %s: %d rows of %s.", output, len(known), ", ".join(files))
    return open_artifact(output, KIND, reads=())


@contextlib.contextmanager
def _scratch(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside `output` for what is needed on the way; what a crash leaves of it, the next one there sweeps."""
    name = f"{output.name}-parts"
    folder = output.with_name(f"{DRAFT}{name}")
    with claim(output.with_name(name)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _renumbered(layers: Layers, rows_n: np.ndarray) -> KnowledgeBase:
    """The knowledge base of some rows; entities that links alone know keep a number."""
    kb, hidden_H = layers.kb, layers.later.rows.hidden_H
    once = np.unique(np.concatenate([layers.base.entities_E[hidden_H], np.arange(len(layers.base.ids), len(kb.ids))]))
    gone = set(once[~kb.entity_rows.has(once)].tolist())
    linked: Iterable[EntityId] = (name for number, name in enumerate(kb.ids) if number not in gone)
    pairs = zip(kb.entities_E[rows_n].tolist(), kb.languages_E[rows_n].tolist(), strict=True)
    titles = (kb.titles[row] for row in rows_n.tolist())
    return KnowledgeBase.of([(kb.ids[entity], place) for entity, place in pairs], titles, kb.languages, linked)


def _vectors(layers: Layers) -> LayeredRows:
    bundle = layers.bundle
    held_in = bundle / "index" if bundle.facts["index"] == "exact" else bundle.path
    return LayeredRows(read_column(held_in / embeddings.EMBEDDINGS), layers.later.embeddings_MD)


def _gather(path: pathlib.Path, vectors: LayeredRows, rows_n: np.ndarray) -> Artifact:
    with publish(path, embeddings.KIND) as draft:
        out_nD = allocate(draft / embeddings.EMBEDDINGS, (len(rows_n), vectors.base_ND.shape[1]), np.float32)
        for start in range(0, len(rows_n), ROWS_AT_ONCE):
            out_nD[start : start + ROWS_AT_ONCE] = vectors[rows_n[start : start + ROWS_AT_ONCE]]
        out_nD.flush()
    return open_artifact(path, embeddings.KIND)


def _embed(path: pathlib.Path, bundle: Artifact, kb: Artifact, rows: int, precision: Precision) -> Artifact:
    tokenizer, encoder, first = Tokenizer.load(bundle / "encoder"), read_encoder(bundle, precision), 0
    progress = Progress("embedding entities", rows, "rows")
    with publish(path, embeddings.KIND) as draft:
        out_ND = allocate(draft / embeddings.EMBEDDINGS, (rows, encoder.config.hidden_size), np.float32)
        for group in grouped(read_entities(kb.path), ENTITIES_AT_ONCE):
            marked = tokenizer.rows([mark_entity(entity) for entity in group], bundle.facts["entity_tokens"])
            encoder.embed(TokenRows.from_rows(marked), "", out_ND[first : first + len(group)])
            first += len(group)
            progress.add(len(group))
        out_ND.flush()
    progress.close()
    return open_artifact(path, embeddings.KIND)


def _write_alias_table(folder: pathlib.Path, layers: Layers, numbers_I: np.ndarray) -> None:
    """Both layers of the alias table as one, its entities numbered anew; of those that are no more nothing stays."""
    table = AliasTable.read(layers.bundle / ALIAS_TABLE)
    if layers.later.table is not None:
        table = table.joined(layers.later.table, layers.kb, replaced_names(layers.base, layers.later.rows))
    folder.mkdir()
    writer = AliasTableWriter(folder)
    for column in COLUMNS:
        writer.write(column, _renumbered_lines(table, column, numbers_I))
    writer.close()


def _renumbered_lines(table: AliasTable, column: str, numbers_I: np.ndarray) -> Iterator[tuple[str, str, int, int]]:
    for string, lines in table.lines(column):
        counts: Counter[tuple[str, int]] = Counter()
        for language, entity, count in lines:
            if (number := int(numbers_I[entity])) > NIL:
                counts[language, number] += count
        ordered = sorted((language, -count, number) for (language, number), count in counts.items())
        yield from ((string, language, number, -count) for language, count, number in ordered)
