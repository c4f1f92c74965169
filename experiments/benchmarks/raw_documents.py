"""An exported bundle in four programs: mentions of raw documents, longer than a window, in every language of a tree.

`mel.Linker` is given the documents as they are. What its `render` writes of each mention is given to transformers
(pooled as the card says), to sentence-transformers and, by tokenizers, to the ONNX graph in onnxruntime. A table says
how far the embeddings of each are from the linker's at most, and for how many mentions the entity nearest to them is
the same. "Unrendered" is sentence-transformers given the document itself with the markers in it, which it cuts at
its end. --texts are files of plain text, in which words all over the text are taken for mentions.

  mel-export --workdir=RUN --onnx
  python -m experiments.benchmarks.raw_documents --workdir=RUN --mewsli=TREE --texts TREE/es/text/es-1
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks import rivals
from experiments.benchmarks.harness import Target, options, parser, publish
from experiments.programs import launch
from mel.artifacts import Workdir, open_artifact
from mel.corpora import mewsli
from mel.corpora.malformed import Malformed
from mel.linking.linker import Linker, Text
from mel.reports.report import table
from mel.text.tokenizer import MARKER
from mel.types import MelError, Span

TARGET = Target(passes=1e-5, at_least=False)
TEXTS_AT_ONCE = 32
MAX_CHARACTERS = 12  # of a word that is taken for a mention
PROGRAMS = ("transformers", "sentence-transformers", "onnxruntime")
UNRENDERED = "unrendered"

Embed = Callable[[Sequence[str]], np.ndarray]


class Agreement(NamedTuple):
    """How one program agrees with the linker: the greatest difference of a number, and equal nearest entities."""

    difference: float
    same: int


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__, workdir="a run that mel-export --onnx has exported")
    flags.add_argument("--mewsli", type=pathlib.Path, help="tree whose documents are read")
    flags.add_argument("--texts", type=pathlib.Path, nargs="*", default=[], help="files of plain text to read, too")
    flags.add_argument("--name", default="raw_documents", help="of the result")
    flags.add_argument(
        "--mentions", type=int, default=250, help="how many of each language, the first in long documents"
    )
    chosen = options(flags, argv)
    rivals.require("torch", "transformers", "sentence_transformers", "onnxruntime")
    if chosen.mewsli is None or not chosen.mewsli.is_dir():
        raise MelError(f"--mewsli={chosen.mewsli} is no folder: name a Mewsli tree.")
    bundle = Workdir(chosen.workdir).bundle
    linker = Linker.load(bundle, precision="float32")
    programs = embedders(bundle, linker)
    found = {}
    mentions = 8 if chosen.quick else chosen.mentions
    for language in mewsli.list_languages(chosen.mewsli):
        texts = long_texts(chosen.mewsli, language, linker, mentions)
        found[language] = len(texts), compare(linker, texts, programs)
    for path in chosen.texts:
        texts = words_of(path, linker, mentions)
        found[path.name] = len(texts), compare(linker, texts, programs)
    print("\n".join(tabulated(found)))
    worst = max(found[language][1][name].difference for language in found for name in PROGRAMS)
    details = {
        language: {"mentions": mentions} | {name: each._asdict() for name, each in agreements.items()}
        for language, (mentions, agreements) in found.items()
    }
    measure = "raw documents rendered for transformers, sentence-transformers and onnxruntime, greatest difference"
    publish(chosen.name, measure, TARGET, {"the greatest of three": [worst]}, "", chosen.results, details)


def long_texts(tree: pathlib.Path, language: str, linker: Linker, mentions: int) -> list[Text]:
    """The first mentions of documents that no window holds whole, each with the document as its text."""
    found: list[Text] = []
    for document in mewsli.read_documents(tree, language, Malformed(0)):
        ids = linker.bundle.tokenizer._ids(document.text) if document.mentions else ()
        if len(ids) > 2 * linker.bundle.max_tokens:
            found += [Text(document.text, [mention.span], language, document.title) for mention in document.mentions]
        if len(found) >= mentions:
            break
    return found[:mentions]


def words_of(path: pathlib.Path, linker: Linker, mentions: int) -> list[Text]:
    """Words all over a plain text, each with all of it; of a script without spaces some characters."""
    text = path.read_text("utf-8")
    if len(linker.bundle.tokenizer._ids(text)) <= 2 * linker.bundle.max_tokens:
        raise MelError(f"{path} fits into two windows: name a longer text.")
    words = [(word.start(), min(word.end(), word.start() + MAX_CHARACTERS)) for word in re.finditer(r"\w+", text)]
    return [Text(text, [words[place]]) for place in np.linspace(0, len(words) - 1, mentions).astype(int).tolist()]


def compare(linker: Linker, texts: Sequence[Text], programs: dict[str, Embed]) -> dict[str, Agreement]:
    """How each program agrees with the linker on some mentions."""
    ours_ND, evidence = linker.embed_mentions(texts), linker.bundle.evidence
    rendered = [linker.render(text.text, span_of(text), text.title) for text in texts]
    nearest = evidence.ranking(ours_ND).entities_QK[:, 0]
    agreements = {}
    for name, embed in programs.items():
        theirs_ND = embed([marked(text) for text in texts] if name == UNRENDERED else rendered)
        same = int((evidence.ranking(theirs_ND).entities_QK[:, 0] == nearest).sum())
        agreements[name] = Agreement(float(np.abs(theirs_ND - ours_ND).max()), same)
    return agreements


def marked(text: Text) -> str:
    """A document with the markers in it, and nothing else."""
    start, end = span_of(text)
    return f"{text.text[:start]}{MARKER} {text.text[start:end]}{MARKER}{text.text[end:]}"


def span_of(text: Text) -> tuple[int, int]:
    """The one span of a text."""
    (span,) = text.spans or ()
    return (span.start, span.end) if isinstance(span, Span) else span


def embedders(bundle: pathlib.Path, linker: Linker) -> dict[str, Embed]:
    """What gives the embeddings of texts in each program."""
    open_artifact(bundle, "bundle")
    if not (bundle / "encoder.onnx").is_file():
        raise MelError(f"{bundle} holds no encoder.onnx: move it away, and run mel-export with --onnx.")
    transformers = by_transformers(bundle, linker.bundle.encoder.config.pooling)
    sentences = by_sentence_transformers(bundle)
    return dict(zip((*PROGRAMS, UNRENDERED), (transformers, sentences, by_onnxruntime(bundle), sentences), strict=True))


def by_transformers(bundle: pathlib.Path, pooling: str) -> Embed:
    """As the bundle's card shows it, for several texts at once."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(rivals.THREADS)
    tokenizer = AutoTokenizer.from_pretrained(bundle / "encoder")
    options = {} if pooling == "pooler" else {"add_pooling_layer": False}
    model = AutoModel.from_pretrained(bundle / "encoder", **options)

    def pooled(inputs: Any) -> Any:
        output = model(**inputs)
        match pooling:
            case "pooler":
                return output.pooler_output
            case "cls":
                return output.last_hidden_state[:, 0]
            case _:
                mask = inputs["attention_mask"][..., None]
                return (output.last_hidden_state * mask).sum(1) / mask.sum(1)

    def embed(texts: Sequence[str]) -> np.ndarray:
        inputs = tokenizer(list(texts), return_tensors="pt", padding=True)
        with torch.inference_mode():
            return torch.nn.functional.normalize(pooled(inputs)).numpy()

    return in_blocks(embed)


