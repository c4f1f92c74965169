"""A day on paper: what each stage takes for nine and for all languages of DaMuEL, computed from measured laws.

    python -m experiments.benchmarks.scale --day

Every figure is a law of `results/*.json`, or of the page that is named, applied to the sizes of `CORPORA`. A stage
whose law nobody measured has no figure. Hours of preparation are the clock's on `CORES` cores: seconds of the workers
by the cores, and those of the parent. Exact search is taken to be as much faster as there are more cores.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.benchmarks import made_archives
from experiments.benchmarks.harness import RESULTS
from experiments.benchmarks.table import read as read_results
from mel.reports.report import table
from mel.shards.archives import ArchivesConfig

CORES, MEMORY_GB = 16, 128
DIMENSION, LAYERS = 384, 12
BATCH, STEPS_A_ROUND, ROUNDS, EVALUATED = 2_688, 10_000, 10, 2_000  # experiments/mewsli9/run_rounds.flags
# Of 64 tokens: trained with four negatives each, and encoded.
GPU_MENTIONS, GPU_PAGE = 3_150, "`experiments/mdn_pretrained/README.md`"
GPU_ROWS_ENCODED, GPU_MENTIONS_ENCODED = 71_000, 63_000
HEADER = "stage", "law", "hours, 9", "53", "GB of memory, 9", "53", "GB of disk, 9", "53", "measured by"
UNKNOWN = "not measured"


class Corpus(NamedTuple):
    """Some archives: their MB of xz, records, mentions, and MB of the largest part."""

    megabytes: float
    records: float
    mentions: float
    part: float

    @property
    def pages(self) -> float:
        """How many pages like the made ones fill what thin records leave."""
        thin_mb = self.records * made_archives.THIN_BYTES / 1e6
        return (self.megabytes - thin_mb) * 1e6 / (made_archives.PAGE_BYTES - made_archives.THIN_BYTES)


CORPORA = Corpus(53_000, 62e6, 175e6, 49), Corpus(114_000, 134e6, 380e6, 49)

Quantity = Callable[[Corpus], float] | None


class Stage(NamedTuple):
    """A row: what it takes of a corpus, in hours, GB of memory and GB of disk; None where nobody measured it."""

    name: str
    law: str
    hours: Quantity
    memory: Quantity
    disk: Quantity
    measured_by: str


class Preparation:
    """The laws of `scale`: of pages by their MB, of thin records by their number."""

    def __init__(self, pages: Mapping[str, Any], thin: Mapping[str, Any]):
        self._pages, self._thin = pages["details"]["laws"], thin["details"]["laws"]
        self._merge_gb = ArchivesConfig().merge_memory - thin["details"]["merge_memory"]  # more than was measured with

    def each(self, name: str) -> tuple[float, float]:
        """What each MB of pages takes, and each thin record; nothing where noise made it less than that."""
        return max(self._pages[name][1], 0.0), max(self._thin[name][1], 0.0)

    def of(self, name: str, corpus: Corpus) -> float:
        """What a corpus takes."""
        pages, thin = self.each(name)
        pages_mb = corpus.pages * made_archives.PAGE_BYTES / 1e6
        return pages * pages_mb + thin * (corpus.records - corpus.pages)

    def hours(self, stage: str, corpus: Corpus) -> float:
        """By the clock of `CORES` cores."""
        seconds = self.of(f"{stage}, parent", corpus) + self.of(f"{stage}, workers", corpus) / CORES
        return seconds / 3600

    def mention_hours(self, corpus: Corpus) -> float:
        """The parent's seconds are for each mention, and the corpus says how many there are."""
        return self.each("mentions, parent")[0] / self.each("mentions")[0] * corpus.mentions / 3600

    def worker_gb(self, part: float) -> float:
        """What a worker holds that reads a part of so many MB."""
        fixed, each = self._pages["worker_mb"]
        return (fixed + each * part) / 1e3

    def merging_gb(self, corpus: Corpus) -> float:
        """What the parent holds that merges so many records with its usual memory."""
        fixed, each = self._thin["parent_mb"]
        return (fixed + each * corpus.records) / 1e3 + self._merge_gb * 2**30 / 1e9

    def law(self, *names: str) -> str:
        """The law of what is in all of these, in words."""
        pages, thin = (sum(values) for values in zip(*map(self.each, names), strict=True))
        return f"{pages:.3g} s a MB of pages, {1e6 * thin:.3g} µs a thin record"


