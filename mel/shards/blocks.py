"""Mentions to blocks of them with their token rows, as trees and files of one's own give them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from mel.artifacts import Workdir, open_artifact
from mel.config import REQUIRED, flag
from mel.corpora import mentions, mewsli
from mel.corpora.malformed import Malformed
from mel.corpora.redirects import Redirects
from mel.corpora.sources import Sources
from mel.corpora.workers import map_in_order
from mel.shards.rows import TokenRows
from mel.text import foreign
from mel.text.marking import mark_mention
from mel.text.tokenizer import Prefixes, Tokenizer
from mel.types import EntityId, Mention

DOCUMENTS_AT_ONCE = 256

Split = Literal["train", "held_out"]


@dataclasses.dataclass(frozen=True)
class WindowsConfig:
    """How texts become rows of tokens."""

    tokenizer: str = flag(REQUIRED, "Local folder or hub id of the encoder's tokenizer, as its owner publishes it.")
    case: Literal["auto", "kept", "lower"] = flag(
        "auto", "Whether upper case is made lower; auto is as the tokenizer says, or as its vocabulary shows."
    )
    mention_prefix: str = flag("", 'What the encoder was trained to find before mentions, such as "query: ".')
    entity_prefix: str = flag("", 'What the encoder was trained to find before entities, such as "passage: ".')
    mention_tokens: int = flag(64, "Most tokens of a mention's window.")
    entity_tokens: int = flag(64, "Most tokens of an entity's title and description.")
    title_in_window: bool = flag(True, "Put the title of the page, where known, in front of a mention's window.")

    def read_tokenizer(self) -> Tokenizer:
        """Reads the tokenizer that is asked for.

        Raises:
          MelError: it is none, or none that rows can be made with.
        """
        lower_case = {"auto": None, "kept": False, "lower": True}[self.case]
        prefixes = Prefixes(self.mention_prefix, self.entity_prefix)
        return foreign.read_tokenizer(self.tokenizer, lower_case, prefixes if any(prefixes) else None)


class MentionBlock(NamedTuple):
    """N mentions of one language.

    Attributes:
      rows: their rows.
      ids: those of their golds, each once.
      golds_N: the place of each mention's gold there.
      lines: those of the mentions artefact, as they are published: bytes, or a map of them.
      dropped: how many others were, by reason.
      unknown: how many tokens of their focuses the vocabulary lacks, and how many there are.
    """

    language: str
    rows: TokenRows
    ids: list[EntityId]
    golds_N: np.ndarray
    lines: bytes | np.ndarray
    dropped: Counter[str]
    unknown: tuple[int, int]


class Windows(NamedTuple):
    """How a mention's row is cut."""

    tokenizer: pathlib.Path
    max_tokens: int
    title_in_window: bool

    @classmethod
    def of(cls, work: Workdir) -> Windows:
        """How the mentions that training reads were cut."""
        facts = open_artifact(work.mention_tokens("train"), "tokens").facts
        return cls(work.tokenizer, facts["max_tokens"], facts["title_in_window"])


def mewsli_mentions(
    tree: pathlib.Path, languages: Sequence[str], windows: Windows, malformed: Malformed, limit: int = 0,
    redirects: Redirects | None = None, sources: Sources | None = None, workers: int = 1,
) -> Iterator[MentionBlock]:  # fmt: skip
    """The mentions of a Mewsli-9 tree, language by language; the first `limit` of each if it is not 0.

    `sources`, if given, is told the files that are read. `workers` processes read a language each; 0 is one a core.
    """
    bounds = Malformed(malformed.limit, malformed.share, log=False)
    read = functools.partial(
        _language_of_tree, tree=tree, windows=windows, bounds=bounds, limit=limit, redirects=redirects
    )
    counts: dict[str, int] = {}
    for language, of_language in zip(languages, map_in_order(read, languages, workers), strict=True):
        malformed.merge(of_language.malformed)
        if sources is not None:
            sources.update(of_language.sources)
        for block in of_language.blocks:
            counts[language] = counts.get(language, 0) + len(block.rows) + block.dropped.total()
            yield block
    if not limit:
        mewsli.check_counts(tree, counts)


class _OfLanguage(NamedTuple):
    blocks: list[MentionBlock]
    malformed: Malformed
    sources: Sources


def _language_of_tree(
    language: str, tree: pathlib.Path, windows: Windows, bounds: Malformed, limit: int, redirects: Redirects | None
) -> _OfLanguage:
    malformed, sources, blocks = Malformed(bounds.limit, bounds.share, log=False), {}, []
    documents = mewsli.read_documents(tree, language, malformed, redirects, sources)
    for group in grouped(_first_mentions(documents, limit) if limit else documents, DOCUMENTS_AT_ONCE):
        in_group = [mention for document in group for mention in document.mentions]
        dropped = sum((document.dropped for document in group), Counter())
        blocks.append(mention_block(language, in_group, dropped, load_once(windows.tokenizer), windows))
    return _OfLanguage(blocks, malformed, sources)


def is_held_out(entity_id: EntityId, share: float) -> bool:
    """Whether the page of an entity, in all languages alike, is held out."""
    return zlib.crc32(entity_id.encode()) < share * 2**32


def grouped(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while group := list(itertools.islice(items, size)):
        yield group


def _first_mentions(documents: Iterable[mewsli.Document], limit: int) -> Iterator[mewsli.Document]:
    """The documents up to the first `limit` mentions; no text after them is read."""
    for document in documents:
        yield document._replace(mentions=document.mentions[:limit])
        limit -= len(document.mentions)
        if limit <= 0:
            return


def mention_block(
    language: str, with_contexts: list[Mention], dropped: Counter, tokenizer: Tokenizer, windows: Windows
) -> MentionBlock:
    """The block of mentions of one language, those of a text one after the other."""
    marked = [mark_mention(mention, windows.title_in_window) for mention in with_contexts]
    rows = TokenRows.from_rows(tokenizer.rows(marked, windows.max_tokens))
    places: dict[EntityId, int] = {}
    golds_N = np.array([places.setdefault(each.gold, len(places)) for each in with_contexts], np.int64)
    lines = b"".join(mentions.write_line(mentions.line_of(each)) for each in with_contexts)
    return MentionBlock(language, rows, list(places), golds_N, lines, dropped, tokenizer.count_unknown([rows.tokens_T]))


@functools.cache
def load_once(folder: pathlib.Path) -> Tokenizer:
    """A tokenizer that was saved in `folder`, loaded once in each process."""
    return Tokenizer.load(folder)
