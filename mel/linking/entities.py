"""All entities of a bundle in one file for other programs: entities.safetensors.

embeddings               float32 [rows, size], of unit length
ids, titles, languages   uint8, the UTF-8 of all rows' strings one after the other
ids_ends, titles_ends, languages_ends
                         int64 [rows], where the string of each row ends

An entity has a row for each of its languages. String i is bytes ends[i - 1] to ends[i]; the first begins at 0.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import numpy as np

from mel.corpora.kb import KnowledgeBase
from mel.encoder.weights import write_weights
from mel.evaluation.evidence import Evidence

FILE = "entities.safetensors"


def write_entities(folder: pathlib.Path, evidence: Evidence) -> None:
    """Writes the file into `folder`; all of it is in memory at once."""
    kb = evidence.kb
    columns = {"embeddings": np.ascontiguousarray(evidence.embeddings_ED)}
    for name, strings in _strings(kb).items():
        encoded = [string.encode("utf-8") for string in strings]
        columns[name] = np.frombuffer(b"".join(encoded), np.uint8)
        columns[f"{name}_ends"] = np.cumsum([len(string) for string in encoded], dtype=np.int64)
    write_weights(folder / FILE, columns)


def _strings(kb: KnowledgeBase) -> dict[str, Iterable[str]]:
    return {
        "ids": (kb.ids[number] for number in kb.entities_E.tolist()),
        "titles": kb.titles,
        "languages": (kb.languages[place] for place in kb.languages_E.tolist()),
    }
