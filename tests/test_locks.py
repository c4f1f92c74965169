"""A target has one writer, who is named to whoever comes second; the lock dies with its process."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from mel.artifacts import open_artifact, publish
from mel.locks import claim, is_claimed_here, lock_file
from mel.types import MelError

HOLDER = """
import sys, time
from mel.locks import claim
with claim(sys.argv[1]):
    print("held", flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path/a."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "a"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_who_comes_second_is_told_who_is_first_since_when_and_what_to_do(holder, tmp_path):
    told = (
        rf"{tmp_path}/a is being written by process {holder.pid} on {re.escape(socket.gethostname())} \(-c\) "
        r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d: wait until that is done, or stop it, and run the same command again."
    )
    for attempt in (lambda: claim(tmp_path / "a"), lambda: publish(tmp_path / "a", "thing")):
        with pytest.raises(MelError, match=told), attempt():
            pass
    assert not is_claimed_here(tmp_path / "a")
    with claim(tmp_path / "b"):  # and nobody else is kept from anything
        assert is_claimed_here(tmp_path / "b")


def test_the_lock_dies_with_a_killed_process_and_the_next_takes_its_file_over(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert lock_file(tmp_path / "a").exists()
    with claim(tmp_path / "a"):
        assert f'"pid": {os.getpid()}' in lock_file(tmp_path / "a").read_text()
    assert list(tmp_path.iterdir()) == []


def test_waiting_ends_when_the_holder_does(holder, tmp_path):
    threading.Timer(0.3, holder.kill).start()
    with claim(tmp_path / "a", wait=True):
        assert holder.wait() == -signal.SIGKILL


def test_a_thread_may_claim_again_and_another_thread_may_not(tmp_path):
    seen = []

    def attempt():
        try:
            with claim(tmp_path / "a", patience=0):
                seen.append("claimed")
        except MelError as error:
            seen.append(str(error))

    with claim(tmp_path / "a"):
        with claim(tmp_path / "a"):
            pass
        assert is_claimed_here(tmp_path / "a")  # until the outer block ends
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    attempt()
    assert "is being written by another thread of this process" in seen[0]
    assert seen[1:] == ["claimed"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_do_not_hold_the_lock_on(tmp_path, method):
    program = f"""
import multiprocessing, os, signal, sys, time
from mel.locks import claim
if __name__ == "__main__":
    with claim(sys.argv[1]):
        child = multiprocessing.get_context("{method}").Process(target=time.sleep, args=(3600,))
        child.start()
        print(child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, tmp_path / "program.py", tmp_path / "a"]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as killed:
        child = int(killed.stdout.readline())
        assert killed.wait() == -signal.SIGKILL
        try:
            os.kill(child, 0)  # it lives
            with claim(tmp_path / "a"):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


FORKING = """
import os, subprocess, sys
from mel.locks import claim, is_claimed_here
with claim(sys.argv[1]):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        again = "import sys; from mel.locks import claim\\nwith claim(sys.argv[1]): pass"
        print(os.getpid(), subprocess.run([sys.executable, "-c", again, sys.argv[1]], capture_output=True, text=True))
    else:
        assert not is_claimed_here(sys.argv[1])
"""


def test_a_forked_child_that_leaves_the_block_lets_go_of_nothing(tmp_path):
    command = [sys.executable, "-c", FORKING, tmp_path / "a"]
    parent, said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(" ", 1)
    assert f"is being written by process {parent}" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_in_a_sentence(tmp_path, monkeypatch, number):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(MelError, match=f"The file system of {tmp_path} has no locks .* put the folder on a local disk"):
        with claim(tmp_path / "a"):
            pass


def test_a_folder_that_cannot_be_written_is_named_not_its_lock(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(arguments[0]))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError) as refused, claim(tmp_path / "a"):
        pass
    assert refused.value.filename == str(tmp_path / "a")


RACER = """
import sys
from mel.artifacts import publish
from mel.types import MelError
print("ready", flush=True)
for target in map(str.strip, sys.stdin):
    try:
        with publish(target, "thing") as draft:
            for part in range(20):
                with open(draft / f"part-{part}", "a") as file:
                    file.write(sys.argv[1] * 1000)
            print("written", flush=True)
            sys.stdin.readline()  # until the other one has tried
    except MelError as error:
        print(error, flush=True)
    else:
        print("published", flush=True)
"""


def test_of_two_processes_that_publish_the_same_one_does_and_its_bytes_are_its_own(tmp_path):
    targets = [tmp_path / f"target-{number}" for number in range(20)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([sys.executable, "-c", RACER, name], **pipes) for name in "ab"]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
    for number, target in enumerate(targets):
        for racer in racers[:: 1 if number % 2 else -1]:
            racer.stdin.write(f"{target}\n")
            racer.stdin.flush()
        said = [racer.stdout.readline().strip() for racer in racers]
        first = said.index("written")
        assert f"{target} is being written by process {racers[first].pid} on" in said[1 - first]
        racers[first].stdin.write("\n")
        racers[first].stdin.flush()
        assert racers[first].stdout.readline() == "published\n"
        artifact = open_artifact(target, "thing")
        assert {(artifact / name).read_text() for name in artifact.files} == {"ab"[first] * 1000}
    for racer in racers:
        racer.communicate()
    assert sorted(tmp_path.iterdir()) == sorted(targets)


def test_reading_goes_on_beside_writing(tmp_path):
    with publish(tmp_path / "a", "thing") as draft:
        (draft / "file.txt").write_text("hello")
    with publish(tmp_path / "b", "thing"):
        program = "import sys; from mel.artifacts import open_artifact; print(open_artifact(sys.argv[1], 'thing').kind)"
        read = subprocess.run([sys.executable, "-c", program, tmp_path / "a"], capture_output=True, text=True)
        assert read.stdout == "thing\n"


def test_what_the_dead_have_left_is_swept_and_what_the_living_write_is_not(tmp_path):
    leave = """
import os, pathlib, signal, sys, time
from mel.artifacts import publish
with publish(sys.argv[1], "thing") as draft:
    (draft / "file.txt").write_text("half")
    print("writing", flush=True)
    time.sleep(3600)
"""
    dead, living = (
        subprocess.Popen([sys.executable, "-c", leave, tmp_path / name], stdout=subprocess.PIPE, text=True)
        for name in ("dead", "living")
    )
    for process in (dead, living):
        assert process.stdout.readline() == "writing\n"
    dead.kill()
    dead.wait()
    try:
        assert {path.name for path in tmp_path.iterdir()} == {
            ".draft-dead", ".lock-dead", ".draft-living", ".lock-living",
        }  # fmt: skip
        with publish(tmp_path / "outer", "thing"), publish(tmp_path / "inner", "thing"):
            there = {path.name for path in tmp_path.iterdir()}
            assert {".draft-outer", ".draft-inner", ".draft-living", ".lock-living"} < there
            assert not {".draft-dead", ".lock-dead"} & there
        open_artifact(tmp_path / "outer", "thing")
    finally:
        living.kill()
        living.wait()
