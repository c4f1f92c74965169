"""Preparation killed with SIGKILL at random moments: what is made anew, and whether the end is as if nothing happened.

    python -m experiments.benchmarks.scale --make=ARCHIVE --megabytes 40 --part_megabytes=1 --preset=1
    python -m experiments.soak.killed_preparation --archive=ARCHIVE --workdir=DIR --kills=12

Each kill takes the command and its workers at once, after a time that is drawn so that all kills together meet every
stage of one run. A unit (of one part) that stands before a kill has to be the same file after the next start, unless
all is published that is made from units; what a kill costs are the units that were being made, which are told by their
drafts.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np

from experiments import programs
from experiments.programs import launch
from mel.artifacts import write_text
from mel.types import MelError

RESULTS = pathlib.Path(__file__).parent / "results" / "killed_preparation.json"
STARTS_S = 2.0  # until a command reads its first part
Units = dict[str, tuple[int, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=pathlib.Path, required=True, help="what scale --make made")
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="folder for both runs")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shutil.rmtree(options.workdir, ignore_errors=True)
    options.workdir.mkdir(parents=True)
    whole, killed = options.workdir / "undisturbed", options.workdir / "killed"
    start = time.perf_counter()
    finish(options, whole)
    seconds = time.perf_counter() - start
    print(f"undisturbed: {seconds:.1f} s", flush=True)
    start, kills = time.perf_counter(), []
    generator = np.random.default_rng(options.seed)
    while len(kills) < options.kills and not (kills and kills[-1]["ended"]):
        after = STARTS_S + 1.2 * seconds * generator.random() / options.kills
        kills.append(kill_one(options, killed, after, set(digests(whole))))
        print(f"kill {len(kills)}: {kills[-1]}", flush=True)
    finish(options, killed)
    same = digests(whole) == digests(killed)
    said = {
        "undisturbed_s": seconds, "with_kills_s": time.perf_counter() - start, "workers": options.workers,
        "kills": kills, "artefacts": len(digests(whole)), "equal": same,
    }  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    write_text(RESULTS, json.dumps(said, indent=1) + "\n")
    print(f"{sum(not kill['ended'] for kill in kills)} kills, {said['artefacts']} artefacts, equal: {same}")
    lost = [kill["lost"] for kill in kills]
    if not same or any(kill["made anew"] for kill in kills) or max(lost) > options.workers:
        raise MelError(f"A kill cost more than it may, or changed what was published: see {RESULTS}.")


def command(options: argparse.Namespace, workdir: pathlib.Path) -> list[str]:
    flags = {"workdir": workdir, "damuel": options.archive, "languages": "es", "workers": options.workers}
    flags |= {"tokenizer": options.archive / "tokenizer", "merge_memory": 0.01}
    return programs.command("prepare_data", *(f"--{name}={value}" for name, value in flags.items()))


def finish(options: argparse.Namespace, workdir: pathlib.Path) -> None:
    """Runs the command to its end.

    Raises:
      MelError: it fails.
    """
    with open(options.workdir / "log.txt", "ab") as log:
        if subprocess.run(command(options, workdir), stdout=log, stderr=log).returncode:
            raise MelError(f"The command failed: read {options.workdir / 'log.txt'}.")


def kill_one(
    options: argparse.Namespace, workdir: pathlib.Path, seconds: float, artefacts: set[str]
) -> dict[str, object]:
    """Starts the command, and kills all of it after so long; says what stood before and after, and what was in work.

    `artefacts` are all that the command publishes; it deletes the units once they are there.
    """
    before = units(workdir)
    with open(options.workdir / "log.txt", "ab") as log:
        process = subprocess.Popen(command(options, workdir), stdout=log, stderr=log, start_new_session=True)
        ended = False
        try:
            process.wait(seconds)
            ended = True
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    after = units(workdir)
    published = artefacts & set(digests(workdir))
    anew = made_anew(before, after, all_published=published == artefacts)
    return {
        "after_s": round(seconds, 1), "ended": ended, "units": len(after), "made anew": len(anew),
        "lost": len(drafts(workdir)), "published": len(published),
    }  # fmt: skip


def units(workdir: pathlib.Path) -> Units:
    """Each unit that is whole, and which file its manifest is."""
    manifests = (path for path in workdir.glob("units/*/*/manifest.json") if not path.parent.name.startswith("."))
    return {str(path.parent.relative_to(workdir)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in manifests}


def made_anew(before: Units, after: Units, all_published: bool) -> set[str]:
    """The units that stood and are another file now, or gone before everything was made from them."""
    gone = set() if all_published else before.keys() - after.keys()
    return {name for name, made in after.items() if before.get(name, made) != made} | gone


def drafts(workdir: pathlib.Path) -> list[pathlib.Path]:
    """The units that were being made."""
    return [path for path in workdir.glob("units/*/.*") if path.is_dir()]


def digests(workdir: pathlib.Path) -> dict[str, str]:
    """The digest of every artefact, by its place."""
    manifests = workdir.rglob("manifest.json")
    return {str(path.relative_to(workdir)): json.loads(path.read_text("utf-8"))["digest"] for path in manifests}


if __name__ == "__main__":
    sys.exit(launch(main))
