"""Reads DaMuEL archives and a Mewsli-9 tree; publishes everything that training needs.

Reads   --damuel: a folder of damuel_1.0_<language>.tar (or untarred folders), streamed as they are;
        --mewsli: a tree <language>/{docs.tsv, mentions.tsv, text/}.
        With --download, the archives of --languages that are not in --damuel are fetched into it.
Writes  into --workdir: kb, alias_table, mentions/<split>, tokens/entities, tokens/mentions/<split>.
        Splits: train and, with --held_out, held_out from DaMuEL; mewsli from the tree.

What is published already is skipped, so the same command goes on after a crash.

Example:
  mel-prepare-data --workdir=run --damuel=damuel --mewsli=mewsli-9 --languages=ar,de,en \\
      --tokenizer=setu4993/LEALLA-base
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections import Counter
from collections.abc import Iterator

from absl import logging

from mel.artifacts import Artifact, Workdir, discard, exists, open_artifact, publish, require_settings
from mel.bin.launch import launch
from mel.config import REQUIRED, flag
from mel.corpora import mewsli
from mel.corpora.download import Download, fetch_archives
from mel.corpora.malformed import MAX_SHARE, Malformed
from mel.corpora.names import check_language
from mel.corpora.redirects import Redirects
from mel.cost import record_cost
from mel.locks import claim
from mel.shards import prepare
from mel.text.foreign import read_tokenizer
from mel.types import MelError


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag(REQUIRED, "Folder that everything is published into.")
    damuel: str = flag(REQUIRED, "Folder that holds the DaMuEL archives.")
    mewsli: str = flag("", "Mewsli-9 tree to evaluate on; none if empty.")
    languages: tuple[str, ...] = flag(
        REQUIRED, "Languages to read, in order of preference for titles and descriptions."
    )
    tokenizer: str = flag(REQUIRED, "Local folder or hub id of a BERT WordPiece tokenizer.")
    mention_tokens: int = flag(64, "Most tokens of a mention's window.")
    entity_tokens: int = flag(64, "Most tokens of an entity's title and description.")
    title_in_window: bool = flag(True, "Put the title of the page, where known, in front of a mention's window.")
    held_out: float = flag(0.0, "Share of DaMuEL pages, by a hash of the QID, whose mentions are held out to tune on.")
    redirects: str = flag("", "JSON file {old QID: new QID}, followed to the end for entities and golds.")
    max_malformed: int = flag(1000, "Most malformed records to skip before stopping.")
    max_malformed_share: float = flag(MAX_SHARE, "The same as a share of what each language or file holds.")
    workers: int = flag(0, "Processes that read archives; 0 for one a core.")
    limit: int = flag(0, "Read only so many parts of each archive; 0 for all.")
    download: Download = dataclasses.field(default_factory=Download)


def main(config: Config) -> None:
    """Runs every stage that is not published yet, and prints what was kept and dropped."""
    work = Workdir(config.workdir)
    archives = _archives(config)
    mewsli_languages = _mewsli_languages(config)
    with record_cost(work.path, "prepare data"):
        _publish_all(config, work, archives, mewsli_languages)
    print(summary(work))


def _publish_all(config: Config, work: Workdir, archives: prepare.Archives, mewsli_languages: list[str]) -> None:
    tokenizer = _publish_tokenizer(config, work)
    kb = _publish_kb(config, work, archives)
    _publish_entity_rows(config, work, kb, tokenizer)
    windows = prepare.Windows(tokenizer.path, config.mention_tokens, config.title_in_window)

    def publish_split(split: str, blocks) -> None:
        settings = _settings(config, "languages", "limit", "held_out", "mention_tokens", "title_in_window")
        paths = work.mentions(split), work.mention_tokens(split)
        with _missing(paths) as missing:
            if missing:
                prepare.publish_mentions(*paths, blocks, kb, tokenizer, windows, settings)
        require_settings(open_artifact(paths[1], "tokens", {"kb": kb, "tokenizer": tokenizer}, ()), settings)

    publish_split("train", prepare.damuel_mentions(archives, "train", windows))
    if config.held_out:
        publish_split("held_out", prepare.damuel_mentions(archives, "held_out", windows))
    if mewsli_languages:
        malformed = Malformed(config.max_malformed, config.max_malformed_share)
        blocks = prepare.mewsli_mentions(
            pathlib.Path(config.mewsli), mewsli_languages, windows, malformed, redirects=archives.redirects
        )
        publish_split("mewsli", blocks)


def summary(work: Workdir) -> str:
    """A table of what each language gave, and of what was dropped and why."""
    kb = open_artifact(work.kb, "kb").facts
    splits = [name for name in ("train", "held_out", "mewsli") if exists(work.mentions(name))]
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
    lines.append(f"| all | {totals} | | {kb['malformed']} malformed records, {kb['redirected']} redirected QIDs |")
    return "\n".join(lines)


def _archives(config: Config) -> prepare.Archives:
    if not 0 <= config.held_out < 1:
        raise MelError(f"--held_out={config.held_out} is not a share: 0 <= held_out < 1.")
    if not 0 <= config.max_malformed_share <= 1:
        raise MelError(f"--max_malformed_share={config.max_malformed_share:g} is not a share: give 0 to 1.")
    for language in config.languages:
        check_language(language)
    redirects = Redirects.read(config.redirects)
    if config.download.download:
        fetch_archives(pathlib.Path(config.damuel), config.languages, config.download.download_from)
    return prepare.Archives.find(
        pathlib.Path(config.damuel), config.languages, config.limit, redirects=redirects,
        held_out=config.held_out, max_malformed=config.max_malformed, workers=config.workers,
        max_malformed_share=config.max_malformed_share,
    )  # fmt: skip


def _mewsli_languages(config: Config) -> list[str]:
    if not config.mewsli:
        return []
    there = mewsli.list_languages(config.mewsli)
    languages = [language for language in config.languages if language in there]
    if not languages:
        raise MelError(
            f"--mewsli={config.mewsli} has {', '.join(there)}, none of --languages={','.join(config.languages)}."
        )
    if rest := sorted(set(there) - set(languages)):
        logging.warning("--mewsli=%s also has %s, not among --languages: not prepared.", config.mewsli, ", ".join(rest))
    return languages


def _publish_tokenizer(config: Config, work: Workdir) -> Artifact:
    tokenizer = read_tokenizer(config.tokenizer)
    if not exists(work.tokenizer):
        with publish(work.tokenizer, "tokenizer", config) as draft:
            tokenizer.save(draft.path)
            draft.facts |= tokenizer.facts()
    artifact = open_artifact(work.tokenizer, "tokenizer")
    if artifact.facts != tokenizer.facts():
        raise MelError(
            f"{work.tokenizer} is another tokenizer than --tokenizer={config.tokenizer}: use another --workdir."
        )
    return artifact


def _publish_kb(config: Config, work: Workdir, archives: prepare.Archives) -> Artifact:
    settings = _settings(config, "languages", "limit", "held_out")
    paths = work.kb, work.alias_table
    with _missing(paths) as missing:
        if missing:
            prepare.publish_kb(*paths, archives, config.languages, settings)
    kb = open_artifact(work.kb, "kb")
    require_settings(kb, settings)
    return kb


def _publish_entity_rows(config: Config, work: Workdir, kb: Artifact, tokenizer: Artifact) -> None:
    if not exists(work.entity_tokens):
        prepare.publish_entity_rows(work.entity_tokens, kb, tokenizer, config.entity_tokens)
    tokens = open_artifact(work.entity_tokens, "tokens", {"kb": kb, "tokenizer": tokenizer})
    require_settings(tokens, _settings(config, "entity_tokens"))


def _settings(config: Config, *names: str) -> dict:
    return {name: getattr(config, name) for name in names}


@contextlib.contextmanager
def _missing(paths: tuple[pathlib.Path, ...]) -> Iterator[bool]:
    """Whether artefacts that are published together have to be made; nobody else does meanwhile.

    A crash may have left one of them, which is deleted.
    """
    with contextlib.ExitStack() as claims:
        if not all(map(exists, paths)):
            for path in paths:
                claims.enter_context(claim(path))
        missing = not all(map(exists, paths))
        for path in paths if missing else ():
            discard(path)
        yield missing


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
