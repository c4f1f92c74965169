"""Small tokenizers of every kind, and texts of ten languages that their vocabularies cover."""

import functools
import json
import pathlib

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = {
    "en": "The old mill stands by the river; its owner, a miller's son, sells flour (and bread) in Millbrook.",
    "de": "Die Donaudampfschifffahrt führte bis Wien, wo Fährhäuser am Straßenrand auf müde Gäste warteten.",
    "es": "El viejo molino está junto al río; su dueño vende harina, ¿y pan?, en el mercado de Molinaseca.",
    "ru": "Старая мельница стоит у реки, а её хозяин продаёт муку и хлеб на рынке в соседнем городе.",
    "ar": "تقع الطاحونة القديمة على ضفة النهر، ويبيع صاحبها الدقيق والخبز في سوق المدينة المجاورة.",
    "hi": "पुरानी चक्की नदी के किनारे खड़ी है और उसका मालिक पास के शहर के बाज़ार में आटा और रोटी बेचता है।",
    "ko": "오래된 물레방아는 강가에 서 있고, 주인은 이웃 마을 시장에서 밀가루와 빵을 판다.",
    "ja": "東京都の首都圏にある古い水車小屋は川のそばに立ち、持ち主はミルタウンの市場で小麦粉とパンを売っている。",
    "zh": "古老的水磨坊坐落在河边，主人在邻近城镇的集市上出售面粉和面包。北京是中华人民共和国的首都。",
    "th": "โรงสีเก่าตั้งอยู่ริมแม่น้ำเจ้าของโรงสีขายแป้งและขนมปังที่ตลาดในเมืองใกล้เคียงกรุงเทพมหานคร",
}
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
XLM_R = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def word_pieces(lower: bool = False) -> list[str]:
    """Every character of the texts as a beginning and as a continuation, and pieces of three of each."""
    text = " ".join(TEXTS.values()) + " [x] <y> 🦊 éÉ"
    text = text.lower() if lower else text
    text = normalizers.NFD().normalize_str(text) + text
    pieces = sorted({*text} - {" "})
    words = [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)]
    for length in (3, 2):
        pieces += [word[:length] for word in words] + ["##" + word[length : 2 * length] for word in words]
    pieces += ["##" + piece for piece in pieces if not piece.startswith("##")]
    return BERT + [piece for piece in dict.fromkeys(pieces) if piece not in ("", "##")]


def write_words(folder: pathlib.Path, lower: bool = False, **config) -> pathlib.Path:
    """A vocab.txt, and a tokenizer_config.json where one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(word_pieces(lower)) + "\n", encoding="utf-8")
    if config:
        write_json(folder / "tokenizer_config.json", config)
    return folder


def metaspace() -> Tokenizer:
    """As SentencePiece has it: pieces with scores, a space is a part of the word after it, padding has id 1."""
    return Tokenizer.from_str(_unigram())


def split_metaspace() -> Tokenizer:
    """As `transformers` has it for XLM-R: spaces go, and one is put before every word."""
    tokenizer = metaspace()
    layers = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(layers)
    return tokenizer


def byte_level(add_prefix_space: bool = False) -> Tokenizer:
    """As RoBERTa has it."""
    tokenizer = Tokenizer.from_str(_byte_level())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ids, add_prefix_space=add_prefix_space)
    return tokenizer


@functools.cache
def _unigram() -> str:
    """Trained once: the trainer does not give the same pieces twice."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=700, special_tokens=XLM_R, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([*TEXTS.values()] * 3 + ["<x> 🦊 éÉ"], trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    return tokenizer.to_str()


@functools.cache
def _byte_level() -> str:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=XLM_R, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS.values(), trainer)
    return tokenizer.to_str()


def write_json(path: pathlib.Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_tokenizer(folder: pathlib.Path, tokenizer: Tokenizer, **config) -> pathlib.Path:
    """A tokenizer.json, and a tokenizer_config.json where one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    if config:
        write_json(folder / "tokenizer_config.json", config)
    return folder


def xlm_r_config(**config) -> dict:
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), XLM_R, strict=True))
    return names | {"cls_token": "<s>", "sep_token": "</s>"} | config