def read(folder: pathlib.Path | None) -> dict[str, dict[str, Any]]:
    """The results by name."""
    return {result["name"]: result for result in read_results(folder or RESULTS)}


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table, and what it is computed from."""
    sizes = [
        f"- {names}: {each.megabytes / 1e3:,.0f} GB of archives, {each.records / 1e6:,.0f} million records, "
        f"{each.mentions / 1e6:,.0f} million mentions; {CORES} cores, one GPU."
        for names, each in zip(("Nine languages", "All 53"), CORPORA, strict=True)
    ]
    return "\n".join([*table(HEADER, map(_row, stages(results))), "", *sizes])


def stages(results: Mapping[str, Mapping[str, Any]]) -> Iterator[Stage]:
    """All of them, in the order in which they run."""
    yield Stage("archives", "as published", None, None, lambda corpus: corpus.megabytes / 1e3, "")
    if {"scale_pages", "scale_thin"} <= results.keys():
        prepared = list(preparation(Preparation(results["scale_pages"], results["scale_thin"])))
        yield from [*prepared, together("preparation, all of it", prepared)]
        yield opening(results["scale_thin"]["details"])
    law = f"{GPU_MENTIONS:,} mentions/s on one H200, {LAYERS} × {DIMENSION}"
    yield Stage("training, one pass over all mentions", law, lambda corpus: corpus.mentions / GPU_MENTIONS / 3600,
                None, None, GPU_PAGE)  # fmt: skip
    trained = BATCH * STEPS_A_ROUND * ROUNDS
    yield Stage(f"training, {ROUNDS} rounds of {STEPS_A_ROUND:,} × {BATCH:,}", "the same",
                lambda corpus: trained / GPU_MENTIONS / 3600, None, None, GPU_PAGE)  # fmt: skip
    law = f"{GPU_ROWS_ENCODED:,} entity rows/s, {GPU_MENTIONS_ENCODED:,} mentions/s"
    yield Stage("encoding all entities and a round's mentions, on a GPU", law, encoding_hours, None, embeddings_gb,
                GPU_PAGE)  # fmt: skip
    yield from searching(results)
    yield evaluating(results)
    yield starting(results)


def together(name: str, some: Sequence[Stage]) -> Stage:
    """One after the other: hours and disk add up, and memory is that of the stage that takes most."""

    def values(quantity: str, corpus: Corpus) -> list[float]:
        return [measured(corpus) for stage in some if (measured := getattr(stage, quantity)) is not None]

    return Stage(name, "", lambda corpus: sum(values("hours", corpus)), lambda corpus: max(values("memory", corpus)),
                 lambda corpus: sum(values("disk", corpus)), "")  # fmt: skip


def embeddings_gb(corpus: Corpus) -> float:
    """Of all entities, and of the mentions of a round."""
    return (corpus.records + BATCH * STEPS_A_ROUND) * DIMENSION * 4 / 1e9


def encoding_hours(corpus: Corpus) -> float:
    """Of all entities, and of the mentions of a round."""
    return (corpus.records / GPU_ROWS_ENCODED + BATCH * STEPS_A_ROUND / GPU_MENTIONS_ENCODED) / 3600


def preparation(laws: Preparation) -> Iterator[Stage]:
    """From archives to what training reads."""
    pages = "`scale`", "`scale --thin`"
    by = " and ".join(pages)
    both = [(f"{stage}, parent", f"{stage}, workers") for stage in ("reading", "merging", "entity rows")]
    yield Stage("reading parts into units", laws.law(*both[0]), lambda corpus: laws.hours("reading", corpus),
                lambda corpus: CORES * laws.worker_gb(corpus.part), lambda corpus: laws.of("units_mb", corpus) / 1e3,
                by)  # fmt: skip
    yield Stage("merging knowledge base and alias table", laws.law(*both[1]),
                lambda corpus: laws.hours("merging", corpus),
                laws.merging_gb,
                lambda corpus: (laws.of("kb_mb", corpus) + laws.of("alias_table_mb", corpus)) / 1e3, by)  # fmt: skip
    yield Stage("token rows of entities", laws.law(*both[2]), lambda corpus: laws.hours("entity rows", corpus),
                None, None, by)  # fmt: skip
    mentions = laws.each("mentions")[0]

    def disk(corpus: Corpus) -> float:
        return (laws.each("mentions_mb")[0] / mentions * corpus.mentions + laws.of("tokens_mb", corpus)) / 1e3

    law = f"{1e6 * laws.each('mentions, parent')[0] / mentions:.3g} µs a mention, in the parent"
    yield Stage("mentions and their token rows", law, laws.mention_hours, None, disk, pages[0])


def opening(details: Mapping[str, Any]) -> Stage:
    """Mapping the tables of the largest workdir that was prepared."""
    largest = details["sizes"][-1]
    law = f"{largest['opening']:.2g} s and {largest['opening_mb']:.2g} MB at {largest['rows']:,} rows as at fewer"
    return Stage("opening knowledge base and alias table", law, lambda corpus: largest["opening"] / 3600,
                 lambda corpus: largest["opening_mb"] / 1e3, None, "`scale --thin`")  # fmt: skip


def evaluating(results: Mapping[str, Mapping[str, Any]]) -> Stage:
    """What an evaluation does beside encoding and searching, taken to be proportional to the rows."""
    name, by = f"evaluation of {EVALUATED:,} mentions, beside encoding and search", "`large_tables`"
    if not (found := results.get("large_tables")):
        return Stage(name, UNKNOWN, None, None, None, by)
    rows, seconds = found["details"]["rows"], found["ratio"]
    law = f"{seconds:.2g} s and {found['details']['anonymous memory, MB']:.3g} MB at {rows:,} rows"
    return Stage(name, law, lambda corpus: seconds / rows * corpus.records / 3600, None, None, by)


def starting(results: Mapping[str, Mapping[str, Any]]) -> Stage:
    """The first mel-link with a bundle that nobody has read yet; what it reads is mostly embeddings."""
    name, by = "starting to link, exactly, with nothing in memory", "`large_linking`"
    if not (found := results.get("large_linking")):
        return Stage(name, UNKNOWN, None, None, None, by)
    rows, wider, memory_mb = found["details"]["rows"], DIMENSION / 128, found["details"]["anonymous memory, MB"]
    law = f"{found['ratio']:.2g} s and {memory_mb:.3g} MB at {rows:,} rows of 128"
    return Stage(name, law, lambda corpus: wider * found["ratio"] / rows * corpus.records / 3600,
                 lambda corpus: memory_mb / 1e3,
                 lambda corpus: wider * found["details"]["GB of the bundle"] / rows * corpus.records, by)  # fmt: skip


def searching(results: Mapping[str, Mapping[str, Any]]) -> Iterator[Stage]:
    """Exactly, and with ScaNN."""
    name = f"exact search of {EVALUATED:,} mentions, on {CORES} cores"
    if exact := results.get("exact_search"):
        law, wider = exact["details"]["seconds a thousand queries and million vectors"], DIMENSION / 128
        each = law * wider * exact["machine"]["cores"] / CORES * EVALUATED / 1e3 / 3600
        said = f"{law:.2g} s a thousand queries and million vectors of 128, on {exact['machine']['cores']} cores"
        yield Stage(name, said, lambda corpus: each * corpus.records / 1e6, None, None, "`exact_search`")
    else:
        yield Stage(name, UNKNOWN, None, None, None, "`exact_search`")
    yield building(results)
    yield asking(results)


def asking(results: Mapping[str, Mapping[str, Any]]) -> Stage:
    """Opening ScaNN's index and searching with it once."""
    name, by = f"opening ScaNN and searching for {EVALUATED:,} mentions", "`large_search`"
    if not (found := results.get("large_search")):
        return Stage(name, UNKNOWN, None, None, None, by)
    details, rows, wider = found["details"], found["details"]["rows"], DIMENSION / 128
    opening, memory_mb = details["searched, seconds to open"], details["searched, MB"]
    law = f"{opening:.2g} s to open, {details['searched, seconds']:.2g} s to search {rows:,} rows of 128"
    return Stage(name, law, lambda corpus: wider * found["ratio"] / rows * corpus.records / 3600,
                 lambda corpus: wider * memory_mb / 1e3 / rows * corpus.records, None, by)  # fmt: skip


