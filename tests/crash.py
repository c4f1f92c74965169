"""A binary that is killed at a definite point of its work, however fast the machine is."""

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = """
import os, runpy, signal, sys
event, path, binary = sys.argv[1:4]
sys.argv = [binary, *sys.argv[4:]]

def look(name, arguments):
    if name == event and path in str(arguments):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(look)
runpy.run_module(f"mel.bin.{binary}", run_name="__main__", alter_sys=True)
"""


def is_killed_at(event: str, path: str, binary: str, arguments: Sequence[str]) -> bool:
    """Runs a binary that kills itself when it is about to do something to a path; whether it came to that.

    Args:
      event: what it does, as Python audits it: "os.mkdir", "os.rename", "open".
      path: a part of the path.
      binary: "run_rounds".
      arguments: its flags.
    """
    command = [sys.executable, "-c", PROGRAM, event, path, binary, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return ended.returncode == -signal.SIGKILL
