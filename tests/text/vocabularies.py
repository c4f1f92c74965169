"""Small tokenizers of every kind, and texts of eight languages that their vocabularies cover."""

import json
import pathlib

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = {
    "en": "The old mill stands by the river; its owner, a miller's son, sells flour (and bread) in Millbrook.",
    "de": "Die Donaudampfschifffahrt führte bis Wien, wo Fährhäuser am Straßenrand auf müde Gäste warteten.",
    "ru": "Старая мельница стоит у реки, а её хозяин продаёт муку и хлеб на рынке в соседнем городе.",
    "ar": "تقع الطاحونة القديمة على ضفة النهر، ويبيع صاحبها الدقيق والخبز في سوق المدينة المجاورة.",
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


def unigram(pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    """As XLM-R has them: no [CLS], and padding with id 1."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=700, special_tokens=XLM_R, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([*TEXTS.values()] * 3 + ["<x> 🦊 éÉ"], trainer)
    tokenizer.post_processor = _template(tokenizer, "<s>", "</s>")
    return tokenizer


def metaspace() -> Tokenizer:
    """As SentencePiece has it: a space becomes a part of the word after it."""
    return unigram(pre_tokenizers.Metaspace())


def split_metaspace() -> Tokenizer:
    """As `transformers` has it for XLM-R: spaces go, and one is put before every word."""
    return unigram(pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]))


def byte_level(add_prefix_space: bool = False) -> Tokenizer:
    """As RoBERTa has it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=XLM_R, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS.values(), trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ids, add_prefix_space=add_prefix_space)
    return tokenizer


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


def _template(tokenizer: Tokenizer, start: str, end: str) -> processors.TemplateProcessing:
    ids = [(token, tokenizer.token_to_id(token)) for token in (start, end)]
    return processors.TemplateProcessing(single=f"{start} $A {end}", special_tokens=ids)
