"""The linker: texts to links, with the same rows, embeddings, search and scores as in an evaluation."""

from __future__ import annotations

import itertools
import numbers
import operator
import os
import threading
import typing
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mel.encoder.backend import Precision
from mel.evaluation.calibration import Calibration, threshold_of
from mel.evaluation.fusion import fuse
from mel.evaluation.ranking import DEPTH, Ranking
from mel.linking.bundle import Bundle, open_bundle
from mel.linking.detection import surest
from mel.linking.naming import named_candidates
from mel.retrieval.exact import ExactIndex
from mel.shards.rows import TokenRows
from mel.text.marking import mark_entity, mark_mention
from mel.types import NIL_ID, Entity, Link, MarkedText, MelError, Mention, Span

MENTIONS_AT_ONCE = 4096
NO_DETECTOR = (
    "no detector, which would find the spans to link: give spans, or make the bundle anew after mel-prepare-data "
    "--detector"
)


class Text(NamedTuple):
    """A text to be linked.

    Attributes:
      text: the text.
      spans: half-open ranges of code points; None for those that the bundle's detector finds.
      language: of the text, as the KB calls it; None if it is not known.
      title: of the page that it is the text of, "" if it has none.
    """

    text: str
    spans: Sequence[Span | tuple[int, int]] | None = None
    language: str | None = None
    title: str = ""


class Nearest(NamedTuple):
    """What encoder and index say of Q mentions: their embeddings, and their best candidates."""

    queries_QD: np.ndarray
    ranking: Ranking


