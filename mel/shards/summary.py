"""What was prepared, as a table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from absl import logging

from mel.artifacts import Workdir, exists, open_artifact
from mel.corpora.kb_merging import KbRows

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
    covered = {name: _covered(split) for name, split in facts.items()}
    notes += [f"{share:.1%} of {name} golds are in the KB" for name, share in covered.items() if share is not None]
    lines.append(f"| all | {totals} | | | {', '.join(notes)} |")
    return "\n".join([*lines, *_choices(kb)])


def _covered(split: Mapping[str, Any]) -> float | None:
    """The share of the mentions of a split whose gold has a row; None where there are no mentions."""
    mentions = sum(split["counts"].values())
    return 1 - sum(split["gold outside the KB"].values()) / mentions if mentions else None


def _choices(kb: Mapping[str, Any]) -> list[str]:
    """A table of what each --kb_rows would leave out, and which links of the training pages it would still cover."""
    if "known" not in kb:
        return []
    known = {name: sum(kb["known"][name].values()) for name in get_args(KbRows)}
    lines = ["", "| --kb_rows | rows | left out | links covered |", "|---|---:|---:|---:|"]
    rows, links = 0, kb["links"]
    for name, more in known.items():
        rows += more
        share = f"{kb['links covered'][name] / links:.1%}" if links else "-"
        chosen = f"{name} (chosen)" if name == kb["settings"].get("kb_rows") else name
        lines.append(f"| {chosen} | {rows:,} | {sum(known.values()) - rows:,} | {share} |")
    return lines


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
