"""What an evaluation of 2,000 mentions does beside encoding and searching, where the knowledge base is large.

Makes an alias table and a knowledge base of so many rows (names and titles of two made-up words), and then, in a
process of its own, opens both, asks for the prior of every mention, for the titles and rows of golds, for the most
similar aliases of those that nobody knows, and for everything that a fusion and a report look up. The ratio is the
seconds of all of this; the details say what each step took, by the clock and of a core, which is what it takes where
nothing else runs, and how much memory it took that is no mapped file.

  python -m experiments.benchmarks.large_tables --rows=20000000
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.benchmarks.harness import Target, child, options, parser, publish
from experiments.benchmarks.memory_watch import anonymous_mb
from experiments.programs import launch
from mel.corpora.alias_columns import AliasTableWriter
from mel.corpora.alias_table import AliasTable
from mel.corpora.kb import KnowledgeBase
from mel.corpora.shapes import ShapesWriter
from mel.corpora.similarity import similarity_prior
from mel.corpora.strings import Hashes, StringsWriter
from mel.evaluation import recall
from mel.evaluation.nearest import best_cosines

TARGET = Target(passes=60.0, stretch=20.0, at_least=False)
MENTIONS, UNSEEN, CANDIDATES, DIMENSION = 2_000, 0.1, 10, 128
LANGUAGES, MADE = ("en", "de", "ja"), "made"
SYLLABLES = [consonant + vowel for consonant in "bdfghklmnprstvwz" for vowel in "aeiou"]


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__, repeats=1)
    flags.add_argument("--rows", type=int, default=20_000_000, help="names, and rows of the knowledge base")
    flags.add_argument("--folder", type=pathlib.Path, help="where they are made and kept, 0.2 GB a million rows")
    chosen = options(flags, argv)
    rows = 3_000 if chosen.quick else chosen.rows
    details: dict[str, float] = {"rows": rows}
    with contextlib.ExitStack() as temporary:
        folder = chosen.folder or pathlib.Path(temporary.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / MADE).exists():
            folder.mkdir(parents=True, exist_ok=True)
            clock = time.perf_counter()
            make(folder, rows)
            details["seconds to make them"] = time.perf_counter() - clock
        with child(evaluate, folder, rows) as run:
            found = [run().value for _ in range(chosen.repeats)]
    last = found[-1].items()
    details |= {f"{step}, seconds": took.seconds for step, took in last}
    details |= {f"{step}, seconds of a core": took.of_a_core for step, took in last}
    details["anonymous memory, MB"] = max(took.megabytes for _, took in last)
    seconds = [sum(took.seconds for took in steps.values()) for steps in found]
    measure = f"everything of an evaluation of {MENTIONS:,} mentions but encoding and search"
    publish("large_tables", measure, TARGET, {"seconds": seconds}, "s", chosen.results, details)


class Took(NamedTuple):
    """What a step took; the memory is anonymous, and that of the process after it."""

    seconds: float
    of_a_core: float
    megabytes: float


def words(count: int) -> list[str]:
    """So many words, sorted."""
    generator = np.random.default_rng(0)
    found: set[str] = set()
    while len(found) < count:
        found.add("".join(generator.choice(SYLLABLES, generator.integers(2, 5))))
    return sorted(found)


def named(rows: int) -> Iterator[str]:
    """So many distinct strings of two words, sorted."""
    of_a_word = max(2, int(rows**0.5))
    pairs = itertools.product(words(-(-rows // of_a_word)), words(of_a_word))
    return (f"{first} {second}" for first, second in itertools.islice(pairs, rows))


def make(folder: pathlib.Path, rows: int) -> None:
    """Writes an alias table, a knowledge base, and embeddings that take no room."""
    write_alias_table(folder, rows)
    write_kb(folder, rows)
    # holes that read as zeros
    np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.float32, (rows, DIMENSION))
    (folder / MADE).touch()


def write_alias_table(folder: pathlib.Path, rows: int) -> None:
    """Writes an alias table of so many names, with links for every tenth."""
    writer = AliasTableWriter(folder)
    numbers = range(1, rows + 1)
    writer.write("links", ((name, "en", n, 1 + n % 7) for n, name in zip(numbers, named(rows)) if n % 10 == 0))
    writer.write("lemmas", ())
    writer.write("names", ((name, LANGUAGES[n % 3], n, 1) for n, name in zip(numbers, named(rows))))
    writer.close()


def write_kb(folder: pathlib.Path, rows: int) -> None:
    """Writes the columns of a knowledge base."""
    titles, shapes, ids = StringsWriter(folder, "titles"), ShapesWriter(folder, "title"), StringsWriter(folder, "ids")
    ids.add("NIL")
    for n, name in enumerate(named(rows), start=1):
        ids.add(f"Q{n}")
        titles.add(title := " ".join(reversed(name.split())).title())
        shapes.add(title)
    for each in (titles, shapes, ids):
        each.close()
    Hashes.of("NIL" if not n else f"Q{n}" for n in range(rows + 1)).write(folder, "id")
    Hashes.of(" ".join(reversed(name.split())) for name in named(rows)).write(folder, "title")
    np.save(folder / "entities.npy", np.arange(1, rows + 1, dtype=np.int32))
    np.save(folder / "languages.npy", np.arange(rows, dtype=np.int32) % len(LANGUAGES))
    keys = np.arange(1, rows + 1, dtype=np.int64) * len(LANGUAGES) + np.arange(rows) % len(LANGUAGES)
    np.save(folder / "row_keys.npy", keys)
    np.save(folder / "row_order.npy", np.arange(rows, dtype=np.int32))


def evaluate(turn: Callable[[dict[str, Took]], None], folder: pathlib.Path, rows: int) -> None:
    """The steps, again and again, and what each took."""
    generator = np.random.default_rng(1)
    strings = list(itertools.islice(named(rows), 0, None, max(1, rows // MENTIONS)))[:MENTIONS]
    misspelt = [string[:3] + "q" + string[4:] for string in strings]
    forms = [wrong if n < UNSEEN * MENTIONS else right for n, (wrong, right) in enumerate(zip(misspelt, strings))]
    lookups = [(form, LANGUAGES[n % 3], "") for n, form in enumerate(forms)]
    golds_Q = generator.integers(1, rows, len(forms))
    while True:
        steps: dict[str, Took] = {}

        def step(name: str, run: Callable):
            clock, busy = time.perf_counter(), time.process_time()
            value = run()
            steps[name] = Took(time.perf_counter() - clock, time.process_time() - busy, anonymous_mb())
            return value

        def opened() -> tuple[KnowledgeBase, AliasTable]:
            kb, table = KnowledgeBase.read(folder, LANGUAGES), AliasTable.read(folder)
            table.add_titles(kb)
            return kb, table

        kb, table = step("opening", opened)
        step("priors", lambda: [table.prior(*lookup) for lookup in lookups])
        step("groups", lambda: [table.ambiguity(form) for form in forms] + [table.is_linked(golds_Q)])
        step("golds", lambda: [kb.titles_of(gold) for gold in golds_Q] + [kb.rows_of(golds_Q, "de")])
        step("ids", lambda: kb.numbers_of([f"Q{gold}" for gold in golds_Q]))
        prior = step("similar aliases", lambda: similarity_prior(table, lookups, outside=1 / rows))
        step("similar priors", lambda: [prior(*lookup) for lookup in lookups])
        step("coverage", lambda: (recall.coverage(golds_Q, kb.entity_rows), kb.entity_rows.count()))
        mention_P = np.repeat(np.arange(len(forms)), CANDIDATES)
        entity_P, embeddings_ED = generator.integers(1, rows, len(mention_P)), np.load(folder / "embeddings.npy", "r")
        queries_QD = np.zeros((len(forms), DIMENSION), np.float32)
        step("cosines", lambda: best_cosines(queries_QD, mention_P, entity_P, embeddings_ED, kb))
        turn(steps)


if __name__ == "__main__":
    launch(main)
