"""What it takes to prepare archives of any size: some are made up and prepared, and laws fitted to what was measured.

  python -m experiments.benchmarks.scale           # pages: MB of xz a second of a core, the parent's share, memory
  python -m experiments.benchmarks.scale --thin    # records of a label and a description
  python -m experiments.benchmarks.scale --make=FOLDER --megabytes 100    # an archive alone, to try anything else on
  python -m experiments.benchmarks.scale --flat --megabytes 100 1600 --preset=1    # most memory of both, nothing else
  python -m experiments.benchmarks.scale --day     # the table of BUILD.md, from the laws in results/*.json

It first prints what a page has beside what the genuine ones in --samples have, and says where they differ by more than
a fifth. Then it makes archives of three sizes, prepares each in processes of their own, opens what was published, and
prints for each stage a law: seconds of all cores, or MB, as so much at all events and so much for each MB of xz (of
pages) or each record (thin ones). Merging is given little memory (--merge_memory), so that it works in pieces here as
it does with its usual 2 GiB where there are 200 times as many records. Archives in --folder are made once; otherwise
all is made in a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import lzma
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks import day, made_archives
from experiments.benchmarks.harness import Target, child, options, parser, publish
from experiments.benchmarks.made_archives import Making, Measures
from experiments.benchmarks.memory_watch import MemoryWatch, anonymous_mb
from experiments.benchmarks.preparing import STAGES, prepare_side
from experiments.programs import ROOT, launch
from mel.reports.report import table
from mel.shards.archives import ArchivesConfig

PAGES, THIN, FLAT = Target(passes=1.2), Target(passes=4.0, at_least=False), Target(passes=1.2, at_least=False)
LIKE, MANY_ROWS = 0.2, 20_000_000
SAMPLES = ROOT.parent / "shared" / "data" / "samples" / "damuel"
COMPARED_PAGES, LOOKED_UP = 200, 1_000
SMALL_MERGE = 0.01  # GiB, so that merging is cut into pieces as it is where there are many times as many records
LANGUAGE = "es"
SIZES = {"pages": ([3.0, 9.0, 27.0], 1.5), "thin": ([20_000.0, 80_000.0, 320_000.0], 0.35)}
QUICK = {"pages": ([0.03, 0.06], 0.03), "thin": ([300.0, 600.0], 0.01)}


class Law(NamedTuple):
    """What something takes at all events, and for each unit of size."""

    fixed: float
    each: float

    @classmethod
    def of(cls, sizes: Sequence[float], took: Sequence[float]) -> Law:
        """The line of least squares; flat through the mean where all sizes are one."""
        if len(set(sizes)) < 2:
            return cls(float(np.mean(took)), 0.0)
        each, fixed = np.polyfit(sizes, took, 1)
        return cls(float(fixed), float(each))

    def at(self, size: float) -> float:
        """What it takes for so much."""
        return self.fixed + self.each * size


def main(argv: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Returns the result; None where nothing was measured."""
    flags = parser(__doc__, repeats=1)
    flags.add_argument("--thin", action="store_true", help="measure thin records, not pages")
    flags.add_argument("--megabytes", type=float, nargs="+", help="sizes in MB of xz of pages")
    flags.add_argument("--records", type=float, nargs="+", help="sizes in thin records")
    flags.add_argument("--part_megabytes", type=float, help="size of a part")
    flags.add_argument("--folder", type=pathlib.Path, help="where archives are made and kept")
    flags.add_argument("--make", type=pathlib.Path, help="make an archive and a tokenizer here, and nothing else")
    flags.add_argument("--day", action="store_true", help="print what all stages take for 9 and for 53 languages")
    flags.add_argument("--flat", action="store_true", help="prepare each size once, and compare the most memory alone")
    flags.add_argument("--preset", type=int, default=6, help="of xz; --megabytes are those of preset 6 in any case")
    flags.add_argument("--merge_memory", type=float, default=SMALL_MERGE, help="GiB that merging may take")
    flags.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that prepare")
    flags.add_argument("--samples", type=pathlib.Path, default=SAMPLES, help="folder of genuine parts")
    flags.add_argument("--seed", type=int, default=0)
    chosen = options(flags, argv)
    if chosen.day:
        return print(day.markdown(day.read(chosen.results)))
    kind = "thin" if chosen.thin or (chosen.records and not chosen.megabytes) else "pages"
    sizes, part = (QUICK if chosen.quick else SIZES)[kind]
    sizes = (chosen.records if kind == "thin" else chosen.megabytes) or sizes
    chosen.part_megabytes = chosen.part_megabytes or part
    if chosen.make:
        return make(chosen.make, making_of(kind, sizes[0], chosen), chosen.workers)
    compare(chosen.samples, 20 if chosen.quick else COMPARED_PAGES)
    return measure(kind, sizes, chosen)