class Linker:
    """Links spans of texts to the entities of a bundle.

    It may be used by several threads at once: tokenising and looking up run side by side, the encoder and the index one
    call after the other. The encoder is compiled once for each width of rows.

    Example:
      linker = Linker.load("bundle")
      (paris,) = linker.link("Paris liegt an der Seine.", spans=[(0, 5)], language="de")
      paris.id, paris.title, paris.score  # ("Q90", "Paris", 0.83)
    """

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        self._calibration = None if bundle.calibration is None else Calibration.from_json(bundle.calibration)
        self._on_device = threading.Lock()

    @classmethod
    def load(cls, path: str | os.PathLike, precision: Precision = "auto") -> Linker:
        """Opens a bundle that mel-export published.

        Args:
          path: its folder.
          precision: of the encoder; "auto" is bfloat16 on accelerators and float32 on CPUs.

        Raises:
          MelError: there is none, a part of it is missing or damaged, or there is no such precision.
        """
        if precision not in (choices := typing.get_args(Precision)):
            raise MelError(f"There is no precision {precision!r}: choose one of {', '.join(choices)}.")
        return cls(open_bundle(path, precision))

    def link(
        self, text: str, spans: Sequence[Span | tuple[int, int]] | None = None, language: str | None = None,
        title: str = "", top_k: int = 5, nil_precision: float | None = None, min_probability: float | None = None,
        detection_precision: float | None = None,
    ) -> list[Link]:  # fmt: skip
        """Links the spans of one text.

        Args:
          text, spans, language, title: see `Text`.
          top_k: most candidates for each span, the answer included; 1 to 100.
          nil_precision: withholds the least probable answers so that so many of the others are right, on mentions
            like those that the bundle was calibrated on.
          min_probability: withholds answers that are less probable.
          detection_precision: detects so surely that so many of the detected forms are linked on pages like those
            that were held out; None for the best F1 there.

        Returns:
          a link for each span, in their order. Detected ones do not overlap: of two that would, the one stays that
          is more probably a mention and rightly linked.

        Raises:
          MelError: the text is none, a span leaves it, a number is out of its range, or the bundle lacks what is asked
            of it: a calibration, or a detector where there are no spans.
        """
        asked = top_k, nil_precision, min_probability, detection_precision
        return self.link_batch([Text(text, spans, language, title)], *asked)[0]

    def link_batch(
        self, texts: Iterable[str | Text], top_k: int = 5, nil_precision: float | None = None,
        min_probability: float | None = None, detection_precision: float | None = None,
    ) -> list[list[Link]]:  # fmt: skip
        """Links many texts, faster than one by one; see `link`.

        Returns:
          the links of each text.
        """
        check_top_k(top_k)
        if isinstance(texts, (str, Text)):
            raise MelError("link_batch takes several texts: give a list of them, or call link.")
        threshold = self.threshold(nil_precision, min_probability)
        found = [self._detected(text, detection_precision) for text in texts]
        mentions_of = [self.mentions(text) for text, _ in found]
        mentions = [mention for of_text in mentions_of for mention in of_text]
        blocks = (mentions[start : start + MENTIONS_AT_ONCE] for start in range(0, len(mentions), MENTIONS_AT_ONCE))
        answered = (self.links(block, self.rank(block, top_k=top_k), top_k, threshold) for block in blocks)
        links = itertools.chain.from_iterable(answered)
        links_of = [list(itertools.islice(links, len(of_text))) for of_text in mentions_of]
        return [surest(*both) for both in zip(links_of, (surely for _, surely in found), strict=True)]

    def mentions(self, text: Text) -> list[Mention]:
        """The mentions of a text whose spans are given; raises MelError where one is none, or leaves the text."""
        language, spans = text.language or "", () if text.spans is None else text.spans
        return [Mention("", language, text.text, _span(span), NIL_ID, title=text.title) for span in spans]

    def rows(self, mentions: Sequence[Mention]) -> TokenRows:
        """What the encoder reads of mentions; those of one text stand one after the other, so that it is read once."""
        return self._rows([self._marked(mention) for mention in mentions], self.bundle.max_tokens)

    def rank(self, mentions: Sequence[Mention], top_k: int = DEPTH) -> Ranking:
        """The best candidates of each mention by all that the bundle knows; their golds are not looked at.

        Args:
          mentions: those of one text one after the other.
          top_k: how many are wanted; others are ranked where the answer depends on them.
        """
        return self.fused(mentions, self.nearest(self.rows(mentions), top_k))

    def nearest(self, rows: TokenRows, top_k: int = DEPTH) -> Nearest:
        """What the encoder and the index say of mentions, the first half of `rank`: one caller at a time is heard."""
        with self._on_device:
            queries_QD = self.bundle.encoder.embed(rows)
            return Nearest(queries_QD, self.bundle.evidence.ranking(queries_QD, depth=self._depth(top_k)))

    def fused(self, mentions: Sequence[Mention], nearest: Nearest) -> Ranking:
        """The other half, what was known before: it may run beside the first half of other mentions."""
        evidence, weight = self.bundle.evidence, self.bundle.fusion_weight
        if evidence.table is None or not weight:
            return nearest.ranking
        lookups = [(mention.surface_form, mention.language, mention.lemma) for mention in mentions]
        return fuse(evidence.pool(nearest.queries_QD, nearest.ranking, lookups), np.full(len(mentions), weight))

    def links(self, mentions: Sequence[Mention], ranking: Ranking, top_k: int, threshold: float) -> list[Link]:
        """The links of mentions, given their ranking.

        Args:
          mentions: ranked.
          ranking: theirs.
          top_k: most candidates for each.
          threshold: answers that are less probable are withheld.
        """
        probabilities: Sequence[float | None] = [None] * len(mentions)
        if self._calibration is not None:
            probabilities = self._calibration.probability(ranking.scores_QK).tolist()
        named = named_candidates(self.bundle, mentions, ranking, top_k)
        return [
            Link.of(
                mention.span, mention.surface_form, candidates, probability,
                withheld=probability is not None and probability < threshold,
            )
            for mention, candidates, probability in zip(mentions, named, probabilities, strict=True)
        ]  # fmt: skip

    def embed_mentions(self, texts: Iterable[Text]) -> np.ndarray:
        """The embeddings of the spans of texts, in their order, float32 [N, D], of unit length."""
        marked = [self._marked(mention) for text in texts for mention in self.mentions(self._detected(text, None)[0])]
        return self._embed(marked, self.bundle.max_tokens)

    def embed_entities(self, entities: Iterable[Entity]) -> np.ndarray:
        """The embeddings of what a language says of entities, float32 [N, D], of unit length."""
        return self._embed([mark_entity(entity) for entity in entities], self.bundle.entity_tokens)

    def render(self, text: str, span: Span | tuple[int, int], title: str = "") -> str:
        """The text that other programs must be given to embed a mention as this one does.

        It is cut to the window and marked, with the title of the page and the prefix of mentions where the encoder was
        trained with them. transformers, sentence-transformers and the like put their special tokens around it.

        Raises:
          MelError: the span leaves the text, or no text gives others the same tokens.
        """
        (mention,) = self.mentions(Text(text, [span], title=title))
        return self.bundle.tokenizer.render(self._marked(mention), self.bundle.max_tokens)

    def render_entity(self, title: str, description: str) -> str:
        """The same for an entity.

        Raises:
          MelError: the title is empty, or no text gives others the same tokens.
        """
        return self.bundle.tokenizer.render(mark_entity(Entity("", "", title, description)), self.bundle.entity_tokens)

    def threshold(self, nil_precision: float | None, min_probability: float | None) -> float:
        """The probability that an answer must reach, or be withheld; see `link`.

        Raises:
          MelError: a share is none, no threshold reaches it, or the bundle was not calibrated.
        """
        asked = {"nil_precision": nil_precision or 0.0, "min_probability": min_probability or 0.0}
        for name, value in asked.items():
            if not isinstance(value, numbers.Real) or not 0 <= value <= 1:
                raise MelError(f"{name} {value} is no share: choose one from 0 to 1.")
            if value and self.bundle.calibration is None:
                raise MelError(
                    f"{name} {value} needs a calibrated bundle, and this one is none: export one with "
                    "mel-export --calibrate_on=SPLIT."
                )
        if self.bundle.calibration is None or not nil_precision:
            return asked["min_probability"]
        try:
            return max(asked["min_probability"], threshold_of(self.bundle.calibration, nil_precision))
        except MelError as error:
            raise MelError(f"{error} Ask for less nil_precision, or for a min_probability.") from None

    def detection_threshold(self, precision: float | None) -> float | None:
        """The probability from which on spans are detected, None for the detector's own; see `link`.

        Raises:
          MelError: the bundle has no detector, or the precision is out of its reach.
        """
        if self.bundle.detector is None:
            raise MelError(f"This bundle has {NO_DETECTOR}.")
        return self.bundle.detector.threshold_for(precision) if precision else None

    def _depth(self, top_k: int) -> int:
        """How many candidates are searched: what else speaks for one, or says how sure it is, looks at all of them."""
        evidence = self.bundle.evidence
        is_fused = evidence.table is not None and self.bundle.fusion_weight
        is_alone = self._calibration is None and evidence.contexts is None and not is_fused
        return top_k if is_alone and isinstance(evidence.index, ExactIndex) else DEPTH

    def _detected(self, text: str | Text, precision: float | None) -> tuple[Text, list[float] | None]:
        """The text with its spans, and if these were detected how probable it is that each is a mention."""
        text = text if isinstance(text, Text) else Text(text)
        check_text(text)
        if text.spans is not None:
            return text, None
        threshold = self.detection_threshold(precision)
        assert self.bundle.detector is not None
        found = self.bundle.detector.candidates(text.text, text.language, threshold)
        return text._replace(spans=[span for span, _ in found]), [probability for _, probability in found]

    def _marked(self, mention: Mention) -> MarkedText:
        return mark_mention(mention, self.bundle.title_in_window)

    def _rows(self, marked: Sequence[MarkedText], max_tokens: int) -> TokenRows:
        return TokenRows.from_rows(self.bundle.tokenizer.rows(marked, max_tokens))

    def _embed(self, marked: Sequence[MarkedText], max_tokens: int) -> np.ndarray:
        rows = self._rows(marked, max_tokens)
        with self._on_device:
            return self.bundle.encoder.embed(rows)


