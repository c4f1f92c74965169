"""The mentions that systems are asked to link, with what the corpora say of them, their golds and token rows."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mel.artifacts import Workdir, open_artifact
from mel.corpora import mewsli
from mel.corpora.kb import KnowledgeBase
from mel.corpora.malformed import MAX_SHARE, Malformed
from mel.corpora.mentions import KIND, MentionLine, choose_languages, parse_lines, read_lines, write_line
from mel.corpora.redirects import Redirects
from mel.faults import first_line
from mel.shards.blocks import Windows, mewsli_mentions
from mel.shards.datasets import open_rows
from mel.shards.rows import TokenRows
from mel.types import MelError

_IN_REFERENCES = {True: 1, False: 0, None: -1}


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Q mentions to be linked: the strings for the baselines, the token rows for an encoder.

    Attributes:
      lines: what the corpora say of each mention.
      gold_Q: int64, the entity that each means, OUTSIDE where the KB has no number for it.
      rows: of tokens.
      dropped: how many mentions were left out as unusable, by reason.
      inputs: the digests of what they were read from, by name.
      cluster_of: of documents of which more is known than the corpora say.
    """

    lines: Sequence[MentionLine]
    gold_Q: np.ndarray
    rows: TokenRows
    dropped: dict[str, int]
    inputs: dict[str, str]
    cluster_of: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def ids(self) -> list[str]:
        return [line.mention_id for line in self.lines]

    @property
    def documents(self) -> list[str]:
        return [line.document for line in self.lines]

    @property
    def clusters(self) -> list[str]:
        """What is drawn, or put into a fold, as one: a document with its translations."""
        return [self.cluster_of.get(line.document, line.cluster or line.document) for line in self.lines]

    @property
    def languages(self) -> list[str]:
        return [line.language for line in self.lines]

    @property
    def surface_forms(self) -> list[str]:
        return [line.surface_form for line in self.lines]

    @property
    def lookups(self) -> list[tuple[str, str, str]]:
        """Surface form, language and lemma: what a prior is asked with."""
        return [(line.surface_form, line.language, line.lemma) for line in self.lines]

    @property
    def frequency_bins(self) -> list[int]:
        """Mewsli-9's 0..5, -1 where unknown."""
        return [line.frequency_bin for line in self.lines]

    @property
    def in_references(self) -> list[int]:
        """Mewsli-9's qid_in_refs as 1 or 0, -1 where unknown."""
        return [_IN_REFERENCES[line.in_references] for line in self.lines]


def read_prepared(
    work: Workdir, split: str, kb: KnowledgeBase, languages: Sequence[str] = (), limit: int = 0
) -> EvaluationSet:
    """The mentions of a published split and their token rows.

    Args:
      work: the working directory.
      split: "mewsli", "held_out" or "train".
      kb: numbers the golds.
      languages: those to read, all if empty.
      limit: most mentions of each language, 0 for all.

    Raises:
      MelError: the split or a language was not prepared, or holds no mentions.
    """
    tokenizer = open_artifact(work.tokenizer, "tokenizer")
    mentions = open_artifact(work.mentions(split), KIND)
    tokens = open_artifact(work.mention_tokens(split), "tokens", {"tokenizer": tokenizer})
    wanted = choose_languages(languages, mentions.facts["languages"], mentions.path)
    lines, row_ids, first = [], [], 0
    for language in mentions.facts["languages"]:
        count = mentions.facts["counts"][language]
        if language in wanted:
            lines.extend(read_lines(mentions, language, limit))
            row_ids.extend(range(first, first + min(count, limit or count)))
        first += count
    dropped = sum((Counter(mentions.facts["dropped"].get(language, {})) for language in wanted), Counter())
    rows = open_rows(tokens, work.cache(tokens)).rows.take(np.asarray(row_ids, np.int64))
    inputs = {"mentions": mentions.digest, "mention_tokens": tokens.digest}
    return _evaluation_set(lines, rows, kb, dropped, inputs, mentions.path)


