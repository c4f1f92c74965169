"""DaMuEL archives that are made up, as large as is asked for and the same again for the same seed.

Pages have the members, fields and notation of genuine ones, words and linked entities by Zipf's law, and their sizes:
`measure` says of any records how many bytes, tokens, links and mentions one has, and how far xz packs them. Thin
records have an id, a label and a description, as most records of an archive do.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import lzma
import pathlib
import statistics
import string
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mel.corpora.workers import map_in_order

WORDS, TOPIC_WORDS, TOPIC_SHARE = 60_000, 60, 0.35
PAGE_TOKENS, SPREAD, LONGEST = 539.25, 1.0, 6_000  # the mean of genuine pages; lengths are lognormal
SENTENCE, PARAGRAPH, HEADING = 21, 43, 3  # tokens of each, as genuine pages have them
MENTIONS, UNKNOWN, FOUND = 2.55, 0.37, 5.55  # links a hundred tokens: of authors, of authors without a QID, others
PAGE_BYTES, THIN_BYTES = 6_040, 17.3  # of xz, a record
PART_MEGABYTES, PART_RECORDS = 2.5, 50_000  # of parts, where nobody says otherwise
SYLLABLES = [consonant + vowel for consonant in "bcdfglmnprstvz" for vowel in "aeioué"]
TAGS = ("NOUN", "ADJ", "VERB", "ADP", "PROPN", "DET", "ADV", "AUX", "PRON", "NUM", "CCONJ")
FEATURES = (
    "Gender=Fem|Number=Sing", "Gender=Masc|Number=Sing", "AdpType=Prep", "", "Gender=Fem|Number=Plur",
    "Definite=Def|Gender=Fem|Number=Sing|PronType=Art", "Mood=Ind|Number=Sing|Person=3|Tense=Past|VerbForm=Fin",
    "Gender=Masc|Number=Plur", "Number=Sing", "Gender=Fem|Number=Sing|VerbForm=Part", "VerbForm=Inf", "NumForm=Digit",
    "Mood=Sub|Number=Plur|Person=3|Tense=Imp|VerbForm=Fin", "Case=Acc|Number=Sing|Person=3|PrepCase=Npr|PronType=Prs",
)  # fmt: skip
OTHER_ORIGINS = ("redirects", "anchors", "title", "label")


class Measures(NamedTuple):
    """What a page has in the mean, and how many times as long it is as what xz makes of it."""

    bytes: float
    tokens: float
    links: float
    mentions: float
    ratio: float

    def out(self, genuine: Measures, share: float) -> list[str]:
        """The names of what differs from genuine pages by more than a share of it."""
        both = zip(self._fields, self, genuine, strict=True)
        return [name for name, ours, theirs in both if abs(ours / theirs - 1) > share]


def measure(lines: Iterable[bytes], block: int | None = None) -> tuple[Measures, int]:
    """The measures of the pages among some records, and how many bytes they take.

    Args:
      lines: JSON, a line a record.
      block: xz packs more of more, so it is given about so many bytes at a time; all at once where None.
    """
    sums, pages, blocks = np.zeros(4), 0, [b""]
    for line in lines:
        if wiki := json.loads(line).get("wiki"):
            mentions = sum(link["origin"] == "wiki" and "qid" in link for link in wiki["links"])
            sums += len(line), len(wiki["tokens"]), len(wiki["links"]), mentions
            pages += 1
            if block is not None and len(blocks[-1]) + len(line) // 2 > block:
                blocks.append(b"")
            blocks[-1] += line
    packed = sum(len(lzma.compress(each)) for each in blocks)
    return Measures(*(sums / pages).tolist(), sums[0] / packed), int(sums[0])


class Making(NamedTuple):
    """What decides an archive.

    Attributes:
      language: what its records say.
      pages: how many records have a page; they and what they link have the first QIDs.
      thin: how many others there are.
      parts: how many members.
      seed: of everything random.
      preset: of xz: 6 as the genuine archives; 1 makes the same records three times as fast, in a third more bytes.
    """

    language: str
    pages: int
    thin: int
    parts: int
    seed: int = 0
    preset: int = 6

    @classmethod
    def of(
        cls, language: str, megabytes: float = 0, thin: int = 0, part_megabytes: float = PART_MEGABYTES, seed: int = 0
    ) -> Making:
        """Pages that take so many megabytes of xz, in parts of such a size, and thin records."""
        pages = round(megabytes * 1e6 / PAGE_BYTES)
        parts = round(megabytes / part_megabytes) if pages else round(thin / PART_RECORDS)
        return cls(language, pages, thin, max(1, parts), seed)


def write_archive(folder: pathlib.Path, making: Making, workers: int = 0) -> pathlib.Path:
    """Writes `damuel_1.0_<language>.tar` with members part-NNNNN.xz, each made by one of some processes."""
    path = folder / f"damuel_1.0_{making.language}.tar"
    draft = path.with_suffix(".draft")
    parts = map_in_order(functools.partial(_part, making=making), range(making.parts), workers)
    with tarfile.open(draft, "w:") as tar:
        for number, data in enumerate(parts):
            member = tarfile.TarInfo(f"damuel_1.0_{making.language}/part-{number:05d}.xz")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return draft.rename(path)


def _part(number: int, making: Making) -> bytes:
    packer = lzma.LZMACompressor(preset=making.preset)
    return b"".join([*map(packer.compress, records(number, making)), packer.flush()])


def records(number: int, making: Making) -> Iterator[bytes]:
    """The lines of a part."""
    generator = np.random.default_rng((making.seed, number))
    pages, thin = (_share(count, number, making.parts) for count in (making.pages, making.thin))
    lengths = _lengths(len(pages))
    generator.shuffle(lengths)
    made = [_page(entity, length, making, generator) for entity, length in zip(pages, lengths, strict=True)]
    made = itertools.chain(made, (_thin(making.pages + entity, making.language) for entity in thin))
    return (json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in made)


def _share(count: int, number: int, parts: int) -> range:
    return range(count * number // parts, count * (number + 1) // parts)


def _lengths(count: int) -> list[int]:
    """Lognormal ones with a mean of `PAGE_TOKENS`: quantiles, so that few have that mean, too."""
    normal = statistics.NormalDist(np.log(PAGE_TOKENS) - SPREAD**2 / 2 + 0.02, SPREAD)
    return [int(np.clip(np.exp(normal.inv_cdf((n + 0.5) / count)), 15, LONGEST)) for n in range(count)]


@functools.cache
def words() -> tuple[list[str], list[tuple[str, str, str]], np.ndarray, np.ndarray]:
    """All words, those of more syllables rarer; of each lemma, tag and features; their lengths; their cumulated law."""
    generator, found = np.random.default_rng(0), dict.fromkeys([",", "."])
    while len(found) < WORDS:
        syllables = 1 + generator.binomial(4, min(0.85, 0.1 + 0.12 * np.log10(1 + len(found))))
        word = "".join(generator.choice(SYLLABLES, syllables)) + ("", "", "s", "n")[generator.integers(4)]
        found.setdefault(word.capitalize() if generator.random() < 0.12 else word)
    strings = list(found)
    lemmas = [word if n % 3 else word.rstrip("sn")[:-1] + "o" for n, word in enumerate(strings)]
    tags = generator.integers(0, len(TAGS), WORDS).tolist()
    features = generator.integers(0, len(FEATURES), WORDS).tolist()
    said = [(lemma, TAGS[tag], FEATURES[some]) for lemma, tag, some in zip(lemmas, tags, features, strict=True)]
    said[:2] = [(",", "PUNCT", "PunctType=Comm"), (".", "PUNCT", "PunctType=Peri")]
    return strings, said, np.array([len(word) for word in strings]), np.cumsum(1 / np.arange(3, WORDS + 3))


def title_of(entity: int) -> list[int]:
    """The words of an entity's title, one to three of them."""
    mixed = (entity + 1) * 0x9E3779B97F4A7C15 % 2**64
    return [2 + (mixed >> 16 * n) % (WORDS - 2) for n in range(1 + (mixed >> 60) % 3)]


