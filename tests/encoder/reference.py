"""What `transformers` computes, kept beside the tests for machines without PyTorch.

    python -m tests.encoder.reference

writes tests/encoder/reference/{bert,xlm-roberta}: a small encoder with random weights, its tokenizer,
and outputs.npz, its ids and hidden states for a text in each of ten languages. It was made with torch
2.13.0 and transformers 5.24.0; make it again when an encoder is given something new to compute.
"""

from __future__ import annotations

import pathlib
import shutil

import numpy as np

from tests.text import vocabularies
from tests.text.vocabularies import TEXTS

FOLDER = pathlib.Path(__file__).resolve().parent / "reference"
KINDS = ("bert", "xlm-roberta")
LONGEST = 40
SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)


def write_tokenizer(kind: str, folder: pathlib.Path) -> int:
    """Writes the tokenizer of one kind of encoder and returns how many tokens it has."""
    if kind == "bert":
        vocabularies.write_words(folder, tokenizer_class="BertTokenizer", do_lower_case=False)
        return len(vocabularies.word_pieces())
    names = vocabularies.xlm_r_config(tokenizer_class="PreTrainedTokenizerFast")
    vocabularies.write_tokenizer(folder, vocabularies.split_metaspace(), **names)
    return vocabularies.split_metaspace().get_vocab_size()


def write_model(kind: str, folder: pathlib.Path, tokens: int, **sizes) -> None:
    """Writes random weights, rough enough that every one of them matters."""
    import torch
    import transformers

    torch.manual_seed(0)
    if kind == "bert":
        config = transformers.BertConfig(vocab_size=tokens, max_position_embeddings=48, **sizes)
    else:
        config = transformers.XLMRobertaConfig(
            vocab_size=tokens, max_position_embeddings=50, type_vocab_size=1, layer_norm_eps=1e-5, **sizes
        )
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    model.save_pretrained(folder)


def run(folder: pathlib.Path, texts: list[str], longest: int = LONGEST, **options) -> dict[str, np.ndarray]:
    """Ids and mask [N, L], the states after the embeddings and each layer [S, N, L, D], the pooler's vector [N, D]."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, **options).eval()
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
    with torch.no_grad():
        output = model(inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True)
    states = np.stack([state.numpy() for state in output.hidden_states])
    found = {"ids_NL": inputs["input_ids"].numpy(), "real_NL": inputs["attention_mask"].numpy(), "states_SNLD": states}
    return found if output.pooler_output is None else found | {"pooler_ND": output.pooler_output.numpy()}


def main() -> None:
    for kind in KINDS:
        folder = FOLDER / kind
        shutil.rmtree(folder, ignore_errors=True)
        tokens = write_tokenizer(kind, folder)
        write_model(kind, folder, tokens, **SIZES)
        np.savez_compressed(folder / "outputs.npz", **run(folder, list(TEXTS.values())))


if __name__ == "__main__":
    main()
