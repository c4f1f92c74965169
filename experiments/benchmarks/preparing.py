"""Runs `prepare_all` and says what each of its stages took: of this process, of its workers, of memory and of disk."""

from __future__ import annotations

import contextlib
import pathlib
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

READING, MERGING, ENTITIES, MENTIONS = STAGES = ("reading", "merging", "entity rows", "mentions")


def prepare_side(
    turn: Callable[[dict[str, Any]], None], damuel: str, workdir: str, tokenizer: str, settings: dict[str, Any]
) -> None:
    """A side of `harness.child` that prepares and tells what that took; `settings` are those of `ArchivesConfig`."""
    from mel.artifacts import Workdir, open_artifact
    from mel.corpora.redirects import Redirects
    from mel.shards.archives import Archives, ArchivesConfig
    from mel.shards.blocks import WindowsConfig
    from mel.shards.preparation import prepare_all

    work, archives = Workdir(workdir), Archives.find(ArchivesConfig(damuel=damuel, **settings), Redirects())
    clock = StageClock(work.units)
    start = clock.now()
    with clock.watching():
        prepare_all(work, archives, WindowsConfig(tokenizer=tokenizer), None, False, clock.make_all)
    seconds, parent, workers_cpu = (now - then for now, then in zip(clock.now(), start, strict=True))
    kb, train = (open_artifact(*each) for each in ((work.kb, "kb"), (work.mention_tokens("train"), "tokens")))
    turn({
        "stages": clock.stages, "seconds": seconds, "parent": parent, "workers": workers_cpu,
        "megabytes": sum(part.size for _, part in archives.parts) / 1e6,
        "rows": kb.facts["rows"], "mentions": train.facts["rows"], "units_mb": clock.units_mb,
        "disk_mb": {path.name: size_mb(path) for path in (work.kb, work.alias_table, work.path / "mentions",
                                                          work.path / "tokens")},
    })  # fmt: skip


class StageClock:
    """What the stages take while `watching`: [seconds, CPU seconds of this process, of its workers] by name."""

    def __init__(self, units: pathlib.Path):
        self.stages: dict[str, list[float]] = {}
        self.units_mb = 0.0
        self._units = units

    @staticmethod
    def now() -> tuple[float, float, float]:
        """By the clock, of this process, and of the workers that have ended."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.perf_counter(), time.process_time(), ended.ru_utime + ended.ru_stime

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Measures whatever publishes meanwhile."""
        from mel.shards import prepare

        named = {"publish_kb": MERGING, "publish_entity_rows": ENTITIES, "publish_mentions": MENTIONS}
        before = {name: getattr(prepare, name) for name in named}
        for name, stage in named.items():
            setattr(prepare, name, self._measured(before[name], stage))
        try:
            yield
        finally:
            for name, function in before.items():
                setattr(prepare, name, function)

    def make_all(self, reading: Any, items: Sequence[Any]) -> Iterator[None]:
        """Makes units in processes here, as is done where nobody says otherwise."""
        from mel.shards.units import make_here

        with self._stage(READING):
            yield from make_here(reading, items)
        self.units_mb = size_mb(self._units)

    def _measured(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            with self._stage(stage):
                return function(*arguments, **named)

        return run

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """A stage in another is not counted in that."""
        start, inside = self.now(), dict(self.stages)
        yield
        others = [took for other, took in self.stages.items() if other not in inside]
        took = [now - then for now, then in zip(self.now(), start, strict=True)]
        self.stages[name] = [each - sum(other[n] for other in others) for n, each in enumerate(took)]


def size_mb(folder: pathlib.Path) -> float:
    """What stands in a folder, in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
