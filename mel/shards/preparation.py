"""Preparation in stages: what each is made from, whether that has changed, and what is made again if it has.

A stage publishes artefacts that belong together. They are settled by the flags, by input from outside
(archives, trees, redirects, a tokenizer) and by the artefacts of earlier stages; all of this is
compared with what is there before anything is made or skipped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from absl import logging

from mel.artifacts import Artifact, Workdir, discard, exists, open_artifact, publish
from mel.corpora import mentions, mewsli
from mel.corpora.own import file_names, sources_of
from mel.corpora.sources import FILE, Sources, first_change, read_sources
from mel.locks import claim
from mel.shards import prepare
from mel.shards.archives import Archives
from mel.shards.blocks import Split, Windows, WindowsConfig, mewsli_mentions
from mel.shards.own import evaluation_mentions, training_mentions
from mel.shards.units import KB, MakeAll, Reading, Units, clear_units
from mel.text.tokenizer import Tokenizer
from mel.types import MelError

OF_ARCHIVES = ("languages", "limit", "held_out", "kb_rows", "kb_rows_by")
ONCE = {"kb_rows": "all"}  # what artefacts were made with that do not state a setting
INPUTS = {"kb": "kb", "tokenizer": "tokenizer"}  # the names under which artefacts record these stages, and their kinds


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is published together.

    Attributes:
      paths: the artefacts by path, with their kinds; the first one states the settings.
      settings: what decides them, by flag.
      make: publishes all of them; None for what is not asked for, and stays as long as it fits.
      sources_now: of what they were made from outside, what is there; None if they read no files.
      needs: the names of earlier stages.
    """

    paths: Mapping[pathlib.Path, str]
    settings: Mapping[str, Any]
    make: Callable[[], None] | None
    sources_now: Callable[[Sources], Sources] | None = None
    needs: tuple[str, ...] = ()

    @property
    def is_published(self) -> bool:
        return all(map(exists, self.paths))


def prepare_all(
    work: Workdir, archives: Archives, windows: WindowsConfig, tree: pathlib.Path | None, redo: bool,
    make_all: MakeAll | None = None,
) -> None:  # fmt: skip
    """Publishes what is not published yet.

    Args:
      work: where.
      archives: the pages and own files for the KB, for training and for evaluation.
      windows: how rows are cut.
      tree: a Mewsli-9 tree to evaluate on.
      redo: whether what was made from something else is made again; otherwise it is refused.
      make_all: makes units elsewhere than in processes here.

    Raises:
      MelError: what is published was made from something else, or the input cannot be used.
    """
    stages = _stages(work, archives, windows, tree, make_all)
    _settle(work, stages, redo)
    for stage in stages.values():
        if stage.make is None:
            continue
        with _missing(stage) as missing:
            if missing:
                stage.make()
        if missing:
            _settle(work, stages, redo)  # what stood there before may have been made from something else
    clear_units(work)


def _stages(
    work: Workdir, archives: Archives, windows: WindowsConfig, tree: pathlib.Path | None, make_all: MakeAll | None
) -> dict[str, Stage]:
    tokenizer = windows.read_tokenizer()
    of_kb = {name: getattr(archives.config, name) for name in OF_ARCHIVES} | {"redirects": archives.redirects.digest}
    of_kb |= archives.own.settings
    parts = archives.sources_now()
    units = Units(lambda: Reading.of(work, archives, _windows(work, windows), _unread(stages)), make_all)
    stages = {
        "tokenizer": Stage(
            {work.tokenizer: "tokenizer"}, tokenizer.facts(), lambda: _publish_tokenizer(work, tokenizer, windows)
        ),
        "kb": Stage(
            {work.kb: "kb", work.alias_table: "alias table"}, of_kb,
            lambda: prepare.publish_kb(work.kb, work.alias_table, archives, of_kb, units), lambda _: parts,
        ),
        "entities": Stage(
            {work.entity_tokens: "tokens"}, {"entity_tokens": windows.entity_tokens},
            lambda: prepare.publish_entity_rows(
                work.entity_tokens, *_opened(work), windows.entity_tokens, archives.config.workers
            ),
            needs=tuple(INPUTS),
        ),
    }  # fmt: skip
    for split in get_args(Split):
        wanted = split == "train" or archives.config.held_out > 0
        blocks = functools.partial(_training_blocks, work, archives, units, split)
        stages[split] = _split(work, split, windows, {}, blocks if wanted else None, None, not archives.have_mentions)
    stages["mewsli"] = _mewsli_split(work, archives, windows, tree)
    stages["own"] = _own_split(work, archives, windows)
    return stages


