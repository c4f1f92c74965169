"""What is asked: mentions, with what the corpora say of them and their token rows."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import pathlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import orjson

from mel.artifacts import Artifact
from mel.corpora import mewsli
from mel.corpora.malformed import Malformed
from mel.shards.prepare import MentionBlock, Windows, mewsli_mentions
from mel.shards.rows import TokenRows
from mel.types import MelError, document_of, parse_qid

_IN_REFERENCES = {True: 1, False: 0, None: -1}


@dataclasses.dataclass(frozen=True, eq=False)
class Questions:
    """Q mentions to be linked: the strings for the baselines, the token rows for an encoder.

    Attributes:
      mention_ids, documents, languages, surface_forms, titles: of each mention; a title is "" where
        its document has none.
      frequency_bins: Mewsli-9's 0..5, -1 where unknown.
      in_references: Mewsli-9's qid_in_refs as 1 or 0, -1 where unknown.
      lemmas: of the surface forms, "" where unknown.
      gold_Q: int64.
      rows: in the same order.
      dropped: how many mentions were left out as unusable, by reason.
      inputs: the digests of what they were read from, by name.
    """

    mention_ids: list[str]
    documents: list[str]
    languages: list[str]
    surface_forms: list[str]
    titles: list[str]
    frequency_bins: list[int]
    in_references: list[int]
    lemmas: list[str]
    gold_Q: np.ndarray
    rows: TokenRows
    dropped: dict[str, int]
    inputs: dict[str, str]

    def __len__(self) -> int:
        return len(self.mention_ids)


def read_prepared(
    mentions: Artifact, tokens: Artifact, rows: TokenRows, languages: Sequence[str], limit: int
) -> Questions:
    """Questions from published mentions and their token rows.

    Args:
      mentions: the artefact with a file of JSON lines for each language.
      tokens: the artefact that `rows` come from.
      rows: one for each mention, in the order of the languages and lines.
      languages: those to ask, all if empty.
      limit: most mentions to ask of each language, 0 for all.

    Raises:
      MelError: a language was not prepared.
    """
    wanted = _wanted(languages, mentions.facts["languages"], mentions.path)
    lines, row_ids, first = [], [], 0
    for language in mentions.facts["languages"]:
        count = mentions.facts["counts"][language]
        if language in wanted:
            asked = min(count, limit or count)
            with open(mentions / f"{language}.jsonl", "rb") as file:
                lines.extend(itertools.islice(file, asked))
            row_ids.extend(range(first, first + asked))
        first += count
    dropped = sum((Counter(mentions.facts["dropped"].get(language, {})) for language in wanted), Counter())
    inputs = {"mentions": mentions.digest, "mention_tokens": tokens.digest}
    return _questions(lines, rows.take(np.asarray(row_ids, np.int64)), dropped, inputs, mentions.path)


def read_tree(
    tree: pathlib.Path, languages: Sequence[str], limit: int, windows: Windows, max_malformed: int
) -> Questions:
    """Questions from a Mewsli-9 tree that need not have been there when the data was prepared.

    Args:
      tree: its folder.
      languages: those to ask, all in the tree if empty.
      limit: most mentions to ask of each language, 0 for all.
      windows: how rows are cut.
      max_malformed: most malformed records to skip.

    Raises:
      MelError: the tree lacks a language or a text, has no mentions, or too many malformed records.
    """
    wanted = _wanted(languages, mewsli.list_languages(tree), tree)
    malformed = Malformed(max_malformed)
    blocks = _limited(mewsli_mentions(tree, wanted, windows, malformed), limit)
    lines, rows, dropped = [], [], Counter()
    for block in blocks:
        lines += block.lines
        rows.append(block.rows)
        dropped += block.dropped
    dropped += Counter({"malformed": len(malformed)})
    return _questions(lines, _concatenated(rows), dropped, {"mewsli": _digest(lines, rows)}, tree)


def _questions(
    lines: list[bytes], rows: TokenRows, dropped: Counter[str], inputs: dict[str, str], origin: pathlib.Path
) -> Questions:
    if not lines:
        raise MelError(f"{origin} holds no mentions of the languages asked for, so there is nothing to evaluate.")
    records = [orjson.loads(line) for line in lines]
    return Questions(
        mention_ids=[record["id"] for record in records],
        # Mentions prepared by an older program lack the keys that are asked for with a default.
        documents=[record.get("document") or document_of(record["id"]) for record in records],
        languages=[record["language"] for record in records],
        surface_forms=[record["surface_form"] for record in records],
        titles=[record["title"] for record in records],
        frequency_bins=[record["frequency_bin"] for record in records],
        in_references=[_IN_REFERENCES[record.get("in_references")] for record in records],
        lemmas=[record.get("lemma", "") for record in records],
        gold_Q=np.fromiter((parse_qid(record["qid"]) for record in records), np.int64, len(records)),
        rows=rows,
        dropped=dict(sorted(dropped.items())),
        inputs=inputs,
    )


def _wanted(languages: Sequence[str], there: list[str], origin: pathlib.Path) -> list[str]:
    if missing := [language for language in languages if language not in there]:
        raise MelError(f"{origin} has no language {missing[0]!r}: choose --languages among {', '.join(there)}.")
    return [language for language in there if language in languages or not languages]


def _limited(blocks: Iterable[MentionBlock], limit: int) -> Iterable[MentionBlock]:
    """The blocks, cut behind the first `limit` mentions of each language if it is not 0."""
    asked: Counter[str] = Counter()
    for block in blocks:
        room = min(len(block.lines), limit - asked[block.language] if limit else len(block.lines))
        asked[block.language] += room
        yield block._replace(lines=block.lines[:room], rows=block.rows.take(np.arange(room)))


def _concatenated(rows: list[TokenRows]) -> TokenRows:
    lengths = np.concatenate([np.zeros(1, np.int64), *(some.lengths_N for some in rows)])
    return TokenRows(np.concatenate([np.zeros(0, np.int32), *(some.tokens_T for some in rows)]), np.cumsum(lengths))


def _digest(lines: list[bytes], rows: list[TokenRows]) -> str:
    digest = hashlib.sha256(b"".join(lines))
    for some in rows:
        digest.update(np.ascontiguousarray(some.tokens_T))
    return digest.hexdigest()
