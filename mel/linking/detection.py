"""Where the mentions of a text are: the knowledge base's own surface forms, as far as pages link them.

Of probable spans that overlap, the one stays that may be expected to cover the most characters of mentions: its
probability times its length. So "New York" stays for a text that has it, though "York" alone may be linked as often.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from mel.linking.forms import MAX_CHARACTERS, Forms
from mel.text.cutting import PLAIN_BORDER
from mel.text.folding import fold, folded
from mel.types import Link, MelError, Span

KIND = "detector"
FILE = "detection.json"
CHARACTERS_A_STRETCH = 1 << 16  # of a text that forms are looked for in at once
CANDIDATES_A_GROUP = 1024
PRIOR = 0.5  # of a form where no page was held out to see how often unknown forms are linked


class Detected(NamedTuple):
    """Spans of a text that may be mentions: [n] each, by their starts.

    Attributes:
      spans: where they are; they may overlap.
      forms: the number of the form of each.
      upper: whether each has an upper-case letter.
    """

    spans: list[Span]
    forms: list[int]
    upper: list[bool]


@dataclasses.dataclass(frozen=True, eq=False)
class Detector:
    """Finds mentions in texts.

    Example:
      detector = Detector.read(work.detector)
      detector.spans("Paris liegt an der Seine.", "de")  # [(Span(0, 5), 0.9), (Span(19, 24), 0.8)]

    Attributes:
      forms: what is looked for.
      prior: the probability before any evidence, of a form that is only linked and of a name.
      threshold: spans that are at least so probable are detected where nobody asks for anything else: the best F1 on
        the pages that were held out; 0 where there were none.
      measured: "precision" and "recall" at each "threshold", rising, on those pages; None where there were none.
    """

    forms: Forms
    prior: Sequence[float]
    threshold: float
    measured: Mapping[str, Any] | None

    @classmethod
    def read(cls, folder: pathlib.Path) -> Detector:
        """Opens what `write` wrote.

        Raises:
          MelError: it is damaged.
        """
        try:
            values = orjson.loads((folder / FILE).read_bytes())
            forms = Forms.read(folder, values["languages"])
            return cls(forms, values["prior"], values["threshold"], values["measured"])
        except (OSError, ValueError, KeyError) as error:
            raise MelError(f"{folder} cannot be read as a detector: {error}.") from error

    def write(self, folder: pathlib.Path) -> None:
        """Writes what `read` reads."""
        self.forms.write(folder)
        values = {name: getattr(self, name) for name in ("prior", "threshold", "measured")}
        values["languages"] = self.forms.languages
        (folder / FILE).write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def with_names(self, names: Iterable[str]) -> Detector:
        """The detector that also knows some names that came later, such as those of entities that were added."""
        return dataclasses.replace(self, forms=self.forms.with_names(names))

    def without(self, names: Iterable[str]) -> Detector:
        """The detector that looks for some forms no more, such as those of entities that were removed."""
        return dataclasses.replace(self, forms=self.forms.without(names))

    def of_others(self, names: Iterable[str], linked: Iterable[str] = ()) -> Detector:
        """A detector of the names and linked surface forms of another knowledge base.

        What is known here keeps its probability; all else is as probable as names were of which the pages of training
        said nothing. Thresholds are those that were measured here.
        """
        return dataclasses.replace(self, forms=self.forms.of_others(names, linked))

    def threshold_for(self, precision: float) -> float:
        """The least probability from which on so many of the detected forms were linked on the held-out pages.

        A form counts once a page. Pages do not link all that they mention, so more are right than were linked.

        Raises:
          MelError: no threshold reaches it, or no page was held out.
        """
        if not 0 <= precision <= 1:
            raise MelError(f"A precision of {precision} is no share: choose one from 0 to 1.")
        if self.measured is None:
            raise MelError(
                f"A precision of {precision} of detected mentions is unknown, for no page was held out to measure it: "
                "run mel-prepare-data with --held_out=0.02 and --detector in another --workdir."
            )
        curve = zip(self.measured["threshold"], self.measured["precision"], strict=True)
        for threshold, reached in curve:
            if reached >= precision:
                return threshold
        most = math.floor(max(self.measured["precision"]) * 1000) / 1000
        raise MelError(
            f"A precision of {precision} is not reached on the held-out pages: the most is {most}. Ask for less."
        )

    def spans(self, text: str, language: str | None = None, threshold: float | None = None) -> list[tuple[Span, float]]:
        """The mentions of a text with their probabilities, by their starts; they do not overlap.

        Args:
          text: in any language.
          language: of the text; None if it is not known.
          threshold: the least probability; that of the detector if None.
        """
        found = self.candidates(text, language, threshold)
        spans, probabilities = [span for span, _ in found], [probability for _, probability in found]
        return [found[place] for place in without_overlaps(spans, probabilities)]

    def candidates(
        self, text: str, language: str | None = None, threshold: float | None = None
    ) -> list[tuple[Span, float]]:
        """As `spans`, with all those that overlap."""
        return [candidate for some in self.groups(text, language, threshold) for candidate in some]

    def groups(
        self, text: str, language: str | None = None, threshold: float | None = None
    ) -> Iterator[list[tuple[Span, float]]]:
        """The candidates in groups, none of which overlaps one of another group; a long text is never held folded."""
        least, group, reach = self.threshold if threshold is None else threshold, [], 0
        for found in detected(self.forms, text):
            probability_n = self.forms.link_probability(found.forms, found.upper, language, self.prior)
            for span, probability in zip(found.spans, probability_n.tolist(), strict=True):
                if probability < least:
                    continue
                if len(group) >= CANDIDATES_A_GROUP and span.start >= reach:
                    yield group
                    group = []
                group.append((span, probability))
                reach = max(reach, span.end)
        if group:
            yield group


def surest(links: list[Link], detected: Sequence[float] | None) -> list[Link]:
    """The links of a text; of detected spans that overlap the one that is more probably a mention and rightly linked.

    Args:
      links: of all spans, in their order.
      detected: how probable it is that each span is a mention; None where spans were given.
    """
    if detected is None:
        return links
    spans = [Span(link.start, link.end) for link in links]
    right = (1.0 if link.probability is None else link.probability for link in links)
    both = [probability * share for probability, share in zip(detected, right, strict=True)]
    return [links[place] for place in without_overlaps(spans, both)]


def detect(forms: Forms, text: str) -> Detected:
    """All forms in a text, however improbable."""
    found = Detected([], [], [])
    for some in detected(forms, text):
        found.spans.extend(some.spans)
        found.forms.extend(some.forms)
        found.upper.extend(some.upper)
    return found


def detected(forms: Forms, text: str) -> Iterator[Detected]:
    """The same, for one stretch of the text after the other: those that begin in it."""
    start = 0
    while start < len(text):
        border = PLAIN_BORDER.search(text, start + CHARACTERS_A_STRETCH)
        end = border.start() if border else len(text)
        yield _detect_between(forms, text, start, end)
        start = end


def _detect_between(forms: Forms, text: str, start: int, end: int) -> Detected:
    """The forms that begin in `text[start:end]`, between two places where nothing folds together."""
    after = end
    while True:
        border = PLAIN_BORDER.search(text, after + MAX_CHARACTERS)
        after = border.start() if border else len(text)
        # No form that begins before `end` reaches the end of what is folded here, where any word would end.
        if after == len(text) or len(fold(text[end:after])) > MAX_CHARACTERS:
            break
    found, in_text = Detected([], [], []), folded(text[start:after])
    for first, last, form in forms.find(in_text):
        span = in_text.span(first, last)
        if start + span.start >= end:
            break
        surface_form = text[start + span.start : start + span.end]
        found.spans.append(Span(start + span.start, start + span.end))
        found.forms.append(form)
        found.upper.append(surface_form != surface_form.lower())
    return found


def without_overlaps(spans: Sequence[Span], probabilities: Sequence[float]) -> list[int]:
    """The places of the spans that stay, by their starts: of two that overlap, the one of more expected characters.

    Of equal ones the longer one stays, of equally long ones the first.
    """

    def rank(place: int) -> tuple[float, int, int]:
        length = spans[place].end - spans[place].start
        return -probabilities[place] * length, -length, spans[place].start

    starts: list[int] = []
    kept: list[int] = []
    for place in sorted(range(len(spans)), key=rank):
        at = bisect.bisect_left(starts, spans[place].start)
        free_before = at == 0 or spans[kept[at - 1]].end <= spans[place].start
        if free_before and (at == len(kept) or spans[place].end <= spans[kept[at]].start):
            starts.insert(at, spans[place].start)
            kept.insert(at, place)
    return kept
