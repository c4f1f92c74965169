"""Starting to link with a large knowledge base: mel-link of one text with eight mentions, and a bundle of many rows.

The bundle is made up: random unit vectors of 128 dimensions, an exact index, names of two words as in `large_tables`,
an encoder of random weights. The ratio is the seconds of the whole command with none of the bundle in memory, of which
the most is comparing its files with their digests, before which mel-link shows no output. The details have the same for
the next command, which does not compare large files again, and what `mel.Linker` takes, which answers meanwhile: to be
opened, and for a text. Memory is what is no mapped file.

  python -m experiments.benchmarks.large_linking --rows=20000000
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from experiments.benchmarks import made_bundles
from experiments.benchmarks.harness import Target, child, forget, options, parser, publish
from experiments.benchmarks.large_tables import LANGUAGES, named, write_alias_table, write_kb
from experiments.benchmarks.memory_watch import MemoryWatch
from experiments.programs import ROOT, command, launch
from mel.artifacts import exists, open_artifact
from mel.artifacts import publish as publish_artifact
from mel.corpora.strings import StringsWriter
from mel.linking.bundle import ALIAS_TABLE, DESCRIPTIONS, KIND
from mel.retrieval.index import publish_index

TARGET = Target(passes=60.0, stretch=20.0, at_least=False)
MENTIONS = 8


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    flags = parser(__doc__, repeats=1)
    flags.add_argument("--rows", type=int, default=20_000_000)
    flags.add_argument("--folder", type=pathlib.Path, help="where the bundle is kept, .8 GB a million rows")
    chosen = options(flags, argv)
    rows = 3_000 if chosen.quick else chosen.rows
    details: dict[str, Any] = {}
    with contextlib.ExitStack() as temporary:
        folder = chosen.folder or pathlib.Path(temporary.enter_context(tempfile.TemporaryDirectory()))
        bundle = folder / "bundle"
        if not exists(bundle):
            make(folder, rows)
        rows = open_artifact(bundle / "index", "index", reads=()).facts["rows"]  # of one that was there
        details["rows"] = rows
        details["GB of the bundle"] = sum(file.stat().st_size for file in files_of(bundle)) / 1e9
        text = write_text(folder, rows)
        seconds = []
        for _ in range(chosen.repeats):
            with tempfile.TemporaryDirectory() as cache:
                forget(files_of(bundle))
                took, megabytes = link(bundle, text, cache)
                seconds.append(took)
                details["anonymous memory, MB"] = megabytes
                details["seconds of the next command"], _ = link(bundle, text, cache)
            with tempfile.TemporaryDirectory() as cache:
                forget(files_of(bundle))
                with child(open_and_link, bundle, text, environment={"XDG_CACHE_HOME": cache}) as run:
                    details |= {f"mel.Linker, seconds of {step}": took for step, took in run().value.items()}
    measure = f"mel-link of {MENTIONS} mentions with {rows:,} × {made_bundles.DIMENSION}, nothing of them in memory"
    return publish("large_linking", measure, TARGET, {"mel-link": seconds}, "s", chosen.results, details)


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def make(folder: pathlib.Path, rows: int) -> None:
    """Publishes the bundle; what it is made of is deleted as soon as it is in there."""
    folder.mkdir(parents=True, exist_ok=True)
    vectors = made_bundles.publish_vectors(folder, rows)
    with publish_artifact(folder / "bundle", KIND) as draft:
        made_bundles.begin(draft, folder, LANGUAGES)
        publish_index(draft / "index", "exact", vectors)
        shutil.rmtree(vectors.path)
        write_kb(draft.path, rows)
        descriptions = StringsWriter(draft.path, DESCRIPTIONS)
        for name in named(rows):
            descriptions.add(f"one of those that are called {name}")
        descriptions.close()
        (draft / ALIAS_TABLE).mkdir()
        write_alias_table(draft / ALIAS_TABLE, rows)


def write_text(folder: pathlib.Path, rows: int) -> pathlib.Path:
    """Writes the text whose mentions are linked, as mel-link reads it."""
    names, end, spans = list(itertools.islice(named(rows), MENTIONS)), 0, []
    for name in names:
        spans.append((end, end + len(name)))
        end += len(name) + 1
    record = {"id": "1", "language": LANGUAGES[0], "text": " ".join(names), "spans": spans}
    path = folder / "text.jsonl"
    path.write_text(json.dumps(record) + "\n")
    return path


def link(bundle: pathlib.Path, text: pathlib.Path, cache: str) -> tuple[float, float]:
    """The seconds of the command, and the most anonymous memory that it held, in MB."""
    output = text.with_name("links.jsonl")
    paths = {"bundle": bundle, "input": text, "output": output}
    asked = command("link", *(f"--{flag}={path.absolute()}" for flag, path in paths.items()))
    started = time.perf_counter()
    with MemoryWatch() as watch:
        subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, env=os.environ | {"XDG_CACHE_HOME": cache})
    took = time.perf_counter() - started
    (line,) = output.read_text().splitlines()
    assert len(json.loads(line)["links"]) == MENTIONS
    return took, watch.parent


def open_and_link(turn: Callable[[Any], None], bundle: pathlib.Path, text: pathlib.Path) -> None:
    """What a program does with the bundle."""
    from mel.linking.linker import Linker

    record = json.loads(text.read_text())
    clock = [time.perf_counter()]
    linker = Linker.load(bundle)
    clock.append(time.perf_counter())
    for _ in range(2):
        linker.link(record["text"], record["spans"], record["language"])
        clock.append(time.perf_counter())
    opened, first, again = (end - begin for begin, end in zip(clock, clock[1:]))
    turn({"opening": opened, "the first text": first, "the text again": again})


if __name__ == "__main__":
    launch(main)
