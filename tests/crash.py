"""A binary that is killed, or stands still, at a definite point of its work, however fast the machine is.

A point is what the binary is about to do to a path, as Python audits it: "os.mkdir", "os.rename" or "open", and a
part of the path.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = """
import os, runpy, sys
number, event, path, binary = int(sys.argv[1]), *sys.argv[2:5]
sys.argv = [f"{binary}.py", *sys.argv[5:]]
left = [number]

def look(name, arguments):
    if name == event and path in str(arguments) and left:
        os.kill(os.getpid(), left.pop())

sys.addaudithook(look)
runpy.run_module(f"mel.bin.{binary}", run_name="__main__", alter_sys=True)
"""


def is_killed_at(event: str, path: str, binary: str, arguments: Sequence[str]) -> bool:
    """Runs a binary ("run_rounds") to the point where it is killed; whether it came to that."""
    with _running(signal.SIGKILL, event, path, binary, arguments) as process:
        process.communicate(timeout=600)
    return process.returncode == -signal.SIGKILL


@contextlib.contextmanager
def standing_at(event: str, path: str, binary: str, arguments: Sequence[str]) -> Iterator[subprocess.Popen]:
    """A binary that stands still at the point until it is sent SIGCONT; what it says is on its stderr, as text."""
    with _running(signal.SIGSTOP, event, path, binary, arguments) as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status), process.stderr.read()
            yield process
        finally:
            process.kill()


def _running(number: int, event: str, path: str, binary: str, arguments: Sequence[str]) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, str(int(number)), event, path, binary, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)
