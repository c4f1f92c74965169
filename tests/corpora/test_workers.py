"""Results come in order from however many workers, and no worker outlives its parent."""

import concurrent.futures
import contextlib
import errno
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from mel.corpora.workers import in_another_process, map_in_order
from mel.types import MelError

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 600  # only a fault takes so long, however busy the machine is


def square(number):
    return number * number


def refuse(number):
    if number == 3:
        raise MelError("number 3 is malformed")
    return number


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers):
    assert list(map_in_order(square, range(7), workers)) == [0, 1, 4, 9, 16, 25, 36]


def test_an_error_of_a_worker_is_raised_here():
    with pytest.raises(MelError, match="number 3 is malformed"):
        list(map_in_order(refuse, range(6), 2))


def test_a_worker_that_is_killed_is_a_sentence():
    with pytest.raises(MelError, match="A worker process was killed, .* lower --workers"):
        list(map_in_order(die, range(4), 2))


def process_of(item):
    return os.getpid(), item


def test_what_is_computed_in_another_process_comes_back():
    process, item = in_another_process(process_of, "it", "")
    assert process != os.getpid() and item == "it"


def test_another_process_that_is_killed_is_a_sentence_with_its_own_way_out():
    with pytest.raises(MelError, match="A worker process was killed, .*: state --rows_a_shard=5 and run again"):
        in_another_process(die, 0, "state --rows_a_shard=5")


def test_a_worker_that_is_killed_while_another_starts_is_the_same_sentence(monkeypatch):
    errors = [OSError("handle is closed"), OSError(errno.EAGAIN, "no more processes")]

    def submit(self, function, item):
        raise errors.pop(0)

    monkeypatch.setattr(concurrent.futures.ProcessPoolExecutor, "submit", submit)
    with pytest.raises(MelError, match="A worker process was killed, .* lower --workers"):
        list(map_in_order(square, range(4), 2))
    with pytest.raises(OSError, match="no more processes"):  # which the launcher has a sentence for
        list(map_in_order(square, range(4), 2))


def test_who_ends_without_clearing_away_leaves_no_word_of_the_library():
    program = """if True:
        import os
        from mel.corpora.workers import in_another_process, map_in_order
        results = map_in_order(abs, range(9), 2)
        next(results)
        os._exit(3)
    """
    ended = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, cwd=ROOT, text=True)
    assert (ended.returncode, ended.stderr) == (3, "")


PARENT = """
import re, sys, time
from mel.corpora import workers

def wait(number):
    if number == 0:
        return number
    if sys.argv[1] == "holding the interpreter":
        re.match(r"(a*)*b", "a" * 60)  # for ever, in C, and no other thread runs
    time.sleep(3600)

if sys.argv[1] == "without help of the system":
    workers.sys.platform = "another"

if __name__ == "__main__":
    results = workers.map_in_order(wait, [0, 1, 2, 3], 3)
    print(next(results), flush=True)
    next(results)
"""


def descendants(pid):
    """The processes under `pid`, by what the system says."""
    found, parents = [pid], {}
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    for above in found:
        found += [child for child, parent in parents.items() if parent == above]
    return found[1:]


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition):
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def parent(tmp_path, request):
    """A process in the midst of its work with three workers; and all of them."""
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, tmp_path / "parent.py", request.param]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout.readline() == "0\n"
        wait_until(lambda: len(descendants(process.pid)) == 4)  # one is the tracker of resources
        children = descendants(process.pid)
        yield process, children
        process.kill()
        for pid in filter(is_running, children):
            os.kill(pid, signal.SIGKILL)


def test_a_worker_whose_parent_died_before_it_was_ready_does_not_begin():
    """Else it may take up a part that holds the interpreter, and never notice."""
    program = """
import multiprocessing, os, sys
from mel.corpora.workers import _die_with_parent
theirs, ours = multiprocessing.Pipe(duplex=False)
_die_with_parent(theirs, os.getppid() + int(sys.argv[1]))
print("begins", flush=True)
os._exit(0)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for other, said in (("0", "begins\n"), ("1", "")):
        ended = subprocess.run(
            [sys.executable, "-c", program, other], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert ended.stdout == said


WAYS = ["as it is", "holding the interpreter", "without help of the system"]


@pytest.mark.parametrize("parent", WAYS, indirect=True)
def test_no_worker_outlives_a_parent_that_is_killed(parent):
    process, children = parent
    process.kill()
    assert process.wait() == -signal.SIGKILL
    wait_until(lambda: not any(map(is_running, children)))


@pytest.mark.parametrize("parent", ["as it is"], indirect=True)
def test_nothing_is_waited_for_that_nobody_wants(parent):
    process, children = parent
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == -signal.SIGINT
    wait_until(lambda: not any(map(is_running, children)))
