"""A saved encoder gives the same vectors in `transformers` and sentence-transformers, from the same marked texts."""

import dataclasses

import jax
import numpy as np
import pytest

from mel.encoder import pretrained
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import BertEncoder
from mel.text.foreign import read_tokenizer
from mel.text.tokenizer import MARKER, Prefixes
from mel.types import MarkedText, Span
from tests.encoder.folders import rough_params
from tests.encoder.reference import write_tokenizer
from tests.text.vocabularies import TEXTS

PREFIXES = Prefixes("query: ", "passage: ")
SIZES = dict(hidden_size=16, num_layers=2, num_heads=2, ffn_size=32, max_positions=96)
LIKES = {"bert": {}, "xlm-roberta": dict(model_type="xlm-roberta", type_vocab_size=1, layer_norm_eps=1e-5)}
CASES = [(kind, pooling) for kind in LIKES for pooling in ("pooler", "mean", "cls")]


@pytest.fixture(params=CASES, ids=lambda case: " ".join(case))
def exported(request, tmp_path):
    """A folder laid out as a bundle, its tokenizer, and its encoder."""
    kind, pooling = request.param
    write_tokenizer(kind, tmp_path / "theirs")
    tokenizer = read_tokenizer(tmp_path / "theirs", prefixes=PREFIXES)
    sizes = SIZES | LIKES[kind] | dict(vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id)
    config = EncoderConfig(**sizes, pooling=pooling)
    params = jax.tree.map(lambda x: np.asarray(0.3 * x), rough_params(config))
    prompts = {"query": PREFIXES.mention, "document": PREFIXES.entity}
    pretrained.save(tmp_path / "out", config, params, transformer="encoder", max_tokens=64, prompts=prompts)
    tokenizer.save(tmp_path / "out" / "encoder")
    return tmp_path / "out", tokenizer, config, params


def marked_texts(role):
    """The second word of each text as focus, or what stands in its place where there are no spaces."""
    texts = []
    for text in TEXTS.values():
        start = text.find(" ") + 1 or 2
        end = text.find(" ", start) if " " in text else 6
        texts.append(MarkedText(text, Span(start, end), role=role))
    return texts


def with_marks(text):
    before, after = text.text[: text.focus.start], text.text[text.focus.end :]
    return f"{before}{MARKER}{' ' if before.endswith(' ') else ''}{text.focus.of(text.text)}{MARKER}{after}"


def embed(tokenizer, config, params, texts):
    rows = tokenizer.rows(texts, 64)
    tokens_NL = np.zeros((len(rows), 64), np.int32)
    for place, row in zip(tokens_NL, rows, strict=True):
        place[: len(row)] = row
    with jax.default_matmul_precision("highest"):
        return np.asarray(BertEncoder(config).apply({"params": params}, tokens_NL)), rows


def short(texts):
    """Those whose rows are not cut, so that others have all of them too."""
    return [MarkedText(text.text[:40], text.focus, role=text.role) for text in texts if text.focus.end < 40]


def test_it_loads_as_it_was(exported):
    folder, _, config, params = exported
    loaded = pretrained.load(folder)
    assert loaded[0] == config
    for found, expected in zip(jax.tree.leaves(loaded[1]), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_transformers_gives_the_same_vectors(exported):
    torch = pytest.importorskip("torch", reason="needs PyTorch, of the bench extra")
    import transformers

    folder, tokenizer, config, params = exported
    texts = short(marked_texts("mention"))
    expected_ND, rows = embed(tokenizer, dataclasses.replace(config, pooling="cls"), params, texts)
    theirs = transformers.AutoTokenizer.from_pretrained(folder / "encoder")
    model, loading = transformers.AutoModel.from_pretrained(folder / "encoder", output_loading_info=True)
    assert not loading["unexpected_keys"] and all(name.startswith("pooler") for name in loading["missing_keys"])
    inputs = theirs([PREFIXES.mention + with_marks(text) for text in texts], padding=True, return_tensors="pt")
    for ids, row in zip(inputs["input_ids"].tolist(), rows, strict=True):
        assert [token for token in ids if token != tokenizer.pad_id] == tokenizer.row_ids(row).tolist()
    with torch.no_grad():
        states_NLD = model.eval()(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    found_ND = states_NLD[:, 0].numpy()
    found_ND /= np.linalg.norm(found_ND, axis=1, keepdims=True)
    np.testing.assert_allclose(found_ND, expected_ND, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("role, prompt", [("mention", "query"), ("entity", "document")])
def test_sentence_transformers_gives_the_same_vectors(exported, role, prompt):
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the bench extra")
    folder, tokenizer, config, params = exported
    texts = short(marked_texts(role))
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    assert model.max_seq_length == 64
    found_ND = model.encode([with_marks(text) for text in texts], prompt_name=prompt)
    expected_ND, _ = embed(tokenizer, config, params, texts)
    np.testing.assert_allclose(found_ND, expected_ND, rtol=0, atol=1e-5)
    if role == "mention":
        np.testing.assert_array_equal(model.encode_query([with_marks(text) for text in texts]), found_ND)
