"""Plain texts to linked mentions: precision, recall and F1 against the hyperlinks of a tree, beside longest matches.

    python -m experiments.detection.end_to_end --workdir=W --mewsli=../shared/data/mdn/mewsli/dev

W was prepared with --detector and --held_out; entities are those that the alias table answers, or what --bundle does.
A prediction is strongly right where a hyperlink has the same span, weakly where one overlaps; of links the entity has
to be the same, too. Intervals are drawn over pages, translations together. --sample writes detected spans that are
no hyperlinks, with their contexts, to be judged by hand; --judged counts what somebody has judged.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.mdn.clusters import pages
from mel.artifacts import Workdir, open_artifact
from mel.corpora import mewsli
from mel.corpora.alias_table import LINKS, AliasTable
from mel.corpora.kb import KnowledgeBase
from mel.corpora.malformed import Malformed
from mel.corpora.strings import Strings
from mel.evaluation.intervals import interval, resampled_means
from mel.linking.detection import KIND, Detector, detect
from mel.linking.forms import Forms, FormTrie, folded_forms
from mel.types import Span

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


def read_pages(tree: pathlib.Path) -> list[Page]:
    """The pages of a tree that have links."""
    clusters = dict(pages(tree))
    found = []
    for language in mewsli.list_languages(tree):
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


def table(found: dict[str, list[list[tuple[Span, str]]]], corpus: Sequence[Page], reference: str) -> list[str]:
    """Lines of Markdown; differences are those to `reference`."""
    clusters = [page.cluster for page in corpus]
    lines = [
        "| system | spans | P | R | F1 | F1 minus longest match | predictions |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for entities in (False, True):
        for strong in (True, False):
            measured = {
                name: [tally(each, page.links, strong, entities) for each, page in zip(of, corpus, strict=True)]
                for name, of in found.items()
            }
            kind = f"{'strong' if strong else 'weak'}{', entity' if entities else ''}"
            for name, tallies in measured.items():
                precision, recall, f1 = scores(tallies)
                (low, high), (less, more) = f1_interval(tallies, measured[reference], clusters)
                difference = "–" if name == reference else f"{f1 - scores(measured[reference])[2]:+.3f} [{less:+.3f}, {more:+.3f}]"
                predictions = sum(each.predictions for each in tallies)
                lines.append(
                    f"| {name} | {kind} | {precision:.3f} | {recall:.3f} | {f1:.3f} [{low:.3f}, {high:.3f}] | "
                    f"{difference} | {predictions:,} |"
                )
    return lines


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


def main(argv: Sequence[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--workdir", required=True, help="prepared with --detector")
    flags.add_argument("--mewsli", type=pathlib.Path, required=True, help="the tree")
    flags.add_argument("--precision", type=float, help="of detected forms on held-out pages; the best F1 if not given")
    flags.add_argument("--sample", type=pathlib.Path, help="where 200 spans without hyperlinks are written")
    chosen = flags.parse_args(argv)
    work = Workdir(chosen.workdir)
    corpus = read_pages(chosen.mewsli)
    kb_artifact = open_artifact(work.kb, "kb")
    kb = KnowledgeBase.read(kb_artifact.path, kb_artifact.facts["languages"])
    aliases = AliasTable.read(work.alias_table)
    aliases.add_titles(kb)
    detector = Detector.read(open_artifact(work.detector, KIND).path)
    threshold = None if chosen.precision is None else detector.threshold_for(chosen.precision)
    link = by_alias_table(aliases, kb)
    linked_forms = set(Strings.read(work.alias_table, LINKS))
    linked_only = Forms.of(FormTrie.of(folded_forms(linked_forms)), np.zeros(0, bool), [])
    systems: dict[str, Callable[[Page], list[Span]]] = {
        "longest match, as linked": lambda page: longest_matches(linked_only, linked_forms, page),
        "longest match, any case": lambda page: longest_matches(linked_only, None, page),
        "longest match, all names": lambda page: longest_matches(detector.forms, None, page),
        "detector": lambda page: [span for span, _ in detector.spans(page.text, page.language, threshold)],
        "gold spans": lambda page: [span for span, _ in page.links],
    }
    found = {name: [link(page, spans(page)) for page in corpus] for name, spans in systems.items()}
    print(f"{len(corpus):,} texts of {len({page.cluster for page in corpus}):,} pages, "
          f"{sum(len(page.links) for page in corpus):,} hyperlinks")  # fmt: skip
    print("\n".join(table(found, corpus, "longest match, as linked")))
    if chosen.sample:
        records = sample(found["detector"], corpus, 200, 0)
        chosen.sample.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records))


if __name__ == "__main__":
    main()