def _mewsli_split(work: Workdir, archives: Archives, windows: WindowsConfig, tree: pathlib.Path | None) -> Stage:
    if tree is None:
        return _split(work, "mewsli", windows, {}, None)
    languages, sources = _tree_languages(tree, archives.config.languages), {}

    def blocks(cut: Windows) -> Iterator:
        malformed = archives.config.malformed()
        read = functools.partial(mewsli_mentions, redirects=archives.redirects, workers=archives.config.workers)
        return read(tree, languages, cut, malformed, sources=sources)

    def sources_now(made_from: Sources) -> Sources:
        texts = [name for name in made_from if name.split("/")[1] == "text"]
        return mewsli.sources_now(tree, languages, texts)

    stage = _split(work, "mewsli", windows, {"languages": languages}, blocks, sources)
    return dataclasses.replace(stage, sources_now=sources_now)


def _own_split(work: Workdir, archives: Archives, windows: WindowsConfig) -> Stage:
    files = archives.own.evaluate_mentions
    if not files:
        return _split(work, "own", windows, {}, None)
    sources, blocks = sources_of("evaluate_mentions", files), functools.partial(evaluation_mentions, archives)
    stage = _split(work, "own", windows, {"evaluate_mentions": file_names(files)}, blocks, sources)
    return dataclasses.replace(stage, sources_now=lambda _: sources)


def _split(
    work: Workdir, split: str, windows: WindowsConfig, settings: dict[str, Any],
    blocks: Callable[[Windows], Iterator] | None, sources: Sources | None = None, may_be_empty: bool = False,
) -> Stage:  # fmt: skip
    settings = settings | {"mention_tokens": windows.mention_tokens, "title_in_window": windows.title_in_window}
    lines, rows = work.mentions(split), work.mention_tokens(split)
    paths = {lines: mentions.KIND, rows: "tokens"}
    if blocks is None:
        return Stage(paths, {}, None, needs=tuple(INPUTS))

    def make() -> None:
        cut = _windows(work, windows)
        kb, tokenizer = _opened(work)
        prepare.publish_mentions(lines, rows, blocks(cut), kb, tokenizer, cut, settings, sources, may_be_empty)

    return Stage(paths, settings, make, needs=tuple(INPUTS))


def _training_blocks(work: Workdir, archives: Archives, units: Units, split: Split, windows: Windows) -> Iterator:
    return training_mentions(archives, units, split, windows, read_sources(work.kb))


def _windows(work: Workdir, windows: WindowsConfig) -> Windows:
    return Windows(work.tokenizer, windows.mention_tokens, windows.title_in_window)


def _unread(stages: Mapping[str, Stage]) -> list[str]:
    """What is still to be made of what the parts say."""
    of_parts = (KB, *get_args(Split))
    return [name for name in of_parts if stages[name].make is not None and not stages[name].is_published]


def _publish_tokenizer(work: Workdir, tokenizer: Tokenizer, windows: WindowsConfig) -> None:
    with publish(work.tokenizer, "tokenizer", windows) as draft:
        tokenizer.save(draft.path)
        draft.facts |= tokenizer.facts()


def _opened(work: Workdir) -> tuple[Artifact, Artifact]:
    return open_artifact(work.kb, "kb"), open_artifact(work.tokenizer, "tokenizer")


