"""What was prepared, as a table for people."""

from __future__ import annotations

from collections import Counter

from mel.artifacts import Workdir, exists, open_artifact


def summary(work: Workdir) -> str:
    """A table of what each language gave, and of what was dropped and why."""
    kb = open_artifact(work.kb, "kb").facts
    splits = [name for name in ("train", "held_out", "mewsli", "own") if exists(work.mentions(name))]
    facts = {name: open_artifact(work.mentions(name), "mentions").facts for name in splits}
    languages = list(
        dict.fromkeys([*kb["languages"], *(name for split in splits for name in facts[split]["languages"])])
    )
    counts = {"entities": kb["entities"], **{f"{name} mentions": facts[name]["counts"] for name in splits}}
    lines = [
        "| language | " + " | ".join(counts) + " | gold outside the KB | dropped |",
        "|---|" + "---:|" * len(counts) + "---:|---|",
    ]
    for language in languages:
        dropped = sum((Counter(facts[name]["dropped"].get(language, {})) for name in splits), Counter())
        outside = sum(facts[name]["gold outside the KB"].get(language, 0) for name in splits)
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        numbers = " | ".join(f"{column.get(language, 0):,}" for column in counts.values())
        lines.append(f"| {language} | {numbers} | {outside:,} | {reasons or '-'} |")
    totals = " | ".join(f"{sum(column.values()):,}" for column in counts.values())
    notes = [f"{kb['malformed']} malformed records", f"{kb['redirected']} redirected QIDs"]
    if left_out := sum(kb["left_out"].values()):
        notes.append(f"{left_out:,} rows of entities that another language links to more")
    lines.append(f"| all | {totals} | | {', '.join(notes)} |")
    return "\n".join(lines)
