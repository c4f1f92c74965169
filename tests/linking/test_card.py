"""The card of a bundle: what the hub reads, what a reader needs, and code that is as good as it says."""

import re

import pytest
import yaml

from mel.encoder.config import EncoderConfig
from mel.linking.card import FILE, About, write_card
from mel.text.tokenizer import Prefixes

FACTS = {
    "languages": ["en", "no"], "round": 3, "step": 650, "max_tokens": 48, "entity_tokens": 32, "title_in_window": True,
}  # fmt: skip


def card(tmp_path, about=About(), prefixes=Prefixes(), pooling="pooler", **facts):
    encoder = EncoderConfig(vocab_size=9, hidden_size=8, num_layers=2, num_heads=2, ffn_size=16, pooling=pooling)
    write_card(tmp_path, FACTS | {"encoder": encoder.to_json()} | facts, prefixes, about)
    return (tmp_path / FILE).read_text("utf-8")


def test_the_front_matter_is_what_the_hub_reads(tmp_path):
    text = card(tmp_path, About(license="cc-by-sa-4.0"))
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["language"] == ["en", "no"] and front["license"] == "cc-by-sa-4.0"
    assert (front["library_name"], front["pipeline_tag"]) == ("sentence-transformers", "feature-extraction")
    assert yaml.safe_load(card(tmp_path).split("---\n")[1])["license"] == "other"


def test_it_says_how_texts_are_written(tmp_path):
    text = card(tmp_path, prefixes=Prefixes("query: ", "passage: "))
    for part in ("`[M]`", "cut to 48 tokens", "32 tokens", "After the title of its page", "'query: ' before mention"):
        assert part in text
    assert "**Prefixes.** None." in card(tmp_path) and "without the title" in card(tmp_path, title_in_window=False)


def test_it_shows_data_results_and_what_training_began_with(tmp_path):
    about = About(data=["en: 7 entities"], results="| system | R@1 |\n", start="random:2x8x2")
    text = card(tmp_path, about)
    assert "- en: 7 entities\n" in text and "| system | R@1 |" in text and "begun with `random:2x8x2`" in text
    assert "round 3, step 650" in text and "held no report" not in text


CODE = {
    "pooler": ("output.pooler_output", 'from_pretrained("bundle/encoder")(**inputs)'),
    "cls": ("last_hidden_state[:, 0]", 'from_pretrained("bundle/encoder", add_pooling_layer=False)'),
    "mean": ("last_hidden_state.mean(1)", 'from_pretrained("bundle/encoder", add_pooling_layer=False)'),
}


@pytest.mark.parametrize("pooling, parts", CODE.items())
def test_the_code_pools_as_the_encoder_does(tmp_path, pooling, parts):
    text = card(tmp_path, pooling=pooling)
    assert all(part in text for part in parts)
    for block in re.findall(r"```python\n(.+?)```", text, re.DOTALL):
        compile(block, "card", "exec")


def test_only_what_is_there_is_shown(tmp_path):
    assert "encoder.onnx" not in card(tmp_path) and "entities.safetensors" not in card(tmp_path)
    whole = card(tmp_path, About(has_graph=True, has_entities=True))
    assert "encoder.onnx" in whole and "entities.safetensors" in whole
    alone = card(tmp_path, About(has_index=False))
    assert "mel.Linker.load" not in alone and "The encoder of a linker" in alone
