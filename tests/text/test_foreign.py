"""Tokenizers of others give the ids that `transformers` gives, whatever their folders look like."""

import pathlib
import shutil

import huggingface_hub
import pytest
import tokenizers
import transformers
from tokenizers import AddedToken

from mel.text import foreign
from mel.text.foreign import read_tokenizer, tokenizer_folder
from mel.text.tokenizer import Tokenizer
from mel.types import MarkedText, MelError, Span
from tests.text import vocabularies
from tests.text.vocabularies import TEXTS, write_json, write_tokenizer, write_words, xlm_r_config

RAGGED = (
    "  ÉCOLE\u00a0Élan\u200b été\n\nǄ ﬁ ½ ｆｕｌｌ　width\t🦊 x<y [NEW] né ",
    "\ufeffA",
    "\u00ad soft",
    "",
    " ",
    "a  b",
)


def bert(folder):
    return transformers.BertTokenizer.from_pretrained(folder)


def resaved(folder, theirs):
    """As this version of `transformers` saves it."""
    theirs.save_pretrained(folder / "saved")
    return folder / "saved"


def old_layout(folder):
    """As version 4 saved BERT's: the class of then, special and added tokens in files of their own."""
    write_words(folder, tokenizer_class="BertTokenizerFast", do_lower_case=False, model_max_length=512)
    write_json(folder / "special_tokens_map.json", {"cls_token": "[CLS]", "unk_token": {"content": "[UNK]"}})
    write_json(folder / "added_tokens.json", {"[NEW]": len(vocabularies.word_pieces())})
    return folder


def alone(folder):
    """Nothing but BERT's tokenizer.json."""
    (folder / "alone").mkdir()
    saved = resaved(folder, bert(write_words(folder)))
    shutil.copy(saved / "tokenizer.json", folder / "alone")
    return folder / "alone"


def added(folder):
    """A tokenizer.json with a token that its owner added, and no word of special ones."""
    tokenizer = vocabularies.metaspace()
    tokenizer.add_tokens([AddedToken("[NEW]", normalized=False)])
    return write_tokenizer(folder, tokenizer)


def roberta(folder, **config):
    vocabularies.byte_level().model.save(str(folder))
    write_json(folder / "tokenizer_config.json", xlm_r_config(tokenizer_class="RobertaTokenizer", **config))
    return folder


def model_beside(folder):
    """As xlm-roberta-base is published: its class is known from its model only."""
    write_json(folder / "config.json", {"model_type": "xlm-roberta"})
    return write_tokenizer(folder, vocabularies.split_metaspace(), model_max_length=512)


KINDS = {
    "config without do_lower_case": lambda folder: write_words(folder, True, tokenizer_class="BertTokenizer"),
    "config without a class": lambda folder: write_words(folder, do_lower_case=False, model_max_length=512),
    "accents kept in lower case": lambda folder: write_words(
        folder, True, tokenizer_class="BertTokenizer", do_lower_case=True, strip_accents=False
    ),
    "accents stripped, cased": lambda folder: write_words(
        folder, tokenizer_class="BertTokenizer", do_lower_case=False, strip_accents=True
    ),
    "Chinese in words": lambda folder: write_words(
        folder, tokenizer_class="BertTokenizer", do_lower_case=False, tokenize_chinese_chars=False
    ),
    "layout of version 4": old_layout,
    "layout of version 5": lambda folder: resaved(folder, bert(write_words(folder, do_lower_case=False))),
    "only tokenizer.json, words": alone,
    "only tokenizer.json, metaspace": lambda folder: write_tokenizer(folder, vocabularies.metaspace()),
    "only tokenizer.json, split metaspace": lambda folder: write_tokenizer(folder, vocabularies.split_metaspace()),
    "only tokenizer.json, bytes": lambda folder: write_tokenizer(folder, vocabularies.byte_level()),
    "added tokens": added,
    "metaspace with a config": lambda folder: write_tokenizer(
        folder, vocabularies.metaspace(), **xlm_r_config(tokenizer_class="PreTrainedTokenizerFast")
    ),
    "XLM-R of version 4": lambda folder: write_tokenizer(
        folder, vocabularies.split_metaspace(), **xlm_r_config(tokenizer_class="XLMRobertaTokenizerFast")
    ),
    "XLM-R beside its model": model_beside,
    "RoBERTa's vocab.json and merges.txt": roberta,
    "RoBERTa with a space before": lambda folder: roberta(folder, add_prefix_space=True),
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory) -> pathlib.Path:
    return KINDS[request.param](tmp_path_factory.mktemp("kind"))


@pytest.fixture
def sentences(monkeypatch):
    """What is logged."""
    said = []
    monkeypatch.setattr(foreign.logging, "info", lambda message, *values: said.append(message % values))
    return said


def test_the_published_file_gives_the_ids_of_transformers(folder, tmp_path):
    theirs = transformers.AutoTokenizer.from_pretrained(folder) if has_class(folder) else bert(folder)
    read_tokenizer(folder).save(tmp_path)
    ours = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in (*TEXTS.values(), *RAGGED[:1], *RAGGED[3:]):
        assert ours.encode(text).ids == theirs(text)["input_ids"], text


def test_rows_are_the_ids_of_transformers_and_two_markers(folder):
    theirs = transformers.AutoTokenizer.from_pretrained(folder) if has_class(folder) else bert(folder)
    tokenizer = read_tokenizer(folder)
    for text in (*TEXTS.values(), *RAGGED[:3], "a  b"):
        row = tokenizer.rows([MarkedText(text, Span(0, len(text)))], 512)[0]
        kept = tokenizer.row_ids(row[row != tokenizer.marker_id])
        assert kept.tolist() == theirs(text)["input_ids"], text


