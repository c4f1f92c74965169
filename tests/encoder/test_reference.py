"""Ids, hidden states and embeddings are those of `transformers`: kept ones, and where PyTorch is, fresh ones.

The real multilingual-e5-small is among them where MULTILINGUAL_E5_SMALL names the folder that
`python -m experiments.mdn_pretrained.multilingual_e5_small --output=DIR` wrote.
"""

import bz2
import json
import os
import pathlib

import jax
import numpy as np
import pytest

from mel.encoder import pretrained
from mel.encoder.transformer import BertEncoder
from mel.text.foreign import read_tokenizer
from mel.types import MarkedText, Span
from tests.encoder import reference
from tests.text.vocabularies import TEXTS

DATA = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
E5 = "MULTILINGUAL_E5_SMALL"
TOLERANCE = 1e-5
POOLINGS = ("pooler", "mean", "cls")


@pytest.fixture(autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def rows_of(tokenizer, texts, longest=reference.LONGEST):
    """Each text as a row without marks, padded, as rows have ids."""
    marked = [MarkedText(text, Span(0, len(text))) for text in texts]
    rows = [row[row != tokenizer.marker_id] for row in tokenizer.rows(marked, longest + 2)]
    rows_NL = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for place, row in zip(rows_NL, rows, strict=True):
        place[: len(row)] = row
    return rows_NL


def pooled(outputs, pooling):
    """The embedding that `transformers` means by a pooling, of unit length."""
    last_NLD, real_NL1 = outputs["states_SNLD"][-1], outputs["real_NL"][:, :, None]
    match pooling:
        case "pooler":
            found_ND = outputs["pooler_ND"]
        case "cls":
            found_ND = last_NLD[:, 0]
        case "mean":
            found_ND = (last_NLD * real_NL1).sum(1) / real_NL1.sum(1)
    return found_ND / np.linalg.norm(found_ND, axis=1, keepdims=True)


def assert_equal_outputs(folder, texts, outputs, poolings=POOLINGS, longest=reference.LONGEST):
    tokenizer = read_tokenizer(folder)
    rows_NL, real_NL = rows_of(tokenizer, texts, longest), outputs["real_NL"] == 1
    np.testing.assert_array_equal(rows_NL != 0, real_NL)
    np.testing.assert_array_equal(tokenizer.row_ids(rows_NL), outputs["ids_NL"])
    for pooling in poolings:
        config, params = pretrained.load(folder, pooling=pooling, pad_id=tokenizer.pad_id)
        apply = jax.jit(BertEncoder(config).apply, static_argnames="method")
        states_SNLD, _ = apply({"params": params}, rows_NL, method="hidden_states")
        expected_SNLD = outputs["states_SNLD"]
        assert expected_SNLD.std() > 0.1  # The comparison means something.
        # No one reads the states of padding.
        np.testing.assert_allclose(states_SNLD[:, real_NL], expected_SNLD[:, real_NL], rtol=0, atol=TOLERANCE)
        embedding_ND = apply({"params": params}, rows_NL)
        np.testing.assert_allclose(embedding_ND, pooled(outputs, pooling), rtol=0, atol=TOLERANCE)


def real_texts():
    """A sentence in each of ten languages, and where they are the beginnings of real pages in eight of them."""
    texts = list(TEXTS.values())
    for pages in sorted(DATA.glob("mdn/mewsli/dev/*/text")):
        texts += [page.read_text()[:400] for page in sorted(pages.iterdir())[:3]]
    for file in DATA.glob("samples/damuel/*.bz2"):
        records = [json.loads(line) for line in bz2.decompress(file.read_bytes()).splitlines()]
        texts += [record["wiki"]["text"][:400] for record in records if record.get("wiki", {}).get("text")]
    return [text for text in texts if text.strip()]


@pytest.mark.parametrize("kind", reference.KINDS)
def test_the_kept_outputs_of_transformers(kind):
    folder = reference.FOLDER / kind
    with np.load(folder / "outputs.npz") as outputs:
        assert_equal_outputs(folder, list(TEXTS.values()), outputs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", reference.KINDS)
def test_transformers_on_real_texts(kind, tmp_path):
    pytest.importorskip("torch", reason="needs PyTorch, of the bench extra")
    sizes = dict(hidden_size=48, num_hidden_layers=4, num_attention_heads=6, intermediate_size=96)
    reference.write_model(kind, tmp_path, reference.write_tokenizer(kind, tmp_path), **sizes)
    texts = [up_to_a_word(text, tmp_path) for text in real_texts()]
    assert_equal_outputs(tmp_path, texts, reference.run(tmp_path, texts))


def up_to_a_word(text, folder):
    """A text that `transformers` does not cut between a space and its word, as no window of mel ends."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    row = tokenizer(text, truncation=True, max_length=reference.LONGEST, return_offsets_mapping=True)
    *_, last, _ = tokenizer.convert_ids_to_tokens(row["input_ids"])
    return text[: row["offset_mapping"][-2][0]] if last == "▁" else text


def test_the_first_layers_are_those_of_transformers():
    folder = reference.FOLDER / "xlm-roberta"
    with np.load(folder / "outputs.npz") as outputs:
        rows_NL, real_NL = rows_of(read_tokenizer(folder), list(TEXTS.values())), outputs["real_NL"] == 1
        expected_SNLD = outputs["states_SNLD"]
    config, params = pretrained.load(folder, pooling="mean", layers=1)
    states_SNLD, _ = BertEncoder(config).apply({"params": params}, rows_NL, method="hidden_states")
    np.testing.assert_allclose(states_SNLD[:, real_NL], expected_SNLD[:2, real_NL], rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_multilingual_e5_small():
    pytest.importorskip("torch", reason="needs PyTorch, of the bench extra")
    if E5 not in os.environ:
        pytest.skip(f"{E5} names no folder")
    folder, texts = os.environ[E5], [f"query: {text}" for text in real_texts()]
    outputs = reference.run(folder, texts, longest=128, add_pooling_layer=False)
    assert_equal_outputs(folder, texts, outputs, poolings=("mean",), longest=128)
