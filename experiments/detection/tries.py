"""What finds a million surface forms in a text: time to build, memory, time to open again, and pace of each library.

    pip install marisa-trie pyahocorasick ahocorasick-rs daachorse
    python -m experiments.detection.tries --workdir=W --mewsli=../shared/data/mdn/mewsli/dev

The forms are those of W's knowledge base and pairs of them, so that they share beginnings as names do. Each library is
measured in a process of its own, all over the same English pages. Aho-Corasick finds every form at every place; a trie
is asked at the places where words begin, which is part of its time.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import pathlib
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mel.artifacts import Workdir
from mel.corpora import mewsli
from mel.corpora.alias_columns import LINKS, NAMES
from mel.corpora.malformed import Malformed
from mel.corpora.strings import Strings
from mel.linking.forms import FormTrie, folded_forms
from mel.text.folding import Folded, folded

MARISA, PYAHOCORASICK, AHOCORASICK_RS, DAACHORSE = LIBRARIES = (
    "marisa-trie", "pyahocorasick", "ahocorasick-rs", "daachorse",
)  # fmt: skip


def read_forms(work: Workdir, count: int) -> list[str]:
    """So many distinct forms."""
    known = sorted(set(folded_forms(itertools.chain(*(Strings.read(work.alias_table, n) for n in (LINKS, NAMES))))))
    rng, found = np.random.default_rng(0), dict.fromkeys(known)
    while len(found) < count:
        one, other = rng.integers(len(known), size=2)
        found.setdefault(f"{known[one]} {known[other]}"[:100].strip())
    return list(found)[:count]


def build(library: str, forms: Sequence[str]) -> Any:
    match library:
        case "marisa-trie":
            return FormTrie.of(forms)
        case "pyahocorasick":
            import ahocorasick

            automaton = ahocorasick.Automaton()
            for number, form in enumerate(forms):
                automaton.add_word(form, (len(form), number))
            automaton.make_automaton()
            return automaton
        case "ahocorasick-rs":
            import ahocorasick_rs

            return ahocorasick_rs.AhoCorasick(forms, store_patterns=False)
        case "daachorse":
            import daachorse

            return daachorse.CharwiseDoubleArrayAhoCorasick(list(forms))


def finder(library: str, automaton: Any) -> Callable[[Folded], int]:
    """How many forms there are in a text, and where."""
    match library:
        case "marisa-trie":
            return lambda text: sum(1 for _ in automaton.find(text))
        case "pyahocorasick":
            return lambda text: sum(1 for _ in automaton.iter(text.text))
        case "ahocorasick-rs":
            return lambda text: len(automaton.find_matches_as_indexes(text.text, overlapping=True))
        case _:
            return lambda text: len(automaton.find_overlapping(text.text))


def save_and_open(library: str, automaton: Any) -> tuple[float, float]:
    """Seconds to open what was saved, and its MB; NaN where it cannot be saved."""
    path = pathlib.Path(tempfile.mkdtemp()) / "saved"
    if library == MARISA:
        automaton.save(path)
        opening: Callable[[], Any] = lambda: FormTrie.open(path)  # noqa: E731
    elif library == PYAHOCORASICK:
        import ahocorasick

        automaton.save(str(path), pickle.dumps)
        opening = lambda: ahocorasick.load(str(path), pickle.loads)  # noqa: E731
    else:
        return float("nan"), float("nan")
    began = time.perf_counter()
    opening()
    return time.perf_counter() - began, path.stat().st_size / 1e6


def resident_mb() -> float:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def measure(library: str, forms: Sequence[str], texts: Sequence[Folded]) -> str:
    before, began = resident_mb(), time.perf_counter()
    automaton = build(library, forms)
    building, memory = time.perf_counter() - began, resident_mb() - before
    find, characters = finder(library, automaton), sum(len(text.text) for text in texts)
    began = time.perf_counter()
    found = sum(map(find, texts))
    pace = characters / (time.perf_counter() - began) / 1e6
    opening, size = save_and_open(library, automaton)
    return f"| {library} | {building:.1f} | {memory:.0f} | {size:.0f} | {opening:.3f} | {pace:.1f} | {found:,} |"


def main(argv: Sequence[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--workdir", required=True, help="a prepared one")
    flags.add_argument("--mewsli", type=pathlib.Path, required=True, help="tree whose English pages are searched")
    flags.add_argument("--forms", type=int, default=1_000_000, help="how many")
    flags.add_argument("--libraries", nargs="*", default=LIBRARIES, help="which")
    chosen = flags.parse_args(argv)
    forms = read_forms(Workdir(chosen.workdir), chosen.forms)
    documents = itertools.islice(mewsli.read_documents(chosen.mewsli, "en", Malformed(0)), 300)
    texts = [folded(document.text) for document in documents]
    print(f"{len(forms):,} forms of {sum(map(len, forms)) / len(forms):.0f} characters, "
          f"{sum(len(text.text) for text in texts):,} characters of text")  # fmt: skip
    print(
        "| library | build, s | memory, MB | saved, MB | open, s | pace, M characters/s | found |\n|---|" + "---:|" * 6
    )
    for library in chosen.libraries:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            print(pool.apply(measure, (library, forms, texts)), flush=True)


if __name__ == "__main__":
    main()
