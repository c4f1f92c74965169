"""Runs the commands and programs of README.md in order, in the folder that run.sh has made, and prints a table.

Nothing of the checkout is imported: what runs is what the wheel installed. Some commands get flags that fit the tiny
world, and the table shows them; spaCy is not installed.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import NamedTuple

FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
DRAWN = re.compile("[─-◿]")  # of README's diagram
COMMANDS = ("mel-", "echo ", "printf ", "curl ")
ELSEWHERE = "--runner="  # of a command that needs a cluster
WORLD = "--languages=en,ru,ar,ja --tokenizer=../world/tokenizer --mention_tokens=32 --entity_tokens=32 --held_out=0.4"
ROUNDS = "--encoder=random:2x64x4 --rounds=2 --steps_per_round=60 --batch_size=64 --warmup_steps=10 --pool=10"
SMALLER = {"mewsli9/prepare_data.flags": WORLD, "mewsli9/run_rounds.flags": f"{ROUNDS} --learning_rate=3e-3"}
ENCODER = "python -m experiments.mdn_pretrained.multilingual_e5_small --output=encoder"
AFTERWARDS = ("mel-verify --workdir=run", "mel-verify --workdir=own", "mel-verify --bundle=own/bundle-3")
LINKING = ("mel-link ", "mel-update-bundle ", "mel-verify --bundle")  # what the base installation is for
PATIENCE = 60.0
ENDED = 128 + signal.SIGTERM


class Run(NamedTuple):
    """A row of the table."""

    environment: str
    command: str
    seconds: float
    said: str  # "" if all went well

    def __str__(self) -> str:
        cells = self.environment, f"`{self.command}`", f"{self.seconds:.0f}", self.said or "yes"
        return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--make", type=int, default=1)
    flags = parser.parse_args()
    readme = (flags.folder / "checkout" / "README.md").read_text("utf-8")
    runs = []
    print("| environment | command | seconds | ok |\n|---|---|---:|---|")
    for run in everything(flags.folder, readme, flags.make):
        print(run, flush=True)
        runs.append(run)
    sys.exit(f"{sum(bool(run.said) for run in runs)} failed." if any(run.said for run in runs) else 0)


def everything(folder: pathlib.Path, readme: str, with_make: int):
    """The rows of the table, one after the other."""
    work, full = folder / "work", environment_of(folder, "full")
    if with_make:
        yield run("its own", "make quickstart", folder / "checkout", dict(os.environ))
    yield run("full", ENCODER, work, full | {"PYTHONPATH": str(folder / "checkout")})
    commands, server = commands_of(readme), None
    for command in [*commands, *AFTERWARDS]:
        command = " ".join([command, *(fits for name, fits in SMALLER.items() if name in command)])
        if command.startswith("mel-serve"):
            server, row = serve(command, work, full)
            yield row
        else:
            yield run("full", command, work, full)
    yield end(server)
    base = environment_of(folder, "base")
    for command in commands:
        if command.startswith(LINKING):
            yield run("base", re.sub(r"(--output=\S+?)(\.jsonl)?( |$)", r"\1-base\2\3", command), work, base)
    programs = [code for language, code in FENCED.findall(readme) if language == "python" and "spacy" not in code]
    for name, environment in (("base", base), ("full", full)):
        yield from (run(name, f"python -c {shlex.quote(program)}", work, environment) for program in programs)
    yield refused("mel-serve --bundle=run/bundle", work, base, "mel-linker[serve]")


def commands_of(readme: str) -> list[str]:
    """The lines of code blocks that are commands and need one machine, in order."""
    lines = [line.strip() for language, block in FENCED.findall(readme) if not language for line in block.splitlines()]
    return [line for line in lines if line.startswith(COMMANDS) and not DRAWN.search(line) and ELSEWHERE not in line]


def run(name: str, command: str, folder: pathlib.Path, environment: dict[str, str]) -> Run:
    """Runs a command to its end."""
    began = time.monotonic()
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False, errors="replace"
    )
    lines = (done.stderr or done.stdout).strip().splitlines()
    said = f"**{done.returncode}**: {lines[-1] if lines else ''}" if done.returncode else ""
    if "Traceback (most recent call last)" in done.stderr or '"error"' in done.stdout:
        said = said or f"**said** {(lines or [done.stdout])[-1]}"
    return Run(name, command, time.monotonic() - began, said)


def refused(command: str, folder: pathlib.Path, environment: dict[str, str], sentence: str) -> Run:
    """Runs what the base installation has no packages for: right is one sentence."""
    row = run("base", command, folder, environment)
    return row._replace(said="" if sentence in row.said and "Traceback" not in row.said else f"**wrong**: {row.said}")


def serve(command: str, folder: pathlib.Path, environment: dict[str, str]) -> tuple[subprocess.Popen, Run]:
    """Starts the service, and waits until it answers."""
    began = time.monotonic()
    server = subprocess.Popen(
        shlex.split(command), cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while time.monotonic() < began + PATIENCE and server.poll() is None:
        try:
            urllib.request.urlopen("http://127.0.0.1:8080/health").close()
            return server, Run("full", command, time.monotonic() - began, "")
        except urllib.error.URLError:
            time.sleep(0.1)
    server.kill()
    return server, Run("full", command, time.monotonic() - began, f"**no answer**: {server.communicate()[1][-500:]}")


def end(server: subprocess.Popen | None) -> Run:
    """Asks the service to end."""
    began = time.monotonic()
    if server is None or server.returncode is not None:
        return Run("full", "kill the service", 0, "**there is none**")
    server.terminate()
    said = server.communicate()[1]
    seconds, right = time.monotonic() - began, server.returncode == ENDED and "Traceback" not in said
    return Run("full", "kill the service", seconds, "" if right else f"**{server.returncode}**: {said[-500:]}")


def environment_of(folder: pathlib.Path, name: str) -> dict[str, str]:
    path = f"{folder / name / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "VIRTUAL_ENV": str(folder / name)}


if __name__ == "__main__":
    main()
