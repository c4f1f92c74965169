"""Learns a detector from pages: which surface forms they link, of those that they hold.

Pages of training are counted; on those that were held out it is measured how often a form that is found is linked, and
from which probability on it is worth detecting. A page counts once for each form, however often it repeats it, for
pages link the first mention of an entity and seldom the others. A form inside a longer link says nothing.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from mel.artifacts import Artifact, Workdir, discard, exists, open_artifact, publish
from mel.corpora import damuel, own
from mel.corpora.alias_columns import LINKS, NAMES
from mel.corpora.archives import Part
from mel.corpora.kb import KnowledgeBase
from mel.corpora.sources import Source, read_sources
from mel.corpora.strings import Strings
from mel.corpora.workers import map_in_order
from mel.linking.detection import KIND, PRIOR, Detector, detect, without_overlaps
from mel.linking.forms import TRIE, Forms, FormTrie, PageCounts, folded_forms
from mel.progress import Progress
from mel.shards.archives import Archives
from mel.shards.blocks import grouped, is_held_out
from mel.text.folding import fold
from mel.types import MelError, Mention, Span

HELD_OUT_PAGES = 10_000  # are enough to measure on
PAGES_AT_ONCE = 4096
THRESHOLDS = (0.01, 0.02, *(round(0.05 * step, 2) for step in range(1, 20)), 0.98, 0.99)


class LinkedPage(NamedTuple):
    """A text and what it links."""

    text: str
    links: frozenset[Span]


class Occurrences(NamedTuple):
    """Forms on held-out pages, [n] each.

    Attributes:
      page: int64, a number of the page each is on.
      start, end, form: int64, as of `Detected`.
      upper, linked: bool, whether it has an upper-case letter, and whether the page links that very span.
    """

    page: np.ndarray
    start: np.ndarray
    end: np.ndarray
    form: np.ndarray
    upper: np.ndarray
    linked: np.ndarray

    @classmethod
    def of(cls, rows: list[tuple[int, int, int, int, bool, bool]]) -> Occurrences:
        table = np.asarray(rows, np.int64).reshape(-1, 6)
        return cls(*table[:, :4].T, *table[:, 4:].T.astype(bool))


class Counted(NamedTuple):
    """What some pages of one language say.

    Attributes:
      counts: of the pages of training.
      occurrences: on pages that were held out.
      held_out: how many of these there are.
      links: how many different forms they link, each once a page, whether they can be found or not.
    """

    counts: PageCounts
    occurrences: Occurrences
    held_out: int = 0
    links: int = 0


def ensure_detector(work: Workdir, archives: Archives, redo: bool, config: Any = None) -> Artifact:
    """The detector of a prepared working directory, made if it is not there.

    Args:
      work: where; its knowledge base and alias table say what may be found.
      archives: the pages that they were made from.
      redo: whether one that was made from another knowledge base is made again; otherwise it is refused.
      config: the config that made it.

    Raises:
      MelError: there is one of another knowledge base, or the archives are others than ours was made from.
    """
    kb, aliases = open_artifact(work.kb, "kb"), open_artifact(work.alias_table, "alias table")
    if exists(work.detector):
        there = open_artifact(work.detector, KIND, reads=())
        if there.inputs == {"kb": kb.digest, "alias table": aliases.digest}:
            return there
        if not redo:
            raise MelError(f"{work.detector} was not made from the kb that is there: give --redo to make it again.")
        logging.warning("detector was not made from the kb that is there: it will be made again.")
        discard(work.detector)
    with publish(work.detector, KIND, config) as draft:
        draft.reads("kb", kb)
        draft.reads("alias table", aliases)
        trie = FormTrie.of(folded_forms(_strings(kb, aliases)))
        trie.save(draft / TRIE)
        ours = _count_own(archives, draft / TRIE)
        counted = itertools.chain(_count_archives(archives, read_sources(kb.path), draft / TRIE), ours)
        detector = learn(trie, _named(trie, kb, aliases), counted)
        detector.write(draft.path)
        draft.facts |= {"forms": len(trie), "languages": list(detector.forms.languages)}
        logging.info("The detector knows %d surface forms; it detects from a probability of %.3f on.",
                     len(trie), detector.threshold)  # fmt: skip
    return open_artifact(work.detector, KIND)


def count_pages(pages: Iterable[tuple[LinkedPage, bool]], forms: Forms, held_out_pages: int) -> Counted:
    """What pages of one language say.

    Args:
      pages: each with whether it is held out.
      forms: to be looked for.
      held_out_pages: most pages to keep the occurrences of.
    """
    keys: list[int] = []
    rows: list[tuple[int, int, int, int, bool, bool]] = []
    held_out = links = 0
    for page, is_kept in pages:
        found = detect(forms, page.text)
        each = list(zip(found.spans, found.forms, found.upper, strict=True))
        if is_kept and held_out < held_out_pages:
            rows += ((held_out, s.start, s.end, form, upper, s in page.links) for s, form, upper in each)
            held_out += 1
            links += len({fold(span.of(page.text)) for span in page.links})
        elif not is_kept:
            inside = _inside_of_links(page)
            seen = {(form, upper): 0 for span, form, upper in each if not inside[span.start : span.end].any()}
            seen |= {(form, upper): 1 for span, form, upper in each if span in page.links}
            keys += (form * 4 + linked * 2 + upper for (form, upper), linked in seen.items())
    return Counted(_page_counts(np.asarray(keys, np.int64)), Occurrences.of(rows), held_out, links)


def learn(trie: FormTrie, named_F: np.ndarray, counted: Iterable[tuple[str, Counted]]) -> Detector:
    """The detector that counts make.

    Args:
      trie: the forms.
      named_F: whether each is a name.
      counted: with its language.
    """
    by_language: dict[str, list[Counted]] = {}
    for language, each in counted:
        by_language.setdefault(language, []).append(each)
    counts = [(language, _merged([each.counts for each in parts])) for language, parts in by_language.items()]
    held_out = [(language, each) for language, parts in by_language.items() for each in parts if each.held_out]
    forms = Forms.of(trie, named_F, counts)
    if not held_out:
        return Detector(forms, (PRIOR, PRIOR), 0.0, None)
    prior = _prior(forms, held_out)
    measured = _measured(forms, prior, held_out)
    f1 = [p * r / (p + r) if p else 0.0 for p, r in zip(measured["precision"], measured["recall"], strict=True)]
    best = np.flatnonzero(np.asarray(f1) == max(f1))
    return Detector(forms, prior, THRESHOLDS[best[len(best) // 2]], measured)


def _strings(kb: Artifact, aliases: Artifact) -> Iterator[str]:
    yield from KnowledgeBase.read(kb.path, kb.facts["languages"]).titles
    for name in (LINKS, NAMES):
        yield from Strings.read(aliases.path, name)


def _named(trie: FormTrie, kb: Artifact, aliases: Artifact) -> np.ndarray:
    named_F = np.zeros(len(trie), bool)
    titles = KnowledgeBase.read(kb.path, kb.facts["languages"]).titles
    for form in folded_forms(itertools.chain(titles, Strings.read(aliases.path, NAMES))):
        named_F[trie.number(form)] = True
    return named_F


def _count_archives(
    archives: Archives, made_from: Mapping[str, Source], trie: pathlib.Path
) -> Iterator[tuple[str, Counted]]:
    held_out_pages = max(1, HELD_OUT_PAGES // max(1, len(archives.parts)))
    read = functools.partial(_count_part, archives=archives, trie=trie, held_out_pages=held_out_pages)
    progress = Progress("reading pages for the detector", len(archives.parts), "parts")
    results = map_in_order(read, archives.parts, archives.config.workers)
    for (language, part), (counted, sha256) in zip(archives.parts, results, strict=True):
        if made_from[f"{language}/{part.name}"].sha256 != sha256:
            raise MelError(
                f"{part.place} has another content than when kb was made: delete kb and run again with --redo."
            )
        progress.add(note=language)
        yield language, counted
    progress.close()


def _count_own(archives: Archives, trie: pathlib.Path) -> Iterator[tuple[str, Counted]]:
    """Some pages of one language at a time; the mentions of a document stand together."""
    mentions = own.read_mentions(archives.own.mentions, archives.config.malformed(log=False), archives.redirects)
    left = HELD_OUT_PAGES
    for block in grouped(_own_pages(mentions, archives.config.held_out), PAGES_AT_ONCE):
        for language in dict.fromkeys(language for language, _, _ in block):
            pages = ((page, is_kept) for of, page, is_kept in block if of == language)
            counted = count_pages(pages, _forms_alone(trie), left)
            left -= counted.held_out
            yield language, counted


def _own_pages(mentions: Iterable[Mention], share: float) -> Iterator[tuple[str, LinkedPage, bool]]:
    """The language of each page, the page, and whether it is held out."""
    by_text = itertools.groupby(mentions, key=lambda mention: (mention.language, mention.document, mention.context))
    for (language, document, text), of_text in by_text:
        page = LinkedPage(text, frozenset(mention.span for mention in of_text))
        yield language, page, is_held_out(document, share)


def _count_part(
    item: tuple[str, Part], archives: Archives, trie: pathlib.Path, held_out_pages: int
) -> tuple[Counted, str]:
    (language, part), digest, share = item, hashlib.sha256(), archives.config.held_out
    records = damuel.read_pages(part, language, archives.config.malformed(log=False), archives.redirects, digest)
    pages = (
        (LinkedPage(page.text, frozenset(mention.span for mention in page.mentions)), is_held_out(page.qid, share))
        for page in records
        if page.text
    )
    counted = count_pages(pages, _forms_alone(trie), held_out_pages)
    return counted, digest.hexdigest()


@functools.cache
def _forms_alone(path: pathlib.Path) -> Forms:
    """Opened once in each worker process."""
    trie = FormTrie.open(path)
    return Forms.of(trie, np.zeros(0, bool), [])


def _inside_of_links(page: LinkedPage) -> np.ndarray:
    inside = np.zeros(len(page.text), bool)
    for span in page.links:
        inside[span.start : span.end] = True
    return inside


def _page_counts(keys: np.ndarray) -> PageCounts:
    """Counts keys of forms x (found, linked) x (without, with an upper-case letter)."""
    keys, times = np.unique(keys, return_counts=True)
    forms, place = np.unique(keys // 4, return_inverse=True)
    pages = np.zeros((len(forms), 2, 2), np.uint32)
    np.add.at(pages, (place, 1, keys % 2), times.astype(np.uint32))  # pyright: ignore[reportArgumentType]
    linked = keys % 4 >= 2
    linked_times = times[linked].astype(np.uint32)
    np.add.at(pages, (place[linked], 0, keys[linked] % 2), linked_times)  # pyright: ignore[reportArgumentType]
    return PageCounts(forms, pages)


def _merged(parts: list[PageCounts]) -> PageCounts:
    forms, place = np.unique(np.concatenate([each.forms for each in parts]), return_inverse=True)
    pages = np.zeros((len(forms), 2, 2), np.uint32)
    np.add.at(pages, place, np.concatenate([each.pages for each in parts]))
    return PageCounts(forms, pages)


def _prior(forms: Forms, held_out: list[tuple[str, Counted]]) -> tuple[float, float]:
    """How often a form that no page of training holds is linked where it is found: only linked ones, and names."""
    found, linked = np.zeros(2), np.zeros(2)
    for _, each in held_out:
        pairs, linked_n = _once_a_page(each.occurrences)
        unseen = forms.counts(pairs.form)[:, 1].sum(axis=1) == 0
        kind = forms.named_F[pairs.form[unseen]].astype(np.int64)
        found += np.bincount(kind, minlength=2)
        linked += np.bincount(kind, linked_n[unseen], minlength=2)
    only_linked, named = ((linked + PRIOR) / (found + 1)).tolist()
    return only_linked, named


def _measured(forms: Forms, prior: tuple[float, float], held_out: list[tuple[str, Counted]]) -> dict[str, Any]:
    """What the held-out pages say of each threshold: a form counts once a page, right if the page links it."""
    right_T, detected_T = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    for language, each in held_out:
        of = each.occurrences
        probability_n = forms.link_probability(of.form, of.upper, language, prior)
        for rows in np.split(np.arange(len(of.page)), np.flatnonzero(np.diff(of.page)) + 1):
            spans = [Span(*ends) for ends in zip(of.start[rows].tolist(), of.end[rows].tolist(), strict=True)]
            for number, threshold in enumerate(THRESHOLDS):
                probable = np.flatnonzero(probability_n[rows] >= threshold)
                kept = without_overlaps([spans[place] for place in probable], probability_n[rows[probable]].tolist())
                detected = rows[probable[kept]]
                detected_T[number] += len(np.unique(of.form[detected]))
                right_T[number] += len(np.unique(of.form[detected[of.linked[detected]]]))
    links = sum(each.links for _, each in held_out)
    return {
        "threshold": list(THRESHOLDS),
        "precision": (right_T / np.maximum(detected_T, 1)).tolist(),
        "recall": (right_T / max(links, 1)).tolist(),
        "pages": sum(each.held_out for _, each in held_out),
        "links": links,
    }


def _once_a_page(of: Occurrences) -> tuple[Occurrences, np.ndarray]:
    """The first occurrence of each form of each page, and whether the page links any of them."""
    keys = np.stack([of.page, of.form])
    _, first, place = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    linked = np.bincount(place.ravel(), of.linked, len(first)) > 0
    return Occurrences(*(column[first] for column in of)), linked
