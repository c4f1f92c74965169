"""Plain texts to linked mentions: precision, recall and F1 against the hyperlinks of a tree, beside longest matches.

    python -m experiments.detection.end_to_end --workdir=W --mewsli=../shared/data/mdn/mewsli/dev

W was prepared with --detector and --held_out. Entities are those that the alias table answers, or with --bundle what
`mel.Linker` does, which also chooses among detected spans that overlap. A prediction is strongly right where a
hyperlink has the same span, weakly where one overlaps; of links the entity has to be the same, too. Intervals are drawn
over pages, translations together. --sample writes detected spans that overlap no hyperlink, with their contexts, to be
judged by hand; --judged counts what somebody has judged.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.mdn.clusters import pages
from mel.artifacts import Workdir, open_artifact
from mel.corpora import mewsli
from mel.corpora.alias_columns import LINKS
from mel.corpora.alias_table import AliasTable
from mel.corpora.kb import KnowledgeBase
from mel.corpora.malformed import Malformed
from mel.corpora.strings import Strings
from mel.evaluation.intervals import interval, resampled_means
from mel.linking.detection import KIND, Detector, detect
from mel.linking.forms import Forms, FormTrie, folded_forms
from mel.linking.linker import Linker
from mel.types import Span

LONGEST = "longest match"  # of forms as pages link them, in that very case
CONTEXT = 80  # characters beside a sampled span
Linked = list[tuple[Span, str]]


class Page(NamedTuple):
    """A text, its hyperlinks, and what it is drawn together with."""

    language: str
    text: str
    title: str
    links: Linked
    cluster: str


class Tally(NamedTuple):
    """What one system gets right on one page: [predictions, links] x (right, all) for each measure."""

    right_predictions: int
    predictions: int
    right_links: int
    links: int


def read_pages(tree: pathlib.Path, languages: Sequence[str]) -> list[Page]:
    """The pages of a tree that have links, in some languages; in all if there are none."""
    clusters = dict(pages(tree))
    found = []
    for language in languages or mewsli.list_languages(tree):
        for document in mewsli.read_documents(tree, language, Malformed(0)):
            links = [(mention.span, mention.gold) for mention in document.mentions]
            found.append(Page(language, document.text, document.title, links, clusters[document.docid]))
    return found


def longest_matches(forms: Forms, as_written: set[str] | None, page: Page) -> list[Span]:
    """From the left, the longest form at each place; with `as_written`, only those in just this case."""
    spans = detect(forms, page.text).spans
    if as_written is not None:
        spans = [span for span in spans if span.of(page.text) in as_written]
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept


def by_alias_table(table: AliasTable, kb: KnowledgeBase) -> Callable[[Page, Sequence[Span]], Linked]:
    """Links spans to what their surface forms mean most often, in the language of the page first."""
    known: dict[tuple[str, str], str] = {}

    def link(page: Page, spans: Sequence[Span]) -> Linked:
        for span in spans:
            key = span.of(page.text), page.language
            if key not in known:
                prior, _ = table.prior(*key)
                best = min(prior, key=lambda entity: (-prior[entity], entity), default=0)
                known[key] = kb.ids[best]
        return [(span, known[span.of(page.text), page.language]) for span in spans]

    return link


def by_bundle(linker: Linker, precision: float | None) -> Callable[[Page, Sequence[Span] | None], Linked]:
    """Links spans, or with None those that the bundle detects; a span that means nothing known is no prediction."""

    def link(page: Page, spans: Sequence[Span] | None) -> Linked:
        links = linker.link(page.text, spans, page.language, page.title, top_k=1, detection_precision=precision)
        return [(Span(found.start, found.end), found.id) for found in links if not found.is_nil]

    return link


def tally(predictions: Linked, links: Linked, strong: bool, entities: bool) -> Tally:
    """Compares spans, or links, of one page; `links` do not overlap, nor do `predictions`."""

    def right(one: tuple[Span, str], others: Sequence[tuple[Span, str]]) -> bool:
        return any(
            (one[0] == span if strong else one[0].start < span.end and span.start < one[0].end)
            and (not entities or one[1] == entity)
            for span, entity in others
        )

    near, far = _neighbours(predictions, links), _neighbours(links, predictions)
    return Tally(
        sum(right(one, others) for one, others in zip(predictions, near, strict=True)), len(predictions),
        sum(right(one, others) for one, others in zip(links, far, strict=True)), len(links),
    )  # fmt: skip


def _neighbours(ones: Linked, others: Linked) -> list[Linked]:
    """Of each one, the others that overlap."""
    starts = np.array([span.start for span, _ in others], np.int64)
    ends = np.array([span.end for span, _ in others], np.int64)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order]) if len(ends) else ends
    found = []
    for span, _ in ones:
        first, last = np.searchsorted(ends, span.start, "right"), np.searchsorted(starts, span.end, "left")
        found.append([others[place] for place in order[first:last]])
    return found


def scores(tallies: Sequence[Tally]) -> tuple[float, float, float]:
    """Precision, recall and F1 over all pages; F1 is the share of predictions and links that are right."""
    right_predictions, predictions, right_links, links = np.sum(tallies, axis=0)
    return (
        right_predictions / max(predictions, 1), right_links / max(links, 1),
        (right_predictions + right_links) / max(predictions + links, 1),
    )  # fmt: skip


def f1_interval(
    tallies: Sequence[Tally], others: Sequence[Tally], clusters: Sequence[str]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The intervals of F1 and of its difference to another system's, by bootstrap over clusters of pages."""
    values, documents, systems = [], [], []
    for name, of_system in (("this", tallies), ("other", others)):
        for each, cluster in zip(of_system, clusters, strict=True):
            right = each.right_predictions + each.right_links
            wrong = each.predictions + each.links - right
            values += [1] * right + [0] * wrong
            documents += [cluster] * (right + wrong)
            systems += [name] * (right + wrong)
    means = resampled_means(np.array(values, np.float64), documents, {"system": systems}, np.random.default_rng(0))
    of = means["system"]
    return interval(of["this"]), interval(of["this"] - of["other"])


