"""mel-link from file to file, beside sentence-transformers and faiss with the same encoder over the same entities.

Both read JSON lines and write, for each mention of a Mewsli tree, the names and scores of its 10 best entities. Ours
gets pages with spans, as they are; the rival gets each mention as a text that is cut to its window and marked already,
and searches 10 rows, be they of one entity or not. It encodes with the batch size that is fastest for it. The ratio is
that of ours without the prior and without probabilities, which the rival does not know either; the details say what it
is with both, which take 100 candidates of each mention, and for how many mentions both give the same first entity.

  python -m experiments.benchmarks.linking --bundle=BUNDLE --mewsli=TREE
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from experiments.benchmarks import rivals
from experiments.benchmarks.harness import Target, in_turn, options, parser, publish
from experiments.programs import launch
from mel.artifacts import open_artifact
from mel.corpora import mewsli
from mel.corpora.malformed import Malformed
from mel.types import MelError

TARGET = Target(passes=1.5, stretch=2.0)
TOP = 10
OURS, WITH_PRIOR, THEIRS = "mel-link", "mel-link with prior and probabilities", "sentence-transformers + faiss"


@dataclasses.dataclass(frozen=True)
class Task:
    """What all sides are given.

    Attributes:
      bundle: with the encoder and the entities.
      folder: holds the input of each side, and takes what they write.
      batch_sizes: what the rival may choose from.
    """

    bundle: pathlib.Path
    folder: pathlib.Path
    batch_sizes: tuple[int, ...] = rivals.BATCH_SIZES

    @property
    def pages(self) -> pathlib.Path:
        return self.folder / "pages.jsonl"

    @property
    def windows(self) -> pathlib.Path:
        return self.folder / "windows.jsonl"


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__, repeats=3)
    flags.add_argument("--bundle", type=pathlib.Path, required=True, help="folder that mel-export published")
    flags.add_argument("--mewsli", type=pathlib.Path, required=True, help="tree whose mentions are linked")
    flags.add_argument("--mentions", type=int, default=20_000, help="how many, from documents of all languages")
    chosen = options(flags, argv)
    rivals.require("torch", "sentence_transformers", "faiss")
    open_artifact(chosen.bundle, "bundle")
    if not chosen.mewsli.is_dir():
        raise MelError(f"--mewsli={chosen.mewsli} is no folder: name a Mewsli tree.")
    with tempfile.TemporaryDirectory() as name:
        task = Task(chosen.bundle.absolute(), pathlib.Path(name))
        if chosen.quick:
            task = dataclasses.replace(task, batch_sizes=(32,))
        mentions = write_pages(chosen.mewsli, task.pages, 200 if chosen.quick else chosen.mentions)
        write_windows(task)
        sides = {OURS: (ours, task, False), THEIRS: (theirs, task), WITH_PRIOR: (ours, task, True)}
        runs = in_turn(sides, chosen.repeats, warmups=0 if chosen.quick else 1)
        same = same_first(task.folder / f"{OURS}.jsonl", task.folder / f"{THEIRS}.jsonl")
    rates = {side: [mentions / run.seconds for run in found] for side, found in runs.items()}
    with_prior, rival = (statistics.median(rates[side]) for side in (WITH_PRIOR, THEIRS))
    details = {
        "mentions": mentions,
        "ratio with prior and probabilities": with_prior / rival,
        "same first entity": same,
        "batch size": runs[THEIRS][-1].value,
    }
    measure = "linking from file to file, mel-link ÷ sentence-transformers + faiss"
    publish("linking", measure, TARGET, rates, "mentions/s", chosen.results, details)


def write_pages(tree: pathlib.Path, path: pathlib.Path, mentions: int) -> int:
    """Writes documents with their spans, taken from each language in turn; returns how many spans there are."""
    readers = [mewsli.read_documents(tree, language, Malformed(0)) for language in mewsli.list_languages(tree)]
    written = 0
    with open(path, "wb") as file:
        for document in in_turns(readers):
            spans = [[mention.span.start, mention.span.end] for mention in document.mentions][: mentions - written]
            language = document.mentions[0].language if spans else ""
            record = {"id": document.docid, "language": language, "title": document.title, "text": document.text}
            if spans:
                file.write(orjson.dumps(record | {"spans": spans}, option=orjson.OPT_APPEND_NEWLINE))
            written += len(spans)
            if written == mentions:
                break
    return written


def in_turns(readers: Sequence[Iterator[Any]]) -> Iterator[Any]:
    """One of each, again and again, as long as there are any."""
    waiting = list(readers)
    while waiting:
        for reader in list(waiting):
            try:
                yield next(reader)
            except StopIteration:
                waiting.remove(reader)


def write_windows(task: Task) -> None:
    """Writes each mention as the text that other programs read as our encoder reads the page."""
    from mel.linking.linker import Linker, Text

    linker = Linker.load(task.bundle)
    tokenizer = linker.bundle.tokenizer
    with open(task.pages, "rb") as source, open(task.windows, "wb") as target:
        for record in map(orjson.loads, source):
            text = Text(record["text"], record["spans"], record["language"], record["title"])
            marked = [linker._marked(mention) for mention in linker.mentions(text)]
            for window in tokenizer._windows(marked, linker.bundle.max_tokens):
                line = {"language": record["language"], "text": next(tokenizer._spellings(window))}
                target.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def ours(turn: Callable[[Any], None], task: Task, with_prior: bool) -> None:
    """What mel-link does, once its bundle is open."""
    from mel.linking.linker import Linker
    from mel.linking.texts import Answers, link_file

    linker = Linker.load(task.bundle)
    if not with_prior:
        linker = Linker(dataclasses.replace(linker.bundle, fusion_weight=0.0, calibration=None))
    target = task.folder / f"{WITH_PRIOR if with_prior else OURS}.jsonl"
    while True:
        link_file(linker, task.pages, target, Answers(TOP))
        turn(None)


def theirs(turn: Callable[[Any], None], task: Task) -> None:
    """The same with a SentenceTransformer and an index of faiss, once both are there."""
    import faiss
    import torch
    from sentence_transformers import SentenceTransformer

    from mel.linking.bundle import open_bundle

    torch.set_num_threads(rivals.THREADS)
    faiss.omp_set_num_threads(rivals.THREADS)
    model, evidence = SentenceTransformer(str(task.bundle), device="cpu"), open_bundle(task.bundle).evidence
    kb, index = evidence.kb, faiss.IndexFlatIP(evidence.embeddings_ED.shape[1])
    index.add(evidence.embeddings_ED)
    entities = [(kb.ids[entity], title) for entity, title in zip(kb.entities_E.tolist(), kb.titles)]
    lines = [orjson.loads(line) for line in task.windows.read_bytes().splitlines()]
    batch_size = rivals.best_batch_size(model, [line["text"] for line in lines], task.batch_sizes)
    while True:
        texts = [orjson.loads(line)["text"] for line in task.windows.read_bytes().splitlines()]
        queries_QD = model.encode(texts, batch_size=batch_size, show_progress_bar=False)
        scores_Qk, rows_Qk = index.search(queries_QD, TOP)
        with open(task.folder / f"{THEIRS}.jsonl", "wb") as file:
            for rows_k, scores_k in zip(rows_Qk.tolist(), scores_Qk.tolist()):
                names = [entities[row] for row in rows_k]
                found = [{"id": name, "title": title, "score": score} for (name, title), score in zip(names, scores_k)]
                file.write(orjson.dumps({"candidates": found}, option=orjson.OPT_APPEND_NEWLINE))
        turn(batch_size)


def same_first(our_file: pathlib.Path, their_file: pathlib.Path) -> float:
    """The share of mentions for which both files have the same entity first."""
    ours_n = [link["id"] for line in our_file.open(encoding="utf-8") for link in json.loads(line)["links"]]
    theirs_n = [json.loads(line)["candidates"][0]["id"] for line in their_file.open(encoding="utf-8")]
    return statistics.mean(one == other for one, other in zip(ours_n, theirs_n, strict=True))


if __name__ == "__main__":
    launch(main)
