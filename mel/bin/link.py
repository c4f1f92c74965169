"""Links mentions in texts to entities, with a bundle alone.

Reads   --input, JSON lines, also compressed (.gz, .xz, .zst, .bz2), the spans as half-open ranges of characters
        (code points); a title, if there is one, is that of the page:
          {"id": "1", "language": "de", "text": "Paris liegt an der Seine.", "spans": [[0, 5], [19, 24]]}
        Without "spans", or with null, the mentions are those that the bundle's detector finds, which is there if
        the data was prepared with mel-prepare-data --detector; --detection_precision=0.8 finds fewer and surer ones.
Writes  --output, a JSON line for each, in the same order:
          {"id": "1", "language": "de", "links": [{"start": 0, "end": 5, "surface_form": "Paris",
            "id": "Q90", "title": "Paris", "score": 0.83, "candidates": [{"id", "title", "score"}, ...]},
            ...]}
        Titles are in the language of the text where the KB has one. A score is the cosine of mention and entity
        and, where the bundle has an alias table, what that knew before; scores can be compared among the candidates
        of one mention. A line or a span that cannot be used is skipped and logged. Other formats (--format) are
        those of ELEVANT (simple JSON lines), NIF 2.0 (Turtle), HIPE 2022 (TSV) and TAC KBP (tab-separated);
        mel/linking/formats.py says what each holds.

`mel.Linker` gives the same answers in a program.

Where the bundle was calibrated, "probability" is that of the link being right, for mentions like those
it was calibrated on. --nil_precision=0.9 withholds the least probable links so that of the others 90 %
are right on such mentions: their "id" is "NIL", their title "", their candidates are still there.
--min_probability=0.5 withholds every link that is less probable than that.

The input is streamed, and the output appears when it is whole. One thread reads and tokenises, one encodes and
searches, one writes; a page of many megabytes is linked in pieces.

Examples:
  mel-link --bundle=run/bundle --input=texts.jsonl --output=links.jsonl --top_k=5
  mel-link --bundle=run/bundle --input=plain.jsonl --output=links.jsonl --detection_precision=0.8
  mel-link --bundle=run/bundle --input=texts.jsonl --output=links.ttl --format=nif --nil_precision=0.95
"""

from __future__ import annotations

import dataclasses
import pathlib

from absl import logging

from mel.artifacts import MANIFEST
from mel.bin.launch import launch
from mel.config import REQUIRED, flag, group
from mel.corpora.malformed import MAX_SHARE
from mel.encoder.backend import ComputeConfig, keep_compiled
from mel.evaluation.ranking import DEPTH
from mel.linking.linker import Linker
from mel.linking.texts import Answers, Format, link_file
from mel.types import MelError


@dataclasses.dataclass(frozen=True)
class Config:
    bundle: str = flag(REQUIRED, "Folder that mel-export published.")
    input: str = flag(REQUIRED, "File of texts and spans, as JSON lines.")
    output: str = flag(REQUIRED, "File that the links are written to; an old one is replaced.")
    top_k: int = flag(10, "Candidates of each mention, the answer included.")
    format: Format = flag("jsonl", "What is written; jsonl is our own.")
    nil_precision: float = flag(0.0, "Share of right links to reach by withholding others; 0 withholds none.")
    min_probability: float = flag(0.0, "Withhold links that are less probable than this; 0 withholds none.")
    detection_precision: float = flag(
        0.0, "Share of detected mentions to be linked on pages like those held out; 0 for the best F1 there."
    )
    max_malformed: int = flag(1000, "Most malformed lines and spans to skip before stopping.")
    max_malformed_share: float = flag(MAX_SHARE, "The same as a share of all lines and spans, if ten or more.")
    compute: ComputeConfig = group(ComputeConfig)


def main(config: Config) -> None:
    """Links the whole input."""
    source, target = pathlib.Path(config.input), pathlib.Path(config.output)
    if not 1 <= config.top_k <= DEPTH:
        raise MelError(f"--top_k={config.top_k} is not possible: 1 to {DEPTH} candidates can be given.")
    if not source.is_file():
        wrong = "a folder" if source.is_dir() else "a device or pipe" if source.exists() else "not there"
        raise MelError(f"--input={source} is {wrong}: name a file of JSON lines.")
    if target.is_dir():
        raise MelError(f"--output={target} is a folder: name a file.")
    if not target.parent.is_dir():
        raise MelError(f"--output={target} is in a folder that is not there: make it first.")
    if source.resolve() == target.resolve():
        raise MelError(f"--output={target} is the input itself: choose another file.")
    if published := [folder for folder in target.resolve().parents if (folder / MANIFEST).is_file()]:
        raise MelError(f"--output={target} is in {published[0]}, whose files are as published: name another folder.")
    keep_compiled(config.compute.compilation_cache)
    linker = Linker.load(config.bundle, config.compute.precision)
    linker.threshold(config.nil_precision, config.min_probability)  # refused before anything is read
    if config.detection_precision:
        linker.detection_threshold(config.detection_precision)
    answers = Answers(config.top_k, config.nil_precision, config.min_probability, config.detection_precision)
    linked, malformed = link_file(
        linker, source, target, answers, config.format, config.max_malformed, config.max_malformed_share
    )
    logging.info("Linked %d mentions into %s; skipped %d malformed lines and spans.", linked, target, len(malformed))


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
