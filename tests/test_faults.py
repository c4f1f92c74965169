"""What a disk or the memory does is told from what a program does wrong, and has a sentence."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from mel import faults
from mel.faults import is_disk_full, is_memory_short, sentence_of


def of(number, path="/data/run/kb"):
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize("number", sorted(set(faults._SENTENCES) - {errno.EAGAIN}))
def test_every_fault_names_the_path_and_a_way_out(number):
    said = sentence_of(of(number))
    assert "/data/run/kb" in said
    assert ": " in said and not said.endswith(".")


def test_faults_by_what_the_system_said():
    assert sentence_of(of(errno.EROFS)).startswith("/data/run/kb is on a read-only file system: use a folder that")
    assert sentence_of(of(errno.ENAMETOOLONG)) == (
        "/data/run/kb is too long a name for its file system: choose a shorter one"
    )
    assert sentence_of(PermissionError(errno.EACCES, "no", b"/data/\xff")).startswith("/data/\udcff belongs to")
    assert sentence_of(OSError(errno.EMFILE, "Too many open files")).startswith(
        "this process may not open more files (a file): raise the limit (ulimit -n)"
    )
    assert sentence_of(BlockingIOError(errno.EAGAIN, "no")).startswith("this user may not start more processes")


@pytest.mark.parametrize(
    "error, path",
    [
        (RuntimeError("UNKNOWN: write() failed: No space left on device"), "a file"),
        (ValueError('PERMISSION_DENIED: Error opening "/data/run/params": Permission denied'), "/data/run/params"),
        (Exception("Read-only file system (os error 30): /data/x"), "/data/x"),
        (OSError("28832 requested and 814 written"), "the disk is full"),
    ],
)
def test_a_library_in_other_words_is_understood(error, path):
    assert path in sentence_of(error)
    outer = RuntimeError("saving failed")
    outer.__cause__ = error
    assert sentence_of(outer) == sentence_of(error)
    assert sentence_of(ExceptionGroup("several", [ValueError("this"), error])) == sentence_of(error)


WRITTEN_SHORT = """
import os, resource, signal, sys
import numpy as np
from mel.faults import is_disk_full, sentence_of
if sys.argv[1]:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with open(sys.argv[1] or "/dev/full", "wb", buffering=0) as file:
        np.zeros(10**6).tofile(file)
except OSError as error:
    print(error.errno, is_disk_full(error), sentence_of(error))
"""


@pytest.mark.parametrize(
    "limited, said",
    [
        (False, "None True the disk is full (a file): free some space"),
        (True, "None False a file would be larger than its file system or a limit (ulimit -f) allows: use another one"),
    ],
)
def test_what_numpy_could_not_write_whole_is_understood(tmp_path, limited, said):
    place = str(tmp_path / "array") if limited else ""
    ended = subprocess.run([sys.executable, "-c", WRITTEN_SHORT, place], stdout=subprocess.PIPE, text=True, check=True)
    assert ended.stdout.strip() == said


def test_a_fault_of_the_program_is_none_of_the_disk():
    for error in (KeyError("No space left on device"), TypeError("x"), ValueError("x"), OSError("x"), of(errno.EINVAL)):
        assert sentence_of(error) is None
        assert not is_memory_short(error)
    later = ValueError("a mistake")
    later.__context__ = of(errno.ENOENT)  # which was dealt with when the mistake was made
    assert sentence_of(later) is None


def test_a_full_disk_and_a_full_memory_are_told_from_the_rest():
    assert is_disk_full(of(errno.ENOSPC)) and is_disk_full(of(errno.EDQUOT))
    assert is_disk_full(OSError("28832 requested and 814 written"))
    assert is_disk_full(RuntimeError("Disk quota exceeded")) and not is_disk_full(of(errno.EROFS))
    with pytest.raises(MemoryError) as short:
        np.empty((2**40, 2**10))
    assert is_memory_short(short.value)
    assert is_memory_short(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"))
    assert is_memory_short(of(errno.ENOMEM)) and not is_memory_short(of(errno.ENOSPC))
