"""The second start of `mel-train`, to the end of its first step, beside the first start.

Each start is a process of its own and runs the whole way of `mel-train`: imports, checkpoint, token shards,
compilation, one step. Compiled programs are kept in a folder of this benchmark, deleted before each first start.
The encoder has LEALLA-small's shape with a vocabulary of 501,152 tokens; the data are the tiny world of the
tests. The clock stops at the line that reports step 1, and the process is ended there.

  python -m experiments.benchmarks.compile_cache
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence

from experiments.benchmarks.harness import Target, options, parser, publish
from experiments.programs import ROOT, command, launch, run
from mel.artifacts import Workdir
from mel.types import MelError
from tests import tiny_world

TARGET = Target(passes=0.5, stretch=0.3, at_least=False)
PREPARE = ROOT / "experiments" / "quickstart" / "prepare_data.flags"
VOCABULARY = 501_152  # LEALLA's 501,153, less the marker that we add


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__, repeats=3)
    chosen = options(flags, argv)
    encoder, vocabulary = ("random:2x32x2", 0) if chosen.quick else ("random:24x128x8", VOCABULARY)
    runs: dict[str, list[float]] = {"second start": [], "first start": []}
    with tempfile.TemporaryDirectory() as name:
        work, compiled = prepare(pathlib.Path(name), vocabulary), pathlib.Path(name) / "compiled"
        flags_of_train = (
            f"--workdir={work.path}", f"--encoder={encoder}", "--batch_size=32", "--steps_per_round=1", "--rounds=1",
            f"--compilation_cache={compiled}",
        )  # fmt: skip
        run("train", *flags_of_train, "--round=-1")
        for _ in range(chosen.repeats):
            shutil.rmtree(compiled, ignore_errors=True)
            runs["first start"].append(seconds_to_step_1(work, flags_of_train))
            runs["second start"].append(seconds_to_step_1(work, flags_of_train))
    details = {"encoder": encoder, "mentions": 32}
    measure = "second start ÷ first start of mel-train to step 1, with the compilation cache"
    publish("compile_cache", measure, TARGET, runs, "s", chosen.results, details)


def prepare(folder: pathlib.Path, vocabulary: int) -> Workdir:
    """The tiny world, prepared with its vocabulary filled up to `vocabulary` tokens that never occur."""
    tiny_world.generate(folder)
    file = folder / "tokenizer" / "vocab.txt"
    tokens = file.read_text("utf-8").splitlines()
    tokens += [f"\u2042{number}" for number in range(vocabulary - len(tokens))]
    file.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    work = Workdir(folder / "run")
    run(
        "prepare_data", f"--flagfile={PREPARE}", f"--workdir={work.path}", f"--damuel={folder / 'damuel'}",
        f"--mewsli={folder / 'mewsli'}", f"--tokenizer={folder / 'tokenizer'}", "--mention_tokens=64",
        "--entity_tokens=64",
    )  # fmt: skip
    return work


def seconds_to_step_1(work: Workdir, flags: Sequence[str]) -> float:
    """From the start of `mel-train` to its line about step 1; nothing is left of its work but compiled programs.

    Raises:
      MelError: it ended before.
    """
    shutil.rmtree(work.round(0).path, ignore_errors=True)
    start, said = time.perf_counter(), []
    with subprocess.Popen(
        command("train", *flags, "--round=0"), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if "step 1/1 " in line:
                seconds = time.perf_counter() - start
                process.kill()
                return seconds
            said.append(line)
    raise MelError(f"mel-train ended before step 1:\n{''.join(said)}")


if __name__ == "__main__":
    launch(main)
