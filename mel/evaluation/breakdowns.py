"""Breakdowns: under which headings mentions are told apart, and which group each belongs to."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np

from mel.corpora.alias_table import AliasTable
from mel.evaluation.questions import Questions
from mel.types import Entity

IN_TRAINING = "surface form in training"
FREQUENCY = "frequency bin"
IN_REFERENCES = "gold in references"
SCRIPT = "script"
LINKED = "gold linked in training"
IS_TITLE = "surface form is the title"

UNKNOWN = "unknown"
OTHER = "other"
FREQUENCIES = ("0", "1-9", "10-99", "100-999", "1k-9,999", "10k+")  # Mewsli-9's bins of training mentions
SCRIPTS = {  # by the first word of a letter's Unicode name
    "LATIN": "Latin", "CYRILLIC": "Cyrillic", "CJK": "Han", "IDEOGRAPHIC": "Han", "HIRAGANA": "Kana",
    "KATAKANA": "Kana", "KATAKANA-HIRAGANA": "Kana", "HANGUL": "Hangul", "ARABIC": "Arabic",
    "DEVANAGARI": "Devanagari", "TAMIL": "Tamil",
}  # fmt: skip

# The headings and their groups, in the order in which they are shown.
GROUPS = {
    IN_TRAINING: ("ambiguous", "unambiguous", "unseen"),
    FREQUENCY: (*FREQUENCIES, UNKNOWN),
    IN_REFERENCES: ("yes", "no", UNKNOWN),
    SCRIPT: (*dict.fromkeys(SCRIPTS.values()), OTHER),
    LINKED: ("linked", "never"),
    IS_TITLE: ("same", "other"),
}


def group_mentions(questions: Questions, table: AliasTable, titles: Mapping[int, Set[str]]) -> dict[str, list[str]]:
    """The group of each of Q mentions under each heading that the corpus can tell.

    Args:
      questions: the mentions.
      table: the surface forms and QIDs linked in training.
      titles: of the golds, by `gold_titles`.
    """
    forms, golds = questions.surface_forms, questions.gold_Q.tolist()
    in_training = {form: table.ambiguity(form) for form in set(forms)}
    scripts = {form: script(form) for form in set(forms)}
    linked = table.qids()
    groups = {
        IN_TRAINING: [in_training[form] for form in forms],
        FREQUENCY: _named(questions.frequency_bins, FREQUENCIES),
        IN_REFERENCES: _named(questions.in_references, ("no", "yes")),
        SCRIPT: [scripts[form] for form in forms],
        LINKED: ["linked" if gold in linked else "never" for gold in golds],
        IS_TITLE: ["same" if form.lower() in titles.get(gold, ()) else "other" for form, gold in zip(forms, golds)],
    }
    return {heading: names for heading, names in groups.items() if set(names) != {UNKNOWN}}


def gold_titles(entities: Iterable[Entity], gold_Q: np.ndarray) -> dict[int, set[str]]:
    """The titles of the golds, lower-cased, in all languages of the KB; `group_mentions` compares with them."""
    titles: dict[int, set[str]] = {qid: set() for qid in gold_Q.tolist()}
    for entity in entities:
        if entity.qid in titles:
            titles[entity.qid].add(entity.title.lower())
    return titles


def script(text: str) -> str:
    """The script that most letters of a text are written in, of equally many the first; one of `GROUPS[SCRIPT]`."""
    letters = [letter for letter in unicodedata.normalize("NFKC", text) if letter.isalpha()]
    found = Counter(SCRIPTS.get(unicodedata.name(letter, "").partition(" ")[0], OTHER) for letter in letters)
    return max(found, key=found.__getitem__, default=OTHER)


def in_order(heading: str, names: Iterable[str]) -> list[str]:
    """The groups' names, each once, as `GROUPS` orders them."""
    present = set(names)
    return [name for name in GROUPS[heading] if name in present]


def _named(numbers: Sequence[int], names: Sequence[str]) -> list[str]:
    return [names[number] if 0 <= number < len(names) else UNKNOWN for number in numbers]