def flat(found: Sequence[dict[str, Any]], chosen: argparse.Namespace) -> dict[str, Any]:
    """Publishes how many times as much memory the largest archive took as the smallest; of thin ones, how much."""
    details = {"sizes": list(found), "workers": chosen.workers, "merge_memory": chosen.merge_memory}
    if chosen.thin:
        measure = f"preparing {found[-1]['rows']:,} thin records, most memory of all processes"
        gigabytes = {"ours": [found[-1]["all_mb"] / 1024]}
        return publish("scale_flat_thin", measure, THIN, gigabytes, "GiB", chosen.results, details)
    sizes = f"{found[0]['megabytes']:,.0f} and {found[-1]['megabytes']:,.0f} MB of xz (preset {chosen.preset})"
    measure = f"preparation, most memory of all processes, largest ÷ smallest archive: {sizes}"
    values = {"ours": [found[-1]["all_mb"] / found[0]["all_mb"]]}
    return publish("scale_flat", measure, FLAT, values, "", chosen.results, details)


def making_of(kind: str, size: float, chosen: argparse.Namespace) -> Making:
    """The archive of a size."""
    if kind == "thin":
        part_records = chosen.part_megabytes * 1e6 / made_archives.THIN_BYTES
        # One page, for nothing can be trained on an archive without mentions.
        return Making(LANGUAGE, 1, int(size), max(1, round(size / part_records)), chosen.seed, chosen.preset)
    making = Making.of(LANGUAGE, size, part_megabytes=chosen.part_megabytes, seed=chosen.seed)
    return making._replace(preset=chosen.preset)


def make(folder: pathlib.Path, making: Making, workers: int) -> None:
    """Makes an archive and a tokenizer that knows its words; prints the command that prepares a workdir of them."""
    tokenizer = made_archives.write_vocabulary(folder / "tokenizer")
    made_archives.write_archive(folder, making, workers)
    print(f"mel-prepare-data --workdir=RUN --damuel={folder} --languages={making.language} --tokenizer={tokenizer}")


def compare(samples: pathlib.Path, pages: int) -> list[str]:
    """Prints the measures of made pages beside the genuine ones'; returns which differ by more than a fifth."""
    parts = [samples / "part-00000", samples / "part-00001.xz"]
    if not all(part.is_file() for part in parts):
        print(f"There are no genuine pages to compare with in {samples}: give --samples.")
        return []
    data = [part.read_bytes() for part in parts]
    lines = [data[0], lzma.decompress(data[1])]
    genuine, size = made_archives.measure(line for some in lines for line in some.splitlines(keepends=True))
    ours, _ = made_archives.measure(made_archives.records(0, Making(LANGUAGE, pages, 0, 1)), size)
    out = ours.out(genuine, LIKE)
    rows = [
        [name, f"{mine:,.2f}", f"{theirs:,.2f}", f"{mine / theirs - 1:+.0%}{' OUT' if name in out else ''}"]
        for name, mine, theirs in zip(Measures._fields, ours, genuine, strict=True)
    ]
    print("\n".join(table(["a page has", "made", "genuine", "more"], rows)))
    print(f"(ratio: of {size:,} bytes a time, as many as the genuine pages have.)")
    if out:
        print(f"Made pages are not like genuine ones, by more than {LIKE:.0%}: {', '.join(out)}.")
    return out


