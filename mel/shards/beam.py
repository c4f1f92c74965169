"""Makes units on Apache Beam, where one machine is not enough: on Flink, Spark, Dataflow, or on this machine to try.

The runner's workers read the archives and write the units themselves, so both have to lie on a file system that all
of them see under the same names. What is merged from units is merged here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

from mel.config import flag
from mel.faults import first_line
from mel.locks import claim
from mel.shards.units import Item, MakeAll, Reading, make_unit
from mel.types import MelError

LOCAL = "local"


@dataclasses.dataclass(frozen=True)
class RunnerConfig:
    """Where the parts of archives are read."""

    runner: str = flag(
        LOCAL, "Who reads archives: local, which is --workers processes here, or a runner of Apache Beam (FlinkRunner)."
    )
    runner_options: tuple[str, ...] = flag((), "Options of the Beam runner, as Beam has them: --parallelism=64.")

    def __post_init__(self):
        if self.runner_options and self.runner == LOCAL:
            raise MelError(
                f"--runner_options={','.join(self.runner_options)} is for a runner of Apache Beam: give --runner, too."
            )

    @property
    def make_all(self) -> MakeAll | None:
        """Makes the units of parts on the runner; None for processes here."""
        if self.runner == LOCAL:
            return None
        return functools.partial(make_on_beam, runner=self.runner, options=self.runner_options)


def make_on_beam(reading: Reading, items: Sequence[Item], runner: str, options: Sequence[str]) -> Iterator[None]:
    """Makes the unit of each part on a runner; then yields once for each.

    Raises:
      MelError: Beam is not installed, it has no such runner, a part cannot be read, or the runner failed.
    """
    try:
        import apache_beam as beam  # pyright: ignore[reportMissingImports]
        from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MelError(
            f"--runner={runner} needs Apache Beam ({first_line(error)}): pip install 'mel-linker[beam]', or leave "
            "--runner out to read on this machine."
        ) from None
    try:
        with beam.Pipeline(runner, PipelineOptions(list(options))) as pipeline:
            parts = pipeline | "parts" >> beam.Create(list(items)) | "spread" >> beam.Reshuffle()
            _ = parts | "units" >> beam.Map(make_alone, reading=reading)
    except Exception as error:
        raise MelError(
            f"--runner={runner} failed ({_cause(error)}): mend that and run again, which goes on from the units that "
            "are there."
        ) from error
    yield from (None for _ in items)


def make_alone(item: Item, reading: Reading) -> None:
    """`make_unit`, which waits where the runner has given the same part to two workers."""
    with claim(reading.path(item), wait=True):
        make_unit(item, reading)


def _cause(error: BaseException) -> str:
    """What went wrong; of an error of a worker, which arrives as text, the last line that names one."""
    named = [line for line in str(error).splitlines() if "MelError: " in line]
    return named[-1].rpartition("MelError: ")[2].strip().rstrip(".") if named else first_line(error)
