"""A tiny multilingual world: made-up pages in four scripts, as real DaMuEL archives and a Mewsli-9 tree.

Most names mean two to four things of different topics, and only the words around a mention tell
which. A third of the inflected forms of names occur in test pages only.

    python -m tests.tiny_world --output=DIR [--seed=0]

writes DIR/damuel/damuel_1.0_<language>.tar, DIR/mewsli/<language>/ and DIR/tokenizer/vocab.txt.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import hashlib
import io
import json
import lzma
import os
import pathlib
import random
import re
import tarfile
from collections import Counter
from typing import Any, NamedTuple

from tests import tiny_world_words as table
from tests.tiny_world_words import LANGUAGES

SENSE_WEIGHTS = (1.0, 0.3, 0.18, 0.1)  # of a name's senses, the most frequent first
RECORD_SHARE, PAGE_SHARE = 0.97, 0.85  # of things with a record in a language; of those, with a page
TRAIN_PARAGRAPHS, TEST_PARAGRAPHS, SENTENCES = 8, 3, 3
TEST_PAGES = 28  # in each language
PAGE_TOPIC, PARAGRAPH_TOPIC = 0.4, 0.85  # of paragraphs about the page's topic; of sentences about the paragraph's
FILLER, INFLECTED, EMOJI = 0.12, 0.3, 0.05  # of sentences
PARTS = {
    "en": (".xz", ".xz", ".xz", ".xz"),
    "ru": (".bz2", ".bz2", ".bz2"),
    "ar": ("", "", ""),
    "ja": (".xz", ".bz2", ""),
}
COMPRESS = {".xz": lzma.compress, ".bz2": bz2.compress, "": bytes}
WORD_COUNT = 4  # occurrences that make a word a piece of the vocabulary


class Thing(NamedTuple):
    """Something with a QID. `sense` is its place among what its name means, 0 the most frequent."""

    qid: str
    topic: str
    names: dict[str, str]
    sense: int
    records: frozenset[str]
    pages: frozenset[str]

    def title(self, language: str) -> str:
        suffix = f" ({table.TYPES[self.topic][language]})" if self.sense else ""
        return self.names[language] + suffix


class Word(NamedTuple):
    """A token, and the thing it mentions."""

    text: str
    lemma: str
    upostag: str
    feats: str = ""
    thing: Thing | None = None


class Paragraph(NamedTuple):
    sentences: list[list[Word]]
    heading: int = 0


class Link(NamedTuple):
    """Tokens `start` to `end` (exclusive) mention a thing."""

    start: int
    end: int
    thing: Thing


def generate(output: str | os.PathLike, seed: int = 0) -> None:
    """Writes the world into the folder `output`; the same seed gives the same bytes."""
    output = pathlib.Path(output)
    rng = random.Random(seed)
    things = make_things(rng)
    author = Author(rng, things)
    frequency: Counter[str] = Counter()
    words: Counter[str] = Counter()
    texts = []
    for language in LANGUAGES:
        records = make_records(rng, author, language)
        write_archive(output / "damuel" / f"damuel_1.0_{language}.tar", language, records)
        pages = [record["wiki"] for record in records if "wiki" in record]
        frequency.update(link.get("qid") for page in pages for link in page["links"] if link["origin"] == "wiki")
        words.update(page["text"][token["start"] : token["end"]] for page in pages for token in page["tokens"])
        texts.append(json.dumps(records, ensure_ascii=False))
    for language in LANGUAGES:
        texts += write_test_pages(output / "mewsli" / language, language, author, frequency)
    write_vocabulary(output / "tokenizer" / "vocab.txt", things, words, "".join(texts))


def make_things(rng: random.Random) -> list[Thing]:
    """All things; those outside the knowledge base have no records."""
    qids = iter(rng.sample(range(1000, 100_000), 1000))

    def make(topic: str, names: dict[str, str], sense: int = 0) -> Thing:
        home = rng.choice(LANGUAGES)
        records = [language for language in LANGUAGES if language == home or rng.random() < RECORD_SHARE]
        pages = [language for language in records if language == home or rng.random() < PAGE_SHARE]
        return Thing(f"Q{next(qids)}", topic, names, sense, frozenset(records), frozenset(pages))

    things = [
        make(topic, names, sense)
        for names in table.AMBIGUOUS
        for sense, topic in enumerate(rng.sample(list(table.TYPES), rng.choice((2, 3, 3, 4))))
    ]
    things += [make(topic, names) for topic, names in table.PLAIN]
    outside = [make(topic, names) for topic, names in table.OUTSIDE]
    return things + [thing._replace(records=frozenset(), pages=frozenset()) for thing in outside]


class Author:
    """Writes sentences about things."""

    def __init__(self, rng: random.Random, things: list[Thing]):
        self.rng = rng
        self.things = things

    def draw(self, topic: str | None = None) -> Thing:
        """A thing, of the topic if one is given, the more frequent the likelier."""
        things = [thing for thing in self.things if topic in (None, thing.topic)]
        return self.rng.choices(things, [SENSE_WEIGHTS[thing.sense] for thing in things])[0]

    def lead(self, thing: Thing, language: str) -> Paragraph:
        """What the thing is, in two sentences."""
        name = name_words(thing.names[language], None)
        return Paragraph(
            [self._fill(text[language], language, thing.topic, name) for text in (table.LEAD, table.SECOND)]
        )

    def paragraph(self, language: str, topic: str | None, test: bool) -> Paragraph:
        """Sentences that mention things, most of them of the topic."""
        topic = topic or self.draw().topic
        topics = [topic if self.rng.random() < PARAGRAPH_TOPIC else self.draw().topic for _ in range(SENTENCES)]
        return Paragraph([self._sentence(language, topic, test) for topic in topics])

    def _sentence(self, language: str, topic: str, test: bool) -> list[Word]:
        thing = self.draw(topic)
        templates, name = table.MENTIONING, name_words(thing.names[language], thing)
        inflected = table.inflect(thing.names[language], language)
        if self.rng.random() < FILLER:
            templates = table.FILLER
        elif inflected and (test or not table.held_out(inflected)) and self.rng.random() < INFLECTED:
            templates, name = table.MENTIONING_INFLECTED, [name[0]._replace(text=inflected, feats="Case=Gen")]
        sentence = self._fill(self.rng.choice(templates[language]), language, topic, name)
        if self.rng.random() < EMOJI:
            sentence.append(plain_word(self.rng.choice(table.EMOJI)))
        return sentence

    def _fill(self, template: str, language: str, topic: str, name: list[Word]) -> list[Word]:
        a, b, c = self.rng.sample(table.WORDS[topic][language], 3)
        other = self.rng.choice([other for other in table.TYPES if other != topic])
        nouns = {"{a}": a, "{b}": b, "{c}": c, "{t}": table.TYPES[topic][language]}
        nouns["{d}"] = self.rng.choice(table.WORDS[other][language])
        slots = {slot: [Word(noun, noun, "NOUN", "Number=Sing")] for slot, noun in nouns.items()} | {"{n}": name}
        return [word for token in template.split() for word in slots.get(token) or [plain_word(token)]]


def plain_word(token: str) -> Word:
    return Word(token, token.lower(), "X" if token[0].isalnum() else "PUNCT")


def name_words(name: str, thing: Thing | None) -> list[Word]:
    return [Word(token, token, "PROPN", "Number=Sing", thing) for token in name.split()]


def compose(paragraphs: list[Paragraph], language: str) -> tuple[dict[str, Any], list[Link]]:
    """The page as DaMuEL writes it, without links, and the links."""
    text, tokens, sentences, spans, links = "", [], [], [], []
    for paragraph in paragraphs:
        text += "\n\n" if text else ""
        first_token = len(tokens)
        for sentence in paragraph.sentences:
            sentences.append({"start": len(tokens), "end": len(tokens) + len(sentence)})
            for word in sentence:
                text += table.gap(text, word.text, language)
                if word.thing and links and links[-1].thing is word.thing and links[-1].end == len(tokens):
                    links[-1] = links[-1]._replace(end=len(tokens) + 1)
                elif word.thing:
                    links.append(Link(len(tokens), len(tokens) + 1, word.thing))
                offsets = {"start": len(text), "end": len(text) + len(word.text)}
                tokens.append(offsets | {"lemma": word.lemma, "upostag": word.upostag, "feats": word.feats})
                text += word.text
        heading = {"heading": paragraph.heading} if paragraph.heading else {}
        spans.append({"start": first_token, "end": len(tokens)} | heading)
    return {"text": text, "tokens": tokens, "sentences": sentences, "paragraphs": spans}, links


def surface_form(page: dict[str, Any], start: int, end: int) -> str:
    return page["text"][page["tokens"][start]["start"] : page["tokens"][end - 1]["end"]]


def make_records(rng: random.Random, author: Author, language: str) -> list[dict[str, Any]]:
    """The DaMuEL records of a language, in no order; some things have no page in it."""
    things = [thing for thing in author.things if language in thing.records]
    anchors: dict[str, Counter[str]] = {thing.qid: Counter() for thing in author.things}
    records = []
    for thing in things:
        name, kind = thing.names[language], table.TYPES[thing.topic][language]
        words = ", ".join(rng.sample(table.WORDS[thing.topic][language], 3))
        record = {"qid": thing.qid, "lang": language, "label": name, "description": f"{kind} ({words})"}
        record["aliases"] = [kind + table.SPACE[language] + name]
        if language in thing.pages:
            record["wiki"] = make_page(rng, author, thing, language, anchors)
        records.append(record)
    for record in records:
        if "wiki" in record:
            record["wiki"]["anchors"] = dict(anchors[record["qid"]])
    rng.shuffle(records)
    return records


def make_page(
    rng: random.Random, author: Author, thing: Thing, language: str, anchors: dict[str, Counter[str]]
) -> dict[str, Any]:
    """The `wiki` of a record; counts into `anchors` how its links call things."""
    topics = [thing.topic if rng.random() < PAGE_TOPIC else None for _ in range(TRAIN_PARAGRAPHS)]
    history = Paragraph([[plain_word(table.HEADINGS[language])]], heading=2)
    body = [author.paragraph(language, topic, test=False) for topic in topics]
    page, found = compose([author.lead(thing, language), history, *body], language)
    links = []
    for start, end, linked in found:
        anchors[linked.qid][surface_form(page, start, end)] += 1
        link = {"start": start, "end": end, "origin": "wiki", "title": linked.title(language)}
        links.append(link | {"qid": linked.qid} if linked.records else link)
    name = thing.names[language]
    own = {"start": 0, "end": len(name.split()), "origin": "title", "flat": True}
    links.append({"qid": thing.qid, "title": thing.title(language)} | own)
    rng.shuffle(links)
    removed = rng.choice([other for other in author.things if other.records])
    return {"title": thing.title(language)} | page | {
        "links": links,
        "redirects": [name + table.SPACE[language] + table.TYPES[thing.topic][language]],
        "removed_links": [{"title": removed.title(language), "count": 1, "qid": removed.qid}],
        "removed_text_before": [page["paragraphs"][1]["start"]],
    }  # fmt: skip


def write_archive(path: pathlib.Path, language: str, records: list[dict[str, Any]]) -> None:
    """An uncompressed tar of JSON-line parts, each compressed in its own way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffixes = PARTS[language]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, suffix in enumerate(suffixes):
            lines = "".join(
                json.dumps(record, ensure_ascii=False) + "\n" for record in records[number :: len(suffixes)]
            )
            content = COMPRESS[suffix](lines.encode())
            member = tarfile.TarInfo(f"{path.stem}/part-{number:05}{suffix}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_test_pages(folder: pathlib.Path, language: str, author: Author, frequency: Counter[str]) -> list[str]:
    """One language of a Mewsli-9 tree; returns the texts."""
    (folder / "text").mkdir(parents=True, exist_ok=True)
    site = f"http://{language}.example.org/wiki/"
    docs = [("docid", "title", "curid", "revid", "url", "text_md5")]
    mentions = [("docid", "position", "length", "mention", "url", "lang", "qid", "qid_in_refs", "freq_bin")]
    texts = []
    for number in range(1, TEST_PAGES + 1):
        docid = f"{language}-{number}"
        headline = Paragraph([[plain_word(token) for token in f"{table.HEADLINES[language]} {number}".split()]])
        body = [author.paragraph(language, None, test=True) for _ in range(TEST_PARAGRAPHS)]
        page, links = compose([headline, *body], language)
        texts.append(page["text"])
        (folder / "text" / docid).write_bytes(page["text"].encode())
        md5 = hashlib.md5(page["text"].encode()).hexdigest()
        title = page["text"].split("\n")[0]
        docs.append((docid, title, str(number), "0", site + docid, md5))
        for start, end, thing in links:
            form = surface_form(page, start, end)
            count = frequency[thing.qid]
            mentions.append((
                docid, page["tokens"][start]["start"], len(form), form, site + thing.title(language).replace(" ", "_"),
                language, thing.qid, str(bool(thing.records)), min(len(str(count)), 5) if count else 0,
            ))  # fmt: skip
    for name, rows in (("docs.tsv", docs), ("mentions.tsv", mentions)):
        with open(folder / name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE).writerows(rows)
    return texts


def write_vocabulary(path: pathlib.Path, things: list[Thing], words: Counter[str], text: str) -> None:
    """A cased WordPiece vocabulary: all characters, frequent words, and what a name's forms share."""
    names = {(name, language) for thing in things for language, name in thing.names.items()}
    forms = {form for name, language in names for form in (table.inflect(name, language), *name.split()) if form}
    stems = {os.path.commonprefix([name, table.inflect(name, language) or name]) for name, language in names}
    stems = {piece for stem in stems for piece in stem.split()}
    frequent = {word for word, count in words.items() if count >= WORD_COUNT} - forms
    # WordPiece sees each Chinese character as a word, and Japanese particles glued to what they follow.
    frequent |= {piece for word in frequent for piece in re.findall(r"[一-鿿]|[^一-鿿]+", word)}
    glued = {piece for piece in frequent | stems if re.search("[ぁ-ヿ]", piece)}
    characters = {character for character in text if not character.isspace()}
    pieces = characters | stems | frequent | {"##" + piece for piece in characters | glued}
    path.parent.mkdir(parents=True, exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    path.write_text("".join(piece + "\n" for piece in special + sorted(pieces)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generate(arguments.output, arguments.seed)


if __name__ == "__main__":
    main()
