"""Texts with spans to links: the same rows, embeddings and search as in an evaluation."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import orjson

from mel.checks import CHECKS
from mel.corpora.kb import KnowledgeBase
from mel.corpora.lines import open_file, read_lines
from mel.corpora.malformed import MAX_SHARE, Malformed
from mel.corpora.names import shown
from mel.linking import formats
from mel.linking.bundle import Bundle
from mel.linking.formats import LinkedText
from mel.locks import claim
from mel.progress import Progress
from mel.retrieval.index import search_distinct
from mel.shards.rows import TokenRows
from mel.text.marking import mark_mention
from mel.types import NIL, NIL_ID, Link, MelError, Mention, NamedCandidate, Span

MENTIONS_AT_ONCE = 4096
SCORE_DIGITS = 6
MAX_ID_CHARACTERS = 1000
Format = Literal["jsonl", formats.Format]
KINDS = {"id": (str, int), "language": str, "text": str, "spans": list, "title": str}


class Text(NamedTuple):
    """A text to be linked, and its mentions, which have it as their context."""

    text_id: str | int
    language: str
    text: str
    mentions: tuple[Mention, ...]


class Judge(NamedTuple):
    """A calibration as the linker sees it.

    Attributes:
      probability: of the best candidate being right, [Q], from candidates' scores, [Q, K].
      depth: how many candidates it looks at.
      threshold: a less probable answer is withheld: NIL.
    """

    probability: Callable[[np.ndarray], np.ndarray]
    depth: int
    threshold: float = 0.0


def link_mentions(bundle: Bundle, mentions: Sequence[Mention], top_k: int, judge: Judge | None = None) -> list[Link]:
    """Links mentions; their golds are not looked at.

    Args:
      bundle: the linker's parts.
      mentions: those of one text one after the other, so that it is tokenised once.
      top_k: most candidates for each.
      judge: says how probable each answer is; without it there is always an answer.
    """
    marked = [mark_mention(mention, bundle.title_in_window) for mention in mentions]
    rows = TokenRows.from_rows(bundle.tokenizer.rows(marked, bundle.max_tokens))
    depth = max(top_k, judge.depth if judge else 0)
    entities_QK, scores_QK, _ = search_distinct(bundle.index, bundle.encoder.embed(rows), bundle.kb.entities_E, depth)
    probabilities = judge.probability(scores_QK).tolist() if judge else [None] * len(rows)
    found_K = entities_QK[:, :top_k] != NIL
    return [
        _link(bundle.kb, mention, entities_K[found_k], scores_K[:top_k][found_k], probability, judge)
        for mention, entities_K, scores_K, found_k, probability in zip(
            mentions, entities_QK[:, :top_k], scores_QK, found_K, probabilities, strict=True
        )
    ]


def _link(
    kb: KnowledgeBase, mention: Mention, entities_k: np.ndarray, scores_k: np.ndarray, probability: float | None,
    judge: Judge | None,
) -> Link:  # fmt: skip
    """A link with titles in the language of the mention, or else in the first language that has one."""
    rows_k = kb.rows_of(entities_k, mention.language)
    named = zip(entities_k.tolist(), rows_k.tolist(), scores_k.tolist(), strict=True)
    candidates = tuple(NamedCandidate(kb.ids[entity], kb.titles[row], score) for entity, row, score in named)
    withheld = not candidates or (judge is not None and probability is not None and probability < judge.threshold)
    return Link(mention, candidates, NIL_ID if withheld else candidates[0].entity_id, probability)


def link_file(
    bundle: Bundle,
    source: pathlib.Path,
    target: pathlib.Path,
    top_k: int,
    max_malformed: int,
    file_format: Format = "jsonl",
    judge: Judge | None = None,
    max_malformed_share: float = MAX_SHARE,
) -> tuple[int, Malformed]:
    """Links a file of JSON lines into another file, which appears when it is whole.

    Args:
      bundle: the linker's parts.
      source: lines {"id", "language", "text", "spans": [[start, end], ...]} and, where known, "title".
      target: the links of each text, in the same order.
      top_k: most candidates for each mention.
      max_malformed: most lines and spans to skip as unusable.
      file_format: of the target; "jsonl" is our own.
      judge: says how probable each answer is.
      max_malformed_share: the same as `max_malformed`, as a share of all lines and spans.

    Returns:
      How many mentions were linked, and what was skipped.

    Raises:
      MelError: `source` cannot be read, too much of it is malformed, or `target` cannot be written.
    """
    malformed, progress = Malformed(max_malformed, max_malformed_share), Progress("linking", 0, "mentions")
    linked = 0

    def linked_texts() -> Iterator[LinkedText]:
        nonlocal linked
        for texts in _blocks(read_texts(source, malformed, keep_places=file_format in formats.WITHOUT_IDS)):
            mentions = [mention for text in texts for mention in text.mentions]
            links = iter(link_mentions(bundle, mentions, top_k, judge))
            for text in texts:
                yield LinkedText(text.text_id, text.language, text.text, tuple(next(links) for _ in text.mentions))
            linked += len(mentions)
            progress.add(len(mentions))

    with _whole_file(target) as file:
        if file_format == "jsonl":
            file.writelines(_json_line(text) for text in linked_texts())
        else:
            file.writelines(formats.write(linked_texts(), file_format))
    progress.close()
    return linked, malformed


def read_texts(path: pathlib.Path, malformed: Malformed, keep_places: bool = False) -> Iterator[Text]:
    """Yields the usable texts of a file of JSON lines, each with its usable spans; see `link_file`.

    Args:
      path: the file.
      malformed: where lines and spans that cannot be used are reported.
      keep_places: yields a text without anything for each line that is blank or cannot be used, so
        that the n-th text is that of the n-th line.

    Raises:
      MelError: it cannot be read, or too many of its lines and spans are malformed.
    """
    place, nothing = str(path), [Text("", "", "", ())] if keep_places else []
    with open_file(path) as file:
        for number, line in read_lines(file, place, lambda line, reason: malformed.add(place, line, reason)):
            if not line.strip():
                yield from nothing
                continue
            try:
                text = _text(orjson.loads(line), lambda reason: malformed.add(place, number, reason))
            except ValueError as error:  # orjson's errors are ValueErrors too
                malformed.add(place, number, str(error))
                yield from nothing
            else:
                malformed.well_formed += 1 + len(text.mentions)
                yield text
    malformed.finish(place)


def _text(record: Any, skip: Callable[[str], None]) -> Text:
    """Raises ValueError if the record cannot be used; calls `skip` with the reason for each span that cannot."""
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    record = {"title": "", **record}
    for name, kind in KINDS.items():
        if not isinstance(record.get(name), kind):
            raise ValueError(f"{name} is {'of the wrong type' if name in record else 'missing'}")
    text_id, language, text, title = (record[name] for name in ("id", "language", "text", "title"))
    if len(str(text_id)) > MAX_ID_CHARACTERS or len(language) > MAX_ID_CHARACTERS:
        raise ValueError(f"its id {shown(str(text_id))} or its language {shown(language)} is too long")
    mentions = []
    for span in record["spans"]:
        try:
            start, end = span
            if type(start) is not int or type(end) is not int:
                raise ValueError
            mention_id = f"{text_id}:{start}:{end}"
            mentions.append(Mention(mention_id, language, text, Span(start, end), NIL_ID, str(text_id), title))
        except MelError as error:
            skip(str(error))
        except (TypeError, ValueError):
            skip(f"span {span!r} is no pair of whole numbers")
    return Text(text_id, language, text, tuple(mentions))


def _blocks(texts: Iterable[Text]) -> Iterator[list[Text]]:
    """Texts in groups of about `MENTIONS_AT_ONCE` mentions, or texts."""
    block, size = [], 0
    for text in texts:
        block.append(text)
        size += max(1, len(text.mentions))
        if size >= MENTIONS_AT_ONCE:
            yield block
            block, size = [], 0
    if block:
        yield block


def _json_line(text: LinkedText) -> bytes:
    record = {"id": text.text_id, "language": text.language, "links": [_record(link) for link in text.links]}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _record(link: Link) -> dict[str, Any]:
    candidates = [
        {"qid": candidate.entity_id, "title": candidate.title, "score": round(candidate.score, SCORE_DIGITS)}
        for candidate in link.candidates
    ]
    span = link.mention.span
    record = {"start": span.start, "end": span.end, "surface_form": link.mention.surface_form}
    record |= candidates[0] if link.entity_id != NIL_ID else candidates[0] | {"qid": NIL_ID, "title": ""}
    if link.probability is not None:
        record["probability"] = round(link.probability, SCORE_DIGITS)
    return record | {"candidates": candidates}


@contextlib.contextmanager
def _whole_file(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A draft beside `path` that takes its place when the block ends without error."""
    draft = path.with_name(f".draft-{path.name}")
    try:
        with claim(path):
            try:
                with open(draft, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                CHECKS.settle()  # nobody sees what was made from a damaged bundle
                os.replace(draft, path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
    except OSError as error:
        full = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise MelError(f"--output={path} cannot be written: {full}; nothing of it was kept.") from error