def title(entity: int) -> str:
    """The title as it is written."""
    return _said(title_of(entity)).capitalize()


def qid(entity: int) -> str:
    """Its QID; neighbours have others than their neighbours'."""
    return f"Q{1 + entity * 0x9E3779B1 % 2**31}"


def _said(some: Sequence[int]) -> str:
    strings = words()[0]
    return " ".join(strings[word] for word in some)


def _thin(entity: int, language: str) -> dict[str, Any]:
    described = _said([word % 300 for word in title_of(entity % 2_000)])
    return {"qid": qid(entity), "lang": language, "label": title(entity), "description": described}


def _page(entity: int, length: int, making: Making, generator: np.random.Generator) -> dict[str, Any]:
    strings, said, lengths_w, _ = words()
    word_T, links = _text(length, making.pages, generator)
    gap_T = (word_T > 1).astype(np.int64)  # punctuation stands next to the word before it
    end_T = np.cumsum(lengths_w[word_T] + gap_T)
    start_T = (end_T - lengths_w[word_T]).tolist()
    text = "".join(f" {strings[word]}" if word > 1 else strings[word] for word in word_T.tolist())
    tokens = [
        {"start": start, "end": end, "lemma": said[word][0], "upostag": said[word][1], "feats": said[word][2]}
        for start, end, word in zip(start_T, end_T.tolist(), word_T.tolist(), strict=True)
    ]
    paragraphs = _stretches(len(tokens), PARAGRAPH + HEADING)
    headings = [{"start": each["start"], "end": min(each["start"] + HEADING, len(tokens)), "heading": 2}
                for each in paragraphs[1:]]  # fmt: skip
    name, others = title(entity), [title(entity * 7 + n + making.pages) for n in range(8)]
    return {
        "qid": qid(entity), "lang": making.language, "label": name, "aliases": others[: entity % 5],
        "description": _said(title_of(entity % 2_000)),
        "wiki": {
            "title": name, "text": text, "links": links,
            "removed_links": [{"title": each, "count": 1, "qid": qid(entity + n)} for n, each in enumerate(others[1:])],
            "removed_text_before": [], "tokens": tokens, "sentences": _stretches(len(tokens), SENTENCE),
            "paragraphs": sorted([*paragraphs, *headings], key=lambda each: each["start"]),
            "redirects": others[: entity % 4],
            "anchors": {each: n + 1 for n, each in enumerate([name, *others[: entity % 4]])},
        },
    }  # fmt: skip


