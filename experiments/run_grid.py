"""Runs every setting of an experiment at several seeds, one after the other; the same command goes on.

An experiment is a folder with `run_rounds.flags`, the recipe that all its runs share, and
`settings.txt`: a line a setting, its name and then the flags of mel-run-rounds that are its own. The
run of a setting at a seed is the working directory RUNS/SETTING/seed-SEED, whose prepared data are
links into --workdir. All settings are run at the first seed before any at the second. Any other
--name=value goes to mel-run-rounds as it is, in all runs.

Of a finished run its reports, its training metrics and its costs are kept, and the large rest is
deleted unless --keep is given.

  python -m experiments.run_grid experiments/first_negatives --workdir=W --hours=2
  python -m experiments.run_grid experiments/transfer --workdir=W --evaluate_on=held_out
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from absl import flags, logging

from experiments import programs
from mel.artifacts import Workdir, exists, write_text
from mel.progress import Progress, duration
from mel.types import MelError
from mel.workdir import METRICS

MADE_WITH = "made_with.json"  # the flags of a run, and the recipe they name
SHARED = ("kb", "alias_table", "mentions", "tokens", "cache")
LARGE = ("embeddings", "index", "negatives", "training/checkpoints", "training/tensorboard")


class Run(NamedTuple):
    """A setting at a seed: where it runs, and with which flags."""

    setting: str
    seed: int
    path: pathlib.Path
    flags: tuple[str, ...]

    @property
    def rounds(self) -> int:
        return programs.parse("run_rounds", self.flags).train.rounds

    @property
    def finished(self) -> bool:
        return exists(Workdir(self.path).report(f"round-{self.rounds - 1}"))


def main(arguments: Sequence[str] | None = None) -> None:
    options, extra = _parser().parse_known_args(arguments)
    # A shell lets what it starts in the background ignore this, and the runs would inherit that and never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    todo = list(grid(options.experiment, runs_of(options, options.experiment), options.seeds, extra))
    todo = [run for run in todo if not options.only or run.setting in options.only]
    for run in todo:
        programs.parse("run_rounds", run.flags)
    deadline = time.monotonic() + options.hours * 3600
    progress = Progress(options.experiment.name, len(todo), "runs", done=sum(run.finished for run in todo))
    for run in todo:
        set_up(run, options.workdir)
        if not run.finished:
            logging.info("%s, seed %d", run.setting, run.seed)
            if not execute(run, deadline - time.monotonic()):
                logging.info("The time is used up after %s; the same command goes on.", duration(options.hours * 3600))
                return
            progress.add()
        if not options.keep:
            tidy(run.path)
    progress.close()


def read_settings(experiment: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """The settings of an experiment in order: the flags of each by its name."""
    lines = (experiment / "settings.txt").read_text(encoding="utf-8").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return {name: tuple(own) for name, *own in filter(None, words)}


def grid(
    experiment: pathlib.Path, runs: pathlib.Path, seeds: Sequence[int], extra: Sequence[str] = ()
) -> Iterator[Run]:
    """All runs, in the order in which they are run."""
    for seed in seeds:
        for setting, own in read_settings(experiment).items():
            path = runs.absolute() / setting / f"seed-{seed}"
            recipe = f"--flagfile={(experiment / 'run_rounds.flags').absolute()}"
            yield Run(setting, seed, path, (recipe, *own, *extra, f"--seed={seed}", f"--workdir={path}"))


def runs_of(options: argparse.Namespace, experiment: pathlib.Path) -> pathlib.Path:
    """Where the runs of an experiment are.

    Raises:
      MelError: neither --runs nor --workdir says so.
    """
    if not (options.runs or options.workdir):
        raise MelError("Say with --workdir or --runs where the runs are.")
    return options.runs or options.workdir / "experiments" / experiment.name


def set_up(run: Run, workdir: pathlib.Path) -> None:
    """Makes the working directory of a run.

    Raises:
      MelError: nothing is prepared in `workdir`, or the run was begun with other flags.
    """
    if not exists(Workdir(workdir).mention_tokens("train")):
        raise MelError(f"--workdir={workdir} holds no prepared data: run mel-prepare-data first.")
    run.path.mkdir(parents=True, exist_ok=True)
    (workdir / "cache").mkdir(exist_ok=True)
    for name in SHARED:
        link = run.path / name
        if not link.is_symlink():
            link.symlink_to((workdir / name).absolute())
    recipe = pathlib.Path(run.flags[0].removeprefix("--flagfile=")).read_text(encoding="utf-8")
    made_with = json.dumps({"flags": run.flags, "recipe": recipe}, indent=1)
    path = run.path / MADE_WITH
    if not path.exists():
        write_text(path, made_with)
    elif path.read_text(encoding="utf-8") != made_with:
        raise MelError(f"{run.path} was begun with other flags ({path}): choose other --runs, or delete it.")


def execute(run: Run, seconds: float) -> bool:
    """Runs mel-run-rounds, logging into RUN/log.txt, for at most so long; returns whether it came to its end.

    Raises:
      MelError: it failed.
    """
    with open(run.path / "log.txt", "ab") as log:
        process = subprocess.Popen(programs.command("run_rounds", *run.flags), stdout=log, stderr=log)
        try:
            status = process.wait(max(seconds, 0))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as stop:
            process.send_signal(signal.SIGINT)
            process.wait()
            if isinstance(stop, KeyboardInterrupt):
                raise
            return False
    if status:
        raise MelError(f"{run.setting}, seed {run.seed}, ended with status {status}: read {run.path / 'log.txt'}.")
    return True


def tidy(path: pathlib.Path) -> None:
    """Deletes what no table and no curve of a finished run is made from."""
    for folder in sorted((path / "rounds").glob("*")):
        for name in LARGE:
            shutil.rmtree(folder / name, ignore_errors=True)
        for part in (folder / "checkpoint").glob("*"):
            if part.is_dir():
                shutil.rmtree(part)
            elif part.name != METRICS:
                part.unlink()


def parser_of_runs(description: str | None, required: bool = False) -> argparse.ArgumentParser:
    """The options that say where runs are, of which --workdir may be required; `runs_of` reads them."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    prepared = "folder that mel-prepare-data published into"
    parser.add_argument("--workdir", type=pathlib.Path, required=required, help=prepared)
    place = "where the runs are; WORKDIR/experiments/EXPERIMENT if not given"
    parser.add_argument("--runs", type=pathlib.Path, help=place)
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = parser_of_runs(__doc__, required=True)
    parser.add_argument("experiment", type=pathlib.Path, help="folder with run_rounds.flags and settings.txt")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument(
        "--only", type=lambda text: text.split(","), help="these settings alone, where others run beside them"
    )
    parser.add_argument("--hours", type=float, default=24.0, help="stop, to be continued, after so long")
    parser.add_argument("--keep", action="store_true", help="keep checkpoints, embeddings and indexes of finished runs")
    return parser


if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no run outlives a grid that is told to end
    try:
        programs.launch(main)
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on.")
