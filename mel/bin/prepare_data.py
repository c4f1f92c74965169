"""Reads DaMuEL archives, own entities and mentions, a Mewsli-9 tree; publishes everything that training needs.

Reads   --damuel: a folder of damuel_1.0_<language>.tar (or untarred folders), streamed as they are;
        --entities, --mentions, --evaluate_mentions: files of one's own, instead of archives or beside them;
        --mewsli: a tree <language>/{docs.tsv, mentions.tsv, text/}.
        With --download, the archives of --languages that are not in --damuel are fetched into it.
Writes  into --workdir: kb, alias_table, mentions/<split>, tokens/entities, tokens/mentions/<split>.
        Splits: train and, with --held_out, held_out from DaMuEL and --mentions; mewsli from the tree; own from
        --evaluate_mentions.
        With --detector also detector: which surface forms the pages and own documents link, of those that they hold,
        so that a bundle can find mentions in plain text. They are read once more for it. Those of --held_out say how
        far it can be trusted.

Own files are JSON lines (.jsonl) or CSV (.csv), compressed or not; README.md has their columns. An own entity
stands in place of the archives' one of the same id and language. Without mentions nothing can be trained, but
everything else does without: --round=-1 is the encoder before training in all binaries.

What is published already is skipped, so the same command goes on after a crash. What was made from
something else than what is given now (other flags, another part in an archive, another tree or
tokenizer, other redirects) is refused; with --redo it is made again, and only it and what was made
from it.

Examples:
  mel-prepare-data --workdir=run --damuel=damuel --mewsli=mewsli-9 --languages=ar,de,en \\
      --tokenizer=setu4993/LEALLA-base
  mel-prepare-data --workdir=own --entities=entities.csv --mentions=mentions.jsonl --tokenizer=encoder
"""

from __future__ import annotations

import dataclasses
import pathlib

from mel.artifacts import Workdir
from mel.bin.launch import launch
from mel.config import REQUIRED, flag, group
from mel.corpora.download import Download, fetch_archives
from mel.corpora.own import OwnConfig
from mel.corpora.redirects import Redirects
from mel.cost import record_cost
from mel.linking.page_counts import ensure_detector
from mel.shards.archives import Archives, ArchivesConfig
from mel.shards.beam import RunnerConfig
from mel.shards.blocks import WindowsConfig
from mel.shards.preparation import prepare_all
from mel.shards.summary import summary
from mel.types import MelError


@dataclasses.dataclass(frozen=True)
class Config:
    workdir: str = flag(REQUIRED, "Folder that everything is published into.")
    mewsli: str = flag("", "Mewsli-9 tree to evaluate on; none if empty.")
    detector: bool = flag(False, "Learn from the pages where the mentions of a plain text are.")
    redo: bool = flag(False, "Make again what was made from something else than what is given now.")
    archives: ArchivesConfig = group(ArchivesConfig)
    own: OwnConfig = group(OwnConfig)
    windows: WindowsConfig = group(WindowsConfig)
    download: Download = group(Download)
    cluster: RunnerConfig = group(RunnerConfig)


def main(config: Config) -> None:
    """Runs every stage that is not published yet, and prints what was kept and dropped."""
    work, download = Workdir(config.workdir), config.download
    redirects = Redirects.read(config.archives.redirects)
    if download.download:
        if not config.archives.damuel or not config.archives.languages:
            raise MelError("--download needs --damuel, the folder to fetch archives into, and --languages.")
        fetch_archives(pathlib.Path(config.archives.damuel), config.archives.languages, download.download_from)
    archives = Archives.find(config.archives, redirects, config.own)
    tree = pathlib.Path(config.mewsli) if config.mewsli else None
    with record_cost(work.path, "prepare data"):
        prepare_all(work, archives, config.windows, tree, config.redo, config.cluster.make_all)
        if config.detector:
            ensure_detector(work, archives, config.redo, config)
    print(summary(work))


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
