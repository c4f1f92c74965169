"""All entities in one file, read as other programs read it."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from mel.evaluation.evidence import Evidence
from mel.linking import entities
from mel.linking.entities import FILE, write_entities
from mel.retrieval.exact import ExactIndex
from tests.evaluation.hand_made import kb_of


def strings(columns, name):
    starts = [0, *columns[f"{name}_ends"][:-1]]
    return [
        columns[name][start:end].tobytes().decode() for start, end in zip(starts, columns[f"{name}_ends"], strict=True)
    ]


@pytest.mark.parametrize("rows_at_once", [2, entities.ROWS_AT_ONCE])
def test_every_row_is_there_with_its_strings(tmp_path, monkeypatch, rows_at_once):
    monkeypatch.setattr(entities, "ROWS_AT_ONCE", rows_at_once)
    kb = kb_of((3, "de", "Mühle"), (1, "de", "水車"), (3, "en", "Mill"))
    embeddings_ED = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    write_entities(tmp_path, Evidence(kb, embeddings_ED, ExactIndex(embeddings_ED)))
    columns = load_file(tmp_path / FILE)
    np.testing.assert_array_equal(columns["embeddings"], embeddings_ED)
    assert strings(columns, "ids") == ["Q3", "Q1", "Q3"]
    assert strings(columns, "titles") == ["Mühle", "水車", "Mill"]
    assert strings(columns, "languages") == ["de", "de", "en"]


def test_who_may_read_the_folder_may_read_the_file(tmp_path):
    tmp_path.chmod(0o755)
    embeddings_ED = np.eye(1, 2, dtype=np.float32)
    write_entities(tmp_path, Evidence(kb_of((1, "de", "")), embeddings_ED, ExactIndex(embeddings_ED)))
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o644