def _tree_languages(tree: pathlib.Path, wanted: Sequence[str]) -> list[str]:
    """The languages of a tree among those wanted, in their order; all of them if none is named.

    Raises:
      MelError: there are none.
    """
    there = mewsli.list_languages(tree)
    languages = [language for language in wanted or there if language in there]
    if not languages:
        raise MelError(f"--mewsli={tree} has {', '.join(there)}, none of --languages={','.join(wanted)}.")
    if rest := sorted(set(there) - set(languages)):
        logging.warning("--mewsli=%s also has %s, not among --languages: not prepared.", tree, ", ".join(rest))
    return languages


def _settle(work: Workdir, stages: Mapping[str, Stage], redo: bool) -> None:
    """Deletes what was made from something else than what is there now, and all that was made from it.

    Raises:
      MelError: there is some, and `redo` is not given.
    """
    stale: dict[str, str] = {}
    for name, stage in stages.items():
        if stage.is_published:
            remade = next((f"{need} is made again" for need in stage.needs if need in stale), "")
            if why := _change(work, stage) or remade:
                stale[name] = why
    paths = [path for name in stale for path in stages[name].paths]
    if stale and not redo:
        names = ", ".join(_name(work, path) for path in paths)
        raise MelError(
            f"{next(iter(stale.values()))}: use another --workdir, or give --redo, which deletes {names} in "
            f"{work.path} and makes again what is asked for."
        )
    for name, why in stale.items():
        end = "made again" if stages[name].make else "deleted, and not made again, for it was not asked for"
        logging.warning("%s: %s will be %s.", why, ", ".join(_name(work, path) for path in stages[name].paths), end)
    if set(stale) - {"held_out", "mewsli", "own"} and (work.path / "rounds").is_dir():
        logging.warning("The rounds in %s were made from what is made again: delete them.", work.path / "rounds")
    for path in paths:
        discard(path)


def _change(work: Workdir, stage: Stage) -> str:
    """Why what is published would now be made from something else, as a sentence without its end; "" if it is not."""
    opened = [open_artifact(path, kind, reads=()) for path, kind in stage.paths.items()]
    name = _name(work, opened[0].path)
    if stage.make and (change := _setting_change(name, opened[0], stage.settings)):
        return change
    if stage.make and stage.sources_now:
        if FILE not in opened[0].files:
            return f"{name} does not say what it was made from"
        made_from = read_sources(opened[0].path)
        if change := first_change(made_from, stage.sources_now(made_from), name):
            return change
    for artifact in opened:
        for need, kind in INPUTS.items():
            path = getattr(work, need)
            if need in artifact.inputs and exists(path):
                if open_artifact(path, kind, reads=()).digest != artifact.inputs[need]:
                    return f"{_name(work, artifact.path)} was not made from the {need} that is there"
    return ""


def _setting_change(name: str, artifact: Artifact, settings: Mapping[str, Any]) -> str:
    if artifact.kind == "tokenizer":
        return "" if artifact.facts == settings else f"{name} is another tokenizer than the one of --tokenizer"
    made_with = artifact.facts["settings"]
    for flag, wanted in settings.items():
        wanted = list(wanted) if isinstance(wanted, tuple) else wanted
        stated = made_with.get(flag, ONCE.get(flag))
        if stated != wanted:
            if flag == "redirects":
                return f"{name} was made with other --redirects"
            return f"{name} was made with --{flag}={_shown(stated)}, not {_shown(wanted)}"
    return ""


def _shown(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else "" if value is None else str(value)


def _name(work: Workdir, path: pathlib.Path) -> str:
    return path.relative_to(work.path).as_posix()


@contextlib.contextmanager
def _missing(stage: Stage) -> Iterator[bool]:
    """Whether artefacts that are published together have to be made; nobody else does meanwhile.

    A crash may have left one of them, which is deleted.
    """
    with contextlib.ExitStack() as claims:
        if not stage.is_published:
            for path in stage.paths:
                claims.enter_context(claim(path))
        missing = not stage.is_published
        for path in stage.paths if missing else ():
            discard(path)
        yield missing