def table(found: dict[str, list[Linked]], corpus: Sequence[Page]) -> list[str]:
    """Lines of Markdown, differences being those to the longest match; gold spans stand in rows of links only."""
    clusters = [page.cluster for page in corpus]
    lines = [
        "| right is | system | predictions | P | R | F1 | F1 minus longest match |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for entities, strong in itertools.product((False, True), (True, False)):
        measured = {
            name: [tally(each, page.links, strong, entities) for each, page in zip(of, corpus, strict=True)]
            for name, of in found.items()
            if entities or "gold" not in name
        }
        for name, tallies in measured.items():
            precision, recall, f1 = scores(tallies)
            own, difference = f1_interval(tallies, measured[LONGEST], clusters)
            minus = f"{f1 - scores(measured[LONGEST])[2]:+.3f} {_interval(difference, '+.3f')}"
            lines.append(
                f"| {'strong' if strong else 'weak'} {'link' if entities else 'span'} | {name} | "
                f"{sum(each.predictions for each in tallies):,} | {precision:.3f} | {recall:.3f} | "
                f"{f1:.3f} {_interval(own, '.3f')} | {'–' if name == LONGEST else minus} |"
            )
    return lines


def _interval(bounds: tuple[float, float], digits: str) -> str:
    return f"[{bounds[0]:{digits}}, {bounds[1]:{digits}}]"


def sample(predictions: list[Linked], corpus: Sequence[Page], size: int, seed: int) -> list[dict]:
    """Predictions that overlap no link, drawn anyhow, with their contexts."""
    unlinked = [
        (page, span, entity)
        for of, page in zip(predictions, corpus, strict=True)
        for (span, entity), near in zip(of, _neighbours(of, page.links), strict=True)
        if not near
    ]
    chosen = np.random.default_rng(seed).permutation(len(unlinked))[:size]
    return [
        {
            "language": page.language, "page": page.title, "left": page.text[max(0, span.start - CONTEXT) : span.start],
            "surface_form": span.of(page.text), "right": page.text[span.end : span.end + CONTEXT], "entity": entity,
        }
        for page, span, entity in (unlinked[place] for place in sorted(chosen))
    ]  # fmt: skip


def links_of(chosen: argparse.Namespace, corpus: Sequence[Page]) -> dict[str, list[Linked]]:
    """What each system predicts of each page."""
    work = Workdir(chosen.workdir)
    artifact = open_artifact(work.kb, "kb")
    kb = KnowledgeBase.read(artifact.path, artifact.facts["languages"])
    aliases = AliasTable.read(work.alias_table)
    aliases.add_titles(kb)
    detector = Detector.read(open_artifact(work.detector, KIND).path)
    threshold = None if chosen.precision is None else detector.threshold_for(chosen.precision)
    linked_forms = set(Strings.read(work.alias_table, LINKS))
    linked_only = Forms.of(FormTrie.of(folded_forms(linked_forms)), np.zeros(0, bool), [])
    link = by_alias_table(aliases, kb)
    systems: dict[str, Callable[[Page], Linked]] = {
        LONGEST: lambda page: link(page, longest_matches(linked_only, linked_forms, page)),
        "longest match, any case": lambda page: link(page, longest_matches(linked_only, None, page)),
        "longest match, all names": lambda page: link(page, longest_matches(detector.forms, None, page)),
        "detector": lambda page: link(page, [s for s, _ in detector.spans(page.text, page.language, threshold)]),
        "gold spans": lambda page: link(page, [span for span, _ in page.links]),
    }
    if chosen.bundle:
        link_by_bundle = by_bundle(Linker.load(chosen.bundle), chosen.precision)
        systems["bundle, detector"] = lambda page: link_by_bundle(page, None)
        systems["bundle, gold spans"] = lambda page: link_by_bundle(page, [span for span, _ in page.links])
    return {name: [system(page) for page in corpus] for name, system in systems.items()}


def main(argv: Sequence[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--workdir", required=True, help="prepared with --detector")
    flags.add_argument("--mewsli", type=pathlib.Path, required=True, help="the tree")
    flags.add_argument("--languages", nargs="*", default=(), help="of the tree; all if not given")
    flags.add_argument("--bundle", help="also link with this bundle of the same working directory")
    flags.add_argument("--precision", type=float, help="of detected forms on held-out pages; the best F1 if not given")
    flags.add_argument("--sample", type=pathlib.Path, help="where 200 spans without hyperlinks are written")
    flags.add_argument("--judged", type=pathlib.Path, help="such a file with judgements, to be counted")
    chosen = flags.parse_args(argv)
    corpus = read_pages(chosen.mewsli, chosen.languages)
    clusters = {page.cluster for page in corpus}
    links = sum(len(page.links) for page in corpus)
    print(f"{len(corpus):,} texts of {len(clusters):,} pages, {links:,} hyperlinks\n")
    found = links_of(chosen, corpus)
    print("\n".join(table(found, corpus)))
    if chosen.sample:
        records = sample(found["detector"], corpus, 200, 0)
        chosen.sample.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records))
    if chosen.judged:
        judged = Counter(json.loads(line)["judgement"] for line in chosen.judged.read_text().splitlines())
        print("\nwithout a hyperlink: " + ", ".join(f"{count} {name}" for name, count in judged.most_common()))


if __name__ == "__main__":
    main()
