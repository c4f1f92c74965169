"""Breakdowns: under which headings mentions are told apart, and which group each belongs to."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from mel.corpora.alias_table import AliasTable
from mel.corpora.kb import KnowledgeBase
from mel.evaluation.evaluation_set import EvaluationSet

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


def group_mentions(mentions: EvaluationSet, table: AliasTable, kb: KnowledgeBase) -> dict[str, list[str]]:
    """The group of each of Q mentions under each heading that the corpus can tell.

    Args:
      mentions: Q mentions.
      table: the surface forms and entities linked in training.
      kb: what the entities are called.
    """
    forms, golds = mentions.surface_forms, mentions.gold_Q.tolist()
    titles = {gold: {title.lower() for title in kb.titles_of(gold)} for gold in set(golds)}
    in_training = {form: table.ambiguity(form) for form in set(forms)}
    scripts = {form: script(form) for form in set(forms)}
    linked = table.is_linked(mentions.gold_Q).tolist()
    groups = {
        IN_TRAINING: [in_training[form] for form in forms],
        FREQUENCY: _named(mentions.frequency_bins, FREQUENCIES),
        IN_REFERENCES: _named(mentions.in_references, ("no", "yes")),
        SCRIPT: [scripts[form] for form in forms],
        LINKED: ["linked" if known else "never" for known in linked],
        IS_TITLE: [
            "same" if form.lower() in titles[gold] else "other" for form, gold in zip(forms, golds, strict=True)
        ],
    }
    return {heading: names for heading, names in groups.items() if set(names) != {UNKNOWN}}


def script(text: str) -> str:
    """The script that most letters of a text are written in, of equally many the first; one of `GROUPS[SCRIPT]`."""
    letters = [letter for letter in unicodedata.normalize("NFKC", text) if letter.isalpha()]
    counts = Counter(SCRIPTS.get(unicodedata.name(letter, "").partition(" ")[0], OTHER) for letter in letters)
    return max(counts, key=counts.__getitem__, default=OTHER)


def in_order(heading: str, names: Iterable[str]) -> list[str]:
    """The groups' names, each once, as `GROUPS` orders them."""
    present = set(names)
    return [name for name in GROUPS[heading] if name in present]


def _named(numbers: Sequence[int], names: Sequence[str]) -> list[str]:
    return [names[number] if 0 <= number < len(names) else UNKNOWN for number in numbers]