def by_sentence_transformers(bundle: pathlib.Path) -> Embed:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(bundle), device="cpu")
    return lambda texts: model.encode(list(texts), show_progress_bar=False)


def by_onnxruntime(bundle: pathlib.Path) -> Embed:
    import onnxruntime
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(bundle / "encoder" / "tokenizer.json"))
    tokenizer.enable_padding()  # with any id: the mask leaves it out
    session = onnxruntime.InferenceSession(bundle / "encoder.onnx", providers=["CPUExecutionProvider"])

    def embed(texts: Sequence[str]) -> np.ndarray:
        encodings = tokenizer.encode_batch(list(texts))
        columns = {"input_ids": "ids", "attention_mask": "attention_mask"}
        inputs = {name: np.array([getattr(each, part) for each in encodings]) for name, part in columns.items()}
        return session.run(["embeddings"], inputs)[0]

    return in_blocks(embed)


def in_blocks(embed: Embed) -> Embed:
    """The same for any number of texts."""

    def embed_all(texts: Sequence[str]) -> np.ndarray:
        return np.concatenate([embed(texts[at : at + TEXTS_AT_ONCE]) for at in range(0, len(texts), TEXTS_AT_ONCE)])

    return embed_all


def tabulated(found: dict[str, tuple[int, dict[str, Agreement]]]) -> list[str]:
    """A row a language: mentions, then of each program the greatest difference and the equal nearest entities."""
    header = ["language", "mentions", *PROGRAMS, UNRENDERED]
    rows = [
        [language, str(mentions), *(f"{one.difference:.1e}, {one.same} same" for one in agreements.values())]
        for language, (mentions, agreements) in found.items()
    ]
    return table(header, rows)


if __name__ == "__main__":
    launch(main)