def building(results: Mapping[str, Mapping[str, Any]]) -> Stage:
    """ScaNN: seconds of shards, memory of one tree or, where that is more, of shards that take half of a machine's."""
    name = f"building ScaNN in shards, on {CORES} cores"
    if not (scann := results.get("scann_shards")):
        return Stage(name, UNKNOWN, None, None, None, "`scann_shards`")
    details, cores = scann["details"], scann["machine"]["cores"]
    rows, largest = details["rows"][-1], details["in shards"][-1]
    a_row, a_row_bytes = largest["build s"] / rows, details["bytes a row, one tree"]
    wider = DIMENSION / 128
    said = f"{1e6 * a_row:.2g} µs and {a_row_bytes:,} B a row of 128, on {cores} cores"
    return Stage(
        name, said, lambda corpus: a_row * wider * corpus.records * cores / CORES / 3600,
        lambda corpus: min(a_row_bytes * wider * corpus.records / 1e9, MEMORY_GB / 2), None, "`scann_shards`",
    )  # fmt: skip


def _row(stage: Stage) -> Sequence[str]:
    quantities = [_shown(each, corpus) for each in (stage.hours, stage.memory, stage.disk) for corpus in CORPORA]
    return [stage.name, stage.law, *quantities, stage.measured_by]


def _shown(quantity: Quantity, corpus: Corpus) -> str:
    if quantity is None:
        return "–"
    value = quantity(corpus)
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value >= 0.01 else "< 0.01"
