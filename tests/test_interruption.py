"""A signal ends a program in order, at the point that it chose, or at once when it comes twice or nobody looks up."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
BEGIN = """
import ctypes, os, signal, sys, time
from mel import interruption
from mel.interruption import Interrupted, asked, deferred, listen
sys.argv[0] = "program"
listen()
def come(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
def in_a_library(seconds):  # which does not return to Python, but lets other threads run
    ctypes.CDLL(None).usleep(int(seconds * 1e6))
"""
LATER = "the same command goes on from whatever is saved."


def run(program, **arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BEGIN + program]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, **arguments)


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_is_raised_where_the_program_is_and_cleans_up(name, status):
    ended = run(f"""
try:
    try:
        come(signal.{name})
        time.sleep(60)
    finally:
        print("cleaned up")
except KeyboardInterrupt as error:
    print(error, error.status)
""")
    assert ended.stdout == f"cleaned up\nended by {name}; {LATER} {status}\n"


def test_a_deferred_signal_is_asked_for_and_raised_at_the_end_of_the_block():
    ended = run("""
try:
    with deferred():
        print(asked())
        come()
        time.sleep(0.1)
        print(asked() == signal.SIGTERM)
    print("never")
except Interrupted as error:
    print(error.number)
""")
    assert ended.stdout == "None\nTrue\n15\n"


def test_an_error_in_a_block_that_defers_is_not_hidden():
    ended = run("""
try:
    with deferred():
        come()
        raise ValueError("wrong")
except ValueError as error:
    print(error)
""")
    assert ended.stdout == "wrong\n"


def test_a_second_signal_ends_at_once_where_the_first_one_is_deferred():
    ended = run("""
with deferred():
    come()
    come()
    in_a_library(60)
""")
    assert (ended.returncode, ended.stdout) == (143, "")
    assert ended.stderr == f"program: ended by SIGTERM; {LATER}\n"


def test_a_library_that_computes_on_is_not_waited_for():
    ended = run("""
interruption.RISING_SECONDS = 0.2
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # another thread takes it, so the call is not disturbed
# The library itself sees to the signal, which so never comes before the call.
ctypes.CDLL(None).system(b"exec > /dev/null 2>&1; kill -TERM $PPID; while kill -0 $PPID; do sleep 0.1; done")
""")
    assert ended.returncode == 143
    assert ended.stderr == f"program: ended by SIGTERM; {LATER}\n"


def test_a_program_that_does_not_end_in_time_after_it_was_told_is_ended():
    ended = run("""
interruption.RISING_SECONDS = interruption.ENDING_SECONDS = 0.2
try:
    come()
    time.sleep(60)
except Interrupted:
    in_a_library(60)
""")
    assert ended.returncode == 143
    assert ended.stderr == f"program: ended by SIGTERM; {LATER}\n"


def test_a_signal_that_is_ignored_stays_ignored():
    ended = run("come(signal.SIGINT)\nprint('on')", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert ended.stdout == "on\n"


def test_a_signal_that_python_drops_while_it_collects_garbage_comes_again():
    ended = run("""
import gc, weakref
class Thing:
    pass
thing = Thing()
reference = weakref.ref(thing, lambda _: come())  # what a callback raises, nobody gets
del thing
try:
    time.sleep(60)
except Interrupted as error:
    print(error)
come()
in_a_library(60)
""")
    assert ended.stdout == f"ended by SIGTERM; {LATER}\n"
    assert (ended.returncode, ended.stderr) == (143, f"program: ended by SIGTERM; {LATER}\n")  # the second one
