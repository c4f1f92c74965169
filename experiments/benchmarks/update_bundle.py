"""Adding a thousand entities to a bundle of a million rows and removing a thousand, beside writing it anew.

The bundle is made up: random unit vectors, titles and aliases of letters, an encoder of random weights. Both sides are
what mel-update-bundle does: with --add and --remove, and then with --compact, which writes every row again. In the
details are how long the new entities took to embed, which the first time is compiled, and how many bytes each side
wrote; links write none.

  python -m experiments.benchmarks.update_bundle
"""

from __future__ import annotations

import json
import pathlib
import string
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from experiments.benchmarks import made_bundles
from experiments.benchmarks.harness import Target, options, parser, publish
from experiments.programs import launch
from mel.artifacts import open_artifact
from mel.artifacts import publish as publish_artifact
from mel.corpora import alias_table
from mel.corpora.kb import KnowledgeBase
from mel.corpora.malformed import Malformed
from mel.linking.bundle import ALIAS_TABLE, KIND, write_entity_columns
from mel.linking.rewriting import compact_bundle
from mel.linking.update import embed, update_bundle
from mel.types import Entity

TARGET = Target(passes=0.2, stretch=0.1, at_least=False)


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__, repeats=3)
    flags.add_argument("--rows", type=int, default=1_000_000, help="rows of the bundle")
    flags.add_argument("--changes", type=int, default=1_000, help="entities that are added, and removed")
    chosen = options(flags, argv)
    rows, changes = (2_000, 50) if chosen.quick else (chosen.rows, chosen.changes)
    runs: dict[str, list[float]] = {"--add and --remove": [], "--compact": []}
    processor: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        make_bundle(folder, rows)
        add, remove = write_changes(folder, rows, changes)
        entities = [Entity(*line.values()) for line in map(json.loads, pathlib.Path(add).read_text().splitlines())]
        bundle = open_artifact(folder / "bundle", KIND)
        first, again = (seconds(lambda: embed(bundle, entities)) for _ in range(2))
        for number in range(chosen.repeats):
            updated, whole = folder / f"updated-{number}", folder / f"whole-{number}"
            before = time.process_time()
            runs["--add and --remove"].append(
                seconds(lambda: update_bundle(folder / "bundle", updated, [add], [remove], Malformed(0)))
            )
            processor.append(time.process_time() - before)
            runs["--compact"].append(seconds(lambda: compact_bundle(updated, whole)))
        details = {
            "rows": rows, "changes": changes, "embedding s": again, "embedding s, compiling": first,
            "processor s of --add and --remove": float(np.median(processor)),
            "MB of the bundle": sum(each["bytes"] for each in bundle.files.values()) / 1e6,
            "MB written by --add and --remove": written(updated) / 1e6, "MB written by --compact": written(whole) / 1e6,
        }  # fmt: skip
    measure = f"adding {changes:,} entities to {rows:,} rows and removing as many ÷ writing all rows anew"
    publish("update_bundle", measure, TARGET, runs, "s", chosen.results, details)


def make_bundle(folder: pathlib.Path, rows: int) -> None:
    """A bundle of made-up rows with one alias each, and what it is made of, in `folder`."""
    ids = [f"X:{number:07d}" for number in range(rows)]
    kb = KnowledgeBase.of([(name, 0) for name in ids], map(title, range(rows)), ["en"])
    vectors = made_bundles.publish_vectors(folder, rows)
    with publish_artifact(folder / "bundle", KIND) as draft:
        made_bundles.begin(draft, folder, ["en"])
        write_entity_columns(draft.path, kb, map(description, range(rows)), "exact", vectors)
        names = Counter({(f"alias {title(number)}", "en", name): 1 for number, name in enumerate(ids)})
        (draft / ALIAS_TABLE).mkdir()
        numbers = {name: number for number, name in enumerate(kb.ids)}
        alias_table.write(draft / ALIAS_TABLE, alias_table.Counts(Counter(), Counter(), names), numbers)


def write_changes(folder: pathlib.Path, rows: int, changes: int) -> tuple[str, str]:
    """A file of new entities, and one of ids that there are."""
    new = ({"id": f"NEW:{number}", "language": "en", "title": title(rows + number)} for number in range(changes))
    lines = (json.dumps(each | {"description": description(number)}) for number, each in enumerate(new))
    (folder / "add.jsonl").write_text("".join(f"{line}\n" for line in lines))
    gone = np.random.default_rng(0).choice(rows, changes, replace=False).tolist()
    (folder / "remove.txt").write_text("".join(f"X:{number:07d}\n" for number in gone))
    return str(folder / "add.jsonl"), str(folder / "remove.txt")


def title(number: int) -> str:
    return "".join(string.ascii_lowercase[int(digit)] for digit in str(7_919 * number))


def description(number: int) -> str:
    return " ".join(title(number + step) for step in range(8))


def seconds(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def written(folder: pathlib.Path) -> int:
    """Bytes of the files that are in this folder alone."""
    return sum(file.stat().st_size for file in _files(folder) if file.stat().st_nlink == 1)


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    return (file for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    launch(main)
