"""What is asked, and the systems that answer: the alias table, and a checkpoint with an index."""

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
from mel.corpora.alias_table import AliasTable
from mel.corpora.malformed import Malformed
from mel.encoder.backend import tokens_at_once
from mel.encoder.embed import embed_rows
from mel.evaluation.recall import Ranking
from mel.progress import Progress
from mel.retrieval.index import Index, search_distinct
from mel.shards.prepare import MentionBlock, Windows, mewsli_mentions
from mel.shards.rows import TokenRows
from mel.training.checkpoint import Checkpoint
from mel.types import MelError, parse_qid

CANDIDATES = 100  # the deepest place that a metric looks at
QUESTIONS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class Questions:
    """Q mentions to be linked: the strings for the alias table, the token rows for an encoder.

    Attributes:
      languages: of each mention.
      surface_forms: of each mention.
      gold_Q: int64.
      rows: in the same order.
      dropped: how many mentions were left out as unusable, by reason.
      inputs: the digests of what they were read from, by name.
    """

    languages: list[str]
    surface_forms: list[str]
    gold_Q: np.ndarray
    rows: TokenRows
    dropped: dict[str, int]
    inputs: dict[str, str]


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


def rank_by_alias_table(table: AliasTable, questions: Questions) -> Ranking:
    """The alias table's answers: of a surface form's entities in any language, the most linked first."""
    ranking = _empty_ranking(len(questions.surface_forms))
    for question, surface_form in enumerate(questions.surface_forms):
        for place, candidate in enumerate(table.candidates(surface_form)[:CANDIDATES]):
            ranking.qids_QK[question, place], ranking.scores_QK[question, place] = candidate
    return ranking


def rank_by_checkpoint(checkpoint: Checkpoint, questions: Questions, index: Index, qids_E: np.ndarray) -> Ranking:
    """A checkpoint's answers: the entities whose embeddings are nearest to the mention's.

    Args:
      checkpoint: the encoder.
      questions: Q mentions.
      index: over the embeddings of E entity rows by the same encoder.
      qids_E: the QID of each row.
    """
    queries_QD = np.empty((len(questions.rows), checkpoint.encoder_config.hidden_size), np.float32)
    progress = Progress("embedding mentions", len(queries_QD), "mentions")
    blocks = questions.rows.by_width(tokens_at_once())
    embed_rows(checkpoint.encoder_config, checkpoint.params, blocks, queries_QD, progress.add)
    progress.close()

    ranking = _empty_ranking(len(queries_QD))
    progress = Progress("searching", len(queries_QD), "mentions")
    for start in range(0, len(queries_QD), QUESTIONS_AT_ONCE):
        some = slice(start, start + QUESTIONS_AT_ONCE)
        ranking.qids_QK[some], ranking.scores_QK[some], _ = search_distinct(index, queries_QD[some], qids_E, CANDIDATES)
        progress.add(len(queries_QD[some]))
    progress.close()
    return ranking


def _empty_ranking(questions: int) -> Ranking:
    shape = questions, CANDIDATES
    return Ranking(np.zeros(shape, np.int64), np.full(shape, -np.inf, np.float32))


def _questions(
    lines: list[bytes], rows: TokenRows, dropped: Counter[str], inputs: dict[str, str], origin: pathlib.Path
) -> Questions:
    if not lines:
        raise MelError(f"{origin} holds no mentions of the languages asked for, so there is nothing to evaluate.")
    records = [orjson.loads(line) for line in lines]
    gold_Q = np.fromiter((parse_qid(record["qid"]) for record in records), np.int64, len(records))
    strings = ([record[name] for record in records] for name in ("language", "surface_form"))
    return Questions(*strings, gold_Q, rows, dict(sorted(dropped.items())), inputs)


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