def has_class(folder):
    """Whether `transformers` finds out by itself what it is."""
    return (folder / "tokenizer.json").exists() or "tokenizer_class" in (folder / "tokenizer_config.json").read_text()


def test_what_was_published_is_read_again_as_the_same(folder, tmp_path):
    tokenizer = read_tokenizer(folder)
    tokenizer.save(tmp_path)
    assert read_tokenizer(tmp_path).facts() == Tokenizer.load(tmp_path).facts() == tokenizer.facts()


def test_stating_the_case_that_it_has_changes_nothing(folder):
    facts = read_tokenizer(folder).facts()
    assert read_tokenizer(folder, lower_case=facts["lower_case"]).facts() == facts


def test_lower_case_overrides(folder, tmp_path):
    for lower_case in (True, False):
        tokenizer = read_tokenizer(folder, lower_case=lower_case)
        assert tokenizer.facts()["lower_case"] == lower_case
        upper, lower = (tokenizer._ids(text).tolist() for text in ("THE RIVER", "the river"))
        assert (upper == lower) == lower_case


@pytest.mark.parametrize("lower, words", [(False, "upper-case pieces, so it is cased"), (True, "no upper-case pieces")])
def test_a_vocabulary_alone_says_its_case(tmp_path, lower, words, sentences):
    tokenizer = read_tokenizer(write_words(tmp_path, lower))
    assert tokenizer.facts()["lower_case"] == lower
    assert any(words in sentence and "--case overrides" in sentence for sentence in sentences)
    expected = transformers.BertTokenizer.from_pretrained(tmp_path, do_lower_case=lower)
    for text in TEXTS.values():
        assert tokenizer._ids(text).tolist() == expected(text, add_special_tokens=False)["input_ids"]


def test_a_config_of_the_model_does_not_say_the_case(tmp_path):
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    assert not read_tokenizer(write_words(tmp_path)).facts()["lower_case"]


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_a_tokenizer_file_means_what_it_says_whatever_model_is_beside_it(tmp_path, model_type):
    cased = resaved(tmp_path, bert(write_words(tmp_path, do_lower_case=False))) / "tokenizer.json"
    for name, file in (("pieces", None), ("words", cased)):
        folder = write_tokenizer(tmp_path / name, vocabularies.metaspace())
        if file:
            shutil.copy(file, folder / "tokenizer.json")
        facts = read_tokenizer(folder).facts()
        write_json(folder / "config.json", {"model_type": model_type})
        assert read_tokenizer(folder).facts() == facts and not facts["lower_case"]


def test_behaviour_is_part_of_the_identity(tmp_path):
    folder = write_words(tmp_path, do_lower_case=False)
    cased, uncased = (read_tokenizer(folder, lower_case=lower_case).facts() for lower_case in (False, True))
    assert cased["vocabulary"] == uncased["vocabulary"] and cased["behaviour"] != uncased["behaviour"]
    stripped = read_tokenizer(write_words(tmp_path, do_lower_case=False, strip_accents=True)).facts()
    assert stripped["vocabulary"] == cased["vocabulary"] and stripped["behaviour"] != cased["behaviour"]


def test_the_same_tokenizer_in_another_layout_has_the_same_identity(tmp_path):
    words = write_words(tmp_path / "words", do_lower_case=False)
    saved = resaved(tmp_path, bert(words))
    assert read_tokenizer(saved).facts() == read_tokenizer(words).facts()


def test_a_text_with_marks_has_the_row_of_its_focus(folder, tmp_path):
    tokenizer = read_tokenizer(folder)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    cases = [("Die ", "alte Mühle", " (am Fluss) in Wien."), ("nach ", "Wien", "")]
    joined = [("東", "京", "都の首都"), ("Haus", "boot", "e"), ("Die ", "Mühle", ", alt"), ("Die (", "Mühle", ")!")]
    match tokenizer._state["pre_tokenizer"]:
        case {"type": "ByteLevel", "add_prefix_space": space}:
            # Bytes know only whether a space stands before a text, and before every piece of it alike.
            cases += [("", "Wien", " am Fluss")] if space else joined
        case _:
            cases += [("", "Wien", " am Fluss"), *joined]
    for left, focus, right in cases:
        row = tokenizer.rows([MarkedText(left + focus + right, Span(len(left), len(left + focus)))], 64)[0]
        begin = "[M]" if left and not left.endswith(" ") else "[M] "
        assert tokenizer.row_ids(row).tolist() == theirs(left + begin + focus + "[M]" + right)["input_ids"]


def test_a_folder_inside_is_found(tmp_path):
    write_words(tmp_path / "0_Transformer")
    write_json(tmp_path / "modules.json", [])
    assert tokenizer_folder(tmp_path) == tmp_path / "0_Transformer"
    assert read_tokenizer(tmp_path).facts() == read_tokenizer(tmp_path / "0_Transformer").facts()


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(MelError, match="holds no tokenizer.json, no vocab.txt"):
        read_tokenizer(tmp_path)
    unpadded = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1}, "</s>"))
    with pytest.raises(MelError, match="no token that begins a row"):
        read_tokenizer(write_tokenizer(tmp_path / "unpadded", unpadded))
    with pytest.raises(MelError, match="no token that pads a row"):
        read_tokenizer(write_tokenizer(tmp_path / "unpadded", unpadded, cls_token="<s>", sep_token="</s>"))
    shutil.rmtree(tmp_path / "unpadded")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[M]\nthe\n")
    with pytest.raises(MelError, match=r"has \[M\] as piece 4, .*: rename that piece"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(MelError, match="cannot be loaded by transformers"):
        read_tokenizer(tmp_path)

    def offline(*args, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(MelError, match="'no-owner/no-model' is no local folder .*ConnectionError"):
        read_tokenizer("no-owner/no-model")