def check_top_k(top_k: int) -> None:
    """Refuses more candidates than are ranked, or none."""
    if not isinstance(top_k, numbers.Integral) or not 1 <= top_k <= DEPTH:
        raise MelError(f"A top_k of {top_k} is not possible: 1 to {DEPTH} candidates can be given.")


def check_text(text: Text) -> None:
    """Refuses what is no text, or no spans."""
    if not isinstance(text.text, str):
        raise MelError(f"A text of the type {type(text.text).__name__} cannot be linked: give a str.")
    for name, value in (("title", text.title), ("language", text.language or "")):
        if not isinstance(value, str):
            raise MelError(f"A {name} of the type {type(value).__name__} is none: give a str.")
    if not (text.spans is None or isinstance(text.spans, Iterable)):
        raise MelError(f"Spans {text.spans!r} are no sequence: give pairs of start and end.")
    try:
        text.text.encode()
    except UnicodeEncodeError as error:
        raise MelError(
            f"The text has half a character at {error.start}, {text.text[error.start]!r}: "
            "decode it with errors='replace'."
        ) from None


def _span(span: Span | tuple[int, int]) -> Span:
    if isinstance(span, Span):
        return span
    try:
        start, end = span
        return Span(operator.index(start), operator.index(end))
    except (TypeError, ValueError):
        raise MelError(f"Span {span!r} is no pair of whole numbers: give the start and the end.") from None
