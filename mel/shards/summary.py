"""What was prepared, as a table for people."""

from __future__ import annotations

from collections import Counter

import numpy as np
from absl import logging

from mel.artifacts import Workdir, exists, open_artifact

UNKNOWN = 0.05  # a larger share of focus tokens that the vocabulary lacks is warned of


def summary(work: Workdir) -> str:
    """A table of what each language gave, and of what was dropped and why."""
    kb = open_artifact(work.kb, "kb").facts
    splits = [name for name in ("train", "held_out", "mewsli", "own") if exists(work.mentions(name))]
    facts = {name: open_artifact(work.mentions(name), "mentions").facts for name in splits}
    tokens = [open_artifact(work.mention_tokens(name), "tokens").facts.get("unknown in focus", {}) for name in splits]
    languages = list(
        dict.fromkeys([*kb["languages"], *(name for split in splits for name in facts[split]["languages"])])
    )
    counts = {"entities": kb["entities"], **{f"{name} mentions": facts[name]["counts"] for name in splits}}
    lines = [
        "| language | " + " | ".join(counts) + " | gold outside the KB | unknown tokens | dropped |",
        "|---|" + "---:|" * len(counts) + "---:|---:|---|",
    ]
    for language in languages:
        dropped = sum((Counter(facts[name]["dropped"].get(language, {})) for name in splits), Counter())
        outside = sum(facts[name]["gold outside the KB"].get(language, 0) for name in splits)
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        numbers = " | ".join(f"{column.get(language, 0):,}" for column in counts.values())
        unknown = _unknown_share(language, [split.get(language, (0, 0)) for split in tokens])
        lines.append(f"| {language} | {numbers} | {outside:,} | {unknown} | {reasons or '-'} |")
    totals = " | ".join(f"{sum(column.values()):,}" for column in counts.values())
    notes = [f"{kb['malformed']} malformed records", f"{kb['redirected']} redirected QIDs"]
    if left_out := sum(kb["left_out"].values()):
        notes.append(f"{left_out:,} rows of entities that another language links to more")
    lines.append(f"| all | {totals} | | | {', '.join(notes)} |")
    return "\n".join(lines)


def _unknown_share(language: str, by_split: list[tuple[int, int]]) -> str:
    """Of the tokens inside mentions, those that the vocabulary lacks; warns where there are many."""
    unknown, all_tokens = np.sum([(0, 0), *by_split], axis=0).tolist()
    share = unknown / max(all_tokens, 1)
    if share > UNKNOWN:
        logging.warning(
            "The tokenizer's vocabulary lacks %.1f %% of the tokens inside mentions of %s: does it know the language?",
            100 * share, language,
        )  # fmt: skip
    return f"{share:.2%}"