def measure(kind: str, sizes: Sequence[float], chosen: argparse.Namespace) -> dict[str, Any]:
    """Prepares archives of these sizes, prints and publishes the laws."""
    makings = [making_of(kind, size, chosen) for size in sizes]
    middle = makings[len(makings) // 2]
    with contextlib.ExitStack() as temporary:
        folder = chosen.folder or pathlib.Path(temporary.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"languages": (LANGUAGE,), "workers": chosen.workers, "merge_memory": chosen.merge_memory}
        found = [prepared(folder, making, settings) for making in makings]
        if chosen.flat:
            return flat(found, chosen)
        # For what a worker holds: the middle size again in two parts.
        found_whole = prepared(folder, middle._replace(parts=min(2, middle.parts)), settings)
    laws = laws_of(kind, found, found_whole)
    print("\n".join(shown(kind, laws)))
    return published(kind, found, laws, chosen)


def prepared(folder: pathlib.Path, making: Making, settings: dict[str, Any]) -> dict[str, Any]:
    """What it took to prepare an archive, and to open what was published then."""
    archive = folder / "-".join(map(str, making))
    if not list(archive.glob("*.tar")):
        archive.mkdir(exist_ok=True)
        made_archives.write_archive(archive, making, settings["workers"])
    with tempfile.TemporaryDirectory(dir=folder) as work:
        tokenizer = made_archives.write_vocabulary(pathlib.Path(work) / "tokenizer")
        run = f"{work}/run"
        with MemoryWatch() as watch, child(prepare_side, str(archive), run, str(tokenizer), settings) as turn:
            took = turn().value
        with child(open_side, run) as turn:
            took |= turn().value
    took |= {"parts": making.parts, "part_mb": took["megabytes"] / making.parts}
    took |= {"parent_mb": watch.parent, "worker_mb": watch.worker, "all_mb": watch.all}
    print(
        f"{took['megabytes']:.2f} MB in {making.parts} parts, {took['rows']:,} rows, {took['mentions']:,} mentions: "
        f"{took['seconds']:.1f} s, {cpu(took):.1f} of a core; most memory {watch.all:.0f} MB, of a worker "
        f"{watch.worker:.0f} MB",
        flush=True,
    )
    return took


def cpu(took: dict[str, Any]) -> float:
    """Seconds of all cores."""
    return took["parent"] + took["workers"]


def open_side(turn: Callable[[dict[str, float]], None], workdir: str) -> None:
    """A side that maps a knowledge base and an alias table, and asks for a thousand of their titles."""
    from mel.artifacts import Workdir, open_artifact
    from mel.corpora.alias_table import AliasTable
    from mel.corpora.kb import KnowledgeBase

    work = Workdir(workdir)
    before, start = anonymous_mb(), time.perf_counter()
    artifact = open_artifact(work.kb, "kb")
    kb, aliases = KnowledgeBase.read(work.kb, artifact.facts["languages"]), AliasTable.read(work.alias_table)
    aliases.add_titles(kb)
    for row in range(0, len(kb), max(1, len(kb) // LOOKED_UP)):
        aliases.prior(kb.titles[row], LANGUAGE)
    turn({"opening": time.perf_counter() - start, "opening_mb": anonymous_mb() - before})


def laws_of(kind: str, found: Sequence[dict[str, Any]], found_whole: dict[str, Any]) -> dict[str, Law]:
    """By what is measured; the size is MB of pages, or thin records; of `worker_mb` it is MB of a part."""
    sizes = [took["megabytes"] if kind == "pages" else took["rows"] for took in found]
    laws = {"seconds": Law.of(sizes, [took["seconds"] for took in found])}
    for stage in STAGES:
        for place, who in enumerate(("parent", "workers"), start=1):
            laws[f"{stage}, {who}"] = Law.of(sizes, [took["stages"][stage][place] for took in found])
    for name in ("parent", "workers", "parent_mb", "all_mb", "rows", "mentions", "units_mb", "opening", "opening_mb"):
        laws[name] = Law.of(sizes, [took[name] for took in found])
    for name in found[0]["disk_mb"]:
        laws[f"{name}_mb"] = Law.of(sizes, [took["disk_mb"][name] for took in found])
    parts = [*found, found_whole]
    laws["worker_mb"] = Law.of([took["part_mb"] for took in parts], [took["worker_mb"] for took in parts])
    return laws


def shown(kind: str, laws: Mapping[str, Law]) -> Iterator[str]:
    """The laws as a table."""
    of_size = "MB of xz" if kind == "pages" else "thousand records"
    many = 1 if kind == "pages" else 1_000
    rows = [[name, f"{law.fixed:.4g}", f"{many * law.each:.4g}"] for name, law in laws.items()]
    yield from table(["seconds, or MB, of", "at all events", f"each {of_size}"], rows)


def published(
    kind: str, found: Sequence[dict[str, Any]], laws: Mapping[str, Law], chosen: argparse.Namespace
) -> dict[str, Any]:
    """Writes the result: of pages the speed that more of them would have, of thin records the memory of many."""
    seconds_each = laws["parent"].each + laws["workers"].each
    details: dict[str, Any] = {
        "parent's share of each": laws["parent"].each / seconds_each,
        "parent's share of the largest": found[-1]["parent"] / cpu(found[-1]),
        "most memory, largest ÷ smallest": found[-1]["all_mb"] / found[0]["all_mb"],
    }
    kept = {"laws": laws, "sizes": list(found), "workers": chosen.workers, "merge_memory": chosen.merge_memory}
    if kind == "pages":
        details["MB/s a core of the largest, by the clock"] = (
            found[-1]["megabytes"] / found[-1]["seconds"] / chosen.workers
        )
        values = {"ours": [1 / seconds_each]}
        measure = "preparation, MB of xz of pages a second of a core, all passes"
        return publish("scale_pages", measure, PAGES, values, "MB/s", chosen.results, details | kept)
    details["records a second of a core"] = 1 / seconds_each
    gigabytes = {"ours": [laws["parent_mb"].at(MANY_ROWS) / 1024 - chosen.merge_memory + ArchivesConfig().merge_memory]}
    measure = f"merging {MANY_ROWS:,} thin records, most memory by the law of fewer"
    return publish("scale_thin", measure, THIN, gigabytes, "GiB", chosen.results, details | kept)


if __name__ == "__main__":
    launch(main)