def _stretches(tokens: int, length: int) -> list[dict[str, int]]:
    return [{"start": start, "end": min(start + length, tokens)} for start in range(0, tokens, length)]


def _text(length: int, entities: int, generator: np.random.Generator) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The words of a page, those of linked titles among them, and its links."""
    law = words()[3]
    word_T = np.searchsorted(law, generator.random(length) * law[-1])
    topic = np.searchsorted(law, generator.random(TOPIC_WORDS) * law[-1])
    from_topic = generator.random(length) < TOPIC_SHARE
    word_T[from_topic] = topic[generator.integers(0, TOPIC_WORDS, int(from_topic.sum()))]
    word_T[SENTENCE - 1 :: SENTENCE] = 1
    rates = np.array([MENTIONS, UNKNOWN, FOUND]) * length / 100
    mentions, unknown, found = np.floor(rates + generator.random(3)).astype(int).tolist()
    linked = (entities ** generator.random(mentions + unknown + found)).astype(int) - 1  # Zipf's law, about
    starts = generator.choice(max(1, length - 3), min(len(linked), max(1, length - 3)), replace=False).tolist()
    links = []
    for n, (start, entity) in enumerate(zip(starts, linked.tolist(), strict=False)):
        name = title_of(entity)
        link = {"start": start, "end": start + len(name), "origin": "wiki", "title": title(entity)}
        if n < mentions + unknown:
            word_T[start : start + len(name)] = name
        if n >= mentions + unknown:
            link["origin"] = OTHER_ORIGINS[n % len(OTHER_ORIGINS)]
        if not mentions <= n < mentions + unknown:
            link["qid"] = qid(entity)
        if n % 7 == 0 and link["origin"] != "wiki":
            link["flat"] = True
        links.append(link)
    return word_T, links


def write_vocabulary(folder: pathlib.Path) -> pathlib.Path:
    """Writes a tokenizer: a vocab.txt of the most frequent words and of pieces of all others."""
    strings, pieces = words()[0], [*SYLLABLES, *string.ascii_letters, *"éÉ.,"]
    whole = [*strings[:20_000], *pieces, *(piece.capitalize() for piece in SYLLABLES)]
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *whole, *(f"##{piece}" for piece in pieces)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(lines)) + "\n", "utf-8")
    return folder