def read_tree(
    tree: pathlib.Path, windows: Windows, kb: KnowledgeBase, languages: Sequence[str], limit: int, max_malformed: int,
    max_malformed_share: float = MAX_SHARE, redirects: Redirects | None = None,
) -> EvaluationSet:  # fmt: skip
    """The mentions of a Mewsli-9 tree that need not have been there when the data was prepared.

    Args:
      tree: its folder.
      windows: how rows are cut.
      kb: numbers the golds.
      languages: those to read, all in the tree if empty.
      limit: most mentions of each language, 0 for all; what comes after them is not read.
      max_malformed: most malformed records to skip.
      max_malformed_share: the same as a share of what each file holds.
      redirects: where the golds that were merged into others went.

    Raises:
      MelError: the tree lacks a language or a text, has no mentions, or too many malformed records.
    """
    malformed = Malformed(max_malformed, max_malformed_share)
    wanted = choose_languages(languages, mewsli.list_languages(tree), tree)
    blocks = list(mewsli_mentions(tree, wanted, windows, malformed, limit, redirects))
    lines = [line for block in blocks for line in parse_lines(bytes(block.lines))]
    rows = TokenRows.concatenate([block.rows for block in blocks])
    dropped = sum((block.dropped for block in blocks), Counter({"malformed": len(malformed)}))
    inputs = {"mewsli": _digest(lines, rows)}
    return _evaluation_set(lines, rows, kb, dropped, inputs, tree)


def read_clusters(path: str | os.PathLike) -> dict[str, str]:
    """{document: cluster} of a file with one pair a line, a tab between them.

    Raises:
      MelError: it cannot be read, or a line is no pair.
    """
    clusters = {}
    try:
        lines = pathlib.Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MelError(f"--clusters={path} cannot be read ({first_line(error)}).") from error
    for number, line in enumerate(lines, 1):
        document, tab, cluster = line.partition("\t")
        if not (document and tab and cluster and "\t" not in cluster):
            raise MelError(f"{path}:{number} reads {line[:80]!r}: a document, a tab and its cluster are needed.")
        clusters[document] = cluster
    return clusters


def golds_with_twins(mentions: EvaluationSet, kb: KnowledgeBase, first_E: np.ndarray) -> int:
    """How many golds, as their mention's language has them, read token by token like another entity.

    Args:
      mentions: Q mentions.
      kb: the entities.
      first_E: the first row that reads like each of the KB's, as `TokenRows.twins` gives it.
    """
    languages_Q, rows_Q = np.asarray(mentions.languages, np.str_), np.full(len(mentions), -1, np.int64)
    for language in np.unique(languages_Q):
        of_language_Q = languages_Q == language
        rows_Q[of_language_Q] = kb.rows_of(mentions.gold_Q[of_language_Q], str(language))
    texts_Q = first_E[rows_Q[rows_Q >= 0]]
    alike_n = np.flatnonzero(np.isin(first_E, texts_Q))  # the rows that read like a gold
    entities_of_texts = np.unique(np.stack([first_E[alike_n], kb.entities_E[alike_n]]), axis=1)
    texts_F, entities_F = np.unique(entities_of_texts[0], return_counts=True)
    return int(np.count_nonzero(np.isin(texts_Q, texts_F[entities_F > 1])))


def _evaluation_set(
    lines: list[MentionLine], rows: TokenRows, kb: KnowledgeBase, dropped: Counter[str], inputs: dict[str, str],
    origin: pathlib.Path,
) -> EvaluationSet:  # fmt: skip
    if not lines:
        raise MelError(f"{origin} holds no mentions of the languages asked for, so there is nothing to evaluate.")
    gold_Q = kb.numbers_of([line.gold for line in lines])
    return EvaluationSet(lines, gold_Q, rows, dict(sorted(dropped.items())), inputs)


def _digest(lines: Iterable[MentionLine], rows: TokenRows) -> str:
    digest = hashlib.sha256(b"".join(map(write_line, lines)))
    digest.update(np.ascontiguousarray(rows.tokens_T).data)
    return digest.hexdigest()
