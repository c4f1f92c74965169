"""What is rendered of raw documents, longer than a window, has one embedding in all programs, and one nearest entity.

The documents are those of the samples beside the repository, and texts of ten languages; the encoders are of both kinds
and pool in all ways.
"""

import pathlib
import re

import numpy as np
import pytest

from experiments.benchmarks import raw_documents
from mel.artifacts import START, Workdir
from mel.bin import export, prepare_data, train
from mel.linking.linker import Linker, Text
from mel.types import Span
from tests.configs import config_of
from tests.conftest import SHARED_DATA
from tests.encoder.reference import write_tokenizer
from tests.text.test_windows import spans
from tests.text.vocabularies import TEXTS

POOLINGS = {"bert": "pooler", "xlm-roberta": "mean"}
PREFIXES = {"bert": ("", ""), "xlm-roberta": ("query: ", "passage: ")}


@pytest.fixture(scope="module", params=POOLINGS)
def bundle(request, tiny_world, tmp_path_factory) -> pathlib.Path:
    """A bundle of an encoder of random weights whose vocabulary has ten languages."""
    for name in ("torch", "transformers", "sentence_transformers", "onnx", "onnxruntime"):
        pytest.importorskip(name, reason="needs the bench and onnx extras")
    kind, folder = request.param, tmp_path_factory.mktemp("programs")
    write_tokenizer(kind, folder / "tokenizer")
    mention_prefix, entity_prefix = PREFIXES[kind]
    prepare_data.main(
        config_of(
            prepare_data.Config, workdir=str(folder / "run"), damuel=str(tiny_world / "damuel"), languages=("ar",),
            tokenizer=str(folder / "tokenizer"), mention_tokens=32, workers=1, mention_prefix=mention_prefix,
            entity_prefix=entity_prefix,
        )
    )  # fmt: skip
    start = {"workdir": str(folder / "run"), "round": START, "encoder": "random:2x32x2", "pooling": POOLINGS[kind]}
    train.main(config_of(train.Config, **start))
    export.main(export.Config(workdir=str(folder / "run"), round=str(START), onnx=True, entities_file=True))
    return Workdir(folder / "run").bundle


def documents() -> dict[str, str]:
    """A long raw document by language."""
    found = {language: f"{text}\n\n" * 6 for language, text in TEXTS.items()}
    for file in sorted(SHARED_DATA.glob("samples/mewsli9/*/text/*")):
        found[f"{file.parts[-3]}, {file.name}"] = file.read_text("utf-8")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", documents())
def test_four_programs_agree_on_a_raw_document(bundle, name):
    linker = Linker.load(bundle, precision="float32")
    document = documents()[name]
    texts = [Text(document, [span], title="The old mill") for span in spans(document, 12, seed=5)]
    agreements = raw_documents.compare(linker, texts, raw_documents.embedders(bundle, linker))
    for program in raw_documents.PROGRAMS:
        assert agreements[program].difference <= 1e-5 and agreements[program].same == len(texts), program


@pytest.mark.slow
def test_the_code_of_the_card_gives_the_embedding_of_the_linker(bundle, monkeypatch):
    monkeypatch.chdir(bundle.parent)
    expected_1D = Linker.load(bundle).embed_mentions([Text("Paris liegt an der Seine.", [Span(0, 5)])])
    blocks = re.findall(r"```python\n(.+?)```", (bundle / "README.md").read_text("utf-8"), re.DOTALL)
    names: dict = {}
    given = 0
    for block in blocks:
        exec(block, names)
        if "embedding" in names:
            np.testing.assert_allclose(np.asarray(names.pop("embedding")), expected_1D, atol=1e-5)
            given += 1
    assert given == 3 and names["first_id"].startswith("Q")
