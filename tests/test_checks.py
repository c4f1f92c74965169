"""What was opened is compared with its digest, once, before anything made from it is seen."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from mel import checks
from mel.artifacts import open_artifact, publish
from mel.checks import Checks, Expected, file_digest
from mel.types import MelError

REMEDY = "delete it and run the same command again"


@pytest.fixture
def reads(monkeypatch, tmp_path):
    """The files that are read to compare them, small ones too, with an empty memory."""
    found = []

    def counting(file, progress):
        found.append(file.name)
        return file_digest(file, progress)

    monkeypatch.setattr(checks, "file_digest", counting)
    monkeypatch.setattr(checks, "AT_ONCE", -1)
    monkeypatch.setattr(checks, "REMEMBERED", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


def expected(path, text="hello"):
    return Expected(path, hashlib.sha256(text.encode()).hexdigest(), REMEDY)


def flip_a_bit(path, stamp=None):
    """Leaves size, inode and, where one is given, the time of change that everybody can set."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with open(path, "r+b") as file:
        file.write(data)
    if stamp:
        os.utime(path, ns=(stamp, stamp))


def test_a_file_digest_is_that_of_hashlib(tmp_path):
    (tmp_path / "large").write_bytes(b"ab" * checks.BLOCK)
    seen = []
    assert file_digest(tmp_path / "large", seen.append) == hashlib.sha256(b"ab" * checks.BLOCK).hexdigest()
    assert sum(seen) == 2 * checks.BLOCK
    assert file_digest(os.devnull) == hashlib.sha256(b"").hexdigest()


def test_a_damaged_file_is_named_when_the_checks_settle_and_as_often_as_they_do(tmp_path, reads):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file in files:
        file.write_text("hello")
    files[1].write_text("hullo")
    looked = Checks()
    looked.expect(map(expected, files))
    for _ in range(2):  # a program that went on all the same
        with pytest.raises(MelError) as refused:
            looked.settle()
        assert str(refused.value) == f"{files[1]} is damaged, its content is not what was published: {REMEDY}."
    assert sorted(reads) == ["a", "b", "c"]


def test_a_file_is_read_once_in_a_process_and_again_when_it_has_changed(tmp_path, reads):
    (tmp_path / "a").write_text("hello")
    looked = Checks()
    for _ in range(3):
        looked.expect([expected(tmp_path / "a")])
        looked.settle()
    assert reads == ["a"]
    flip_a_bit(tmp_path / "a")
    looked.expect([expected(tmp_path / "a")])
    with pytest.raises(MelError, match="is damaged"):
        looked.settle()
    (tmp_path / "a").write_text("hello")  # made again
    looked.expect([expected(tmp_path / "a")])
    looked.settle()


def test_a_small_file_is_compared_when_it_is_opened(tmp_path):
    (tmp_path / "a").write_text("hullo")
    with pytest.raises(MelError, match="is damaged"):
        Checks().expect([expected(tmp_path / "a")])


def test_only_the_folder_that_is_asked_for_is_waited_for_and_judged(tmp_path, reads):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("hullo" if name == "b" else "hello")
    looked = Checks(threads=1)
    looked.expect(expected(tmp_path / name / "file") for name in "ab")
    looked.settle(tmp_path / "a")
    with pytest.raises(MelError, match="b/file is damaged"):
        looked.settle(tmp_path / "b")
    looked.forget(tmp_path / "b")
    looked.settle()


def test_what_is_read_later_is_settled_first_where_it_is_needed(tmp_path, reads, monkeypatch):
    gate, order = threading.Event(), []

    def slow(file, progress):
        gate.wait(10)
        order.append(file.name)
        return hashlib.sha256(b"hello").hexdigest()

    monkeypatch.setattr(checks, "file_digest", slow)
    looked = Checks(threads=1)
    for name in "abcd":
        (tmp_path / name).write_text("hello")
    looked.expect(expected(tmp_path / name) for name in "abcd")
    threading.Timer(0.1, gate.set).start()
    looked.settle(tmp_path / "d")
    assert order.index("d") <= 1  # the thread may have begun with the first


def test_a_file_that_vanishes_or_cannot_be_read_is_damaged(tmp_path, reads, monkeypatch):
    (tmp_path / "a").write_text("hello")
    monkeypatch.setattr(checks, "file_digest", lambda file, progress: (tmp_path / "gone").read_text())
    looked = Checks()
    looked.expect([expected(tmp_path / "a")])
    with pytest.raises(MelError, match="is damaged"):
        looked.settle()


def test_a_file_that_is_missing_is_damaged(tmp_path):
    with pytest.raises(MelError, match="a is damaged"):
        Checks().expect([expected(tmp_path / "a")])


def test_what_this_process_wrote_is_not_read_again(tmp_path, reads):
    with publish(tmp_path / "a", "thing") as draft:
        (draft / "file.txt").write_text("hello")
    open_artifact(tmp_path / "a", "thing").settle()
    assert reads == []


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A file whose last change is long enough ago."""
    (tmp_path / "a").write_text("hello")
    monkeypatch.setattr(checks, "STILL_SECONDS", 0.0)
    return tmp_path / "a"


def settle_anew(file):
    """As another process would."""
    looked = Checks()
    looked.expect([expected(file)])
    looked.settle()


def test_a_large_file_that_passed_is_remembered_by_the_next_process(old, reads):
    settle_anew(old)
    settle_anew(old)
    assert reads == ["a"]
    assert len(list((old.parent / "cache" / "mel" / "checked").iterdir())) == 1


def test_a_change_that_keeps_size_inode_and_time_of_modification_is_seen(old, reads):
    settle_anew(old)
    before = old.stat()
    time.sleep(0.02)  # one tick of any clock
    flip_a_bit(old, before.st_mtime_ns)
    after = old.stat()
    assert (after.st_size, after.st_ino, after.st_mtime_ns) == (before.st_size, before.st_ino, before.st_mtime_ns)
    with pytest.raises(MelError, match="is damaged"):
        settle_anew(old)
    assert reads == ["a", "a"]


def test_another_file_of_the_same_content_in_its_place_is_read(old, reads):
    settle_anew(old)
    other = old.with_name("other")
    other.write_text("hello")
    os.replace(other, old)
    settle_anew(old)
    assert reads == ["a", "a"]


def test_another_digest_asked_for_is_not_what_passed(old, reads):
    settle_anew(old)
    with pytest.raises(MelError, match="is damaged"):
        looked = Checks()
        looked.expect([expected(old, "hullo")])
        looked.settle()


def test_a_file_that_has_just_changed_is_not_remembered(old, reads, monkeypatch):
    monkeypatch.setattr(checks, "STILL_SECONDS", 60.0)
    settle_anew(old)
    settle_anew(old)
    assert reads == ["a", "a"]


def test_a_record_that_is_torn_or_cannot_be_written_costs_a_reading(old, reads, monkeypatch):
    settle_anew(old)
    (record,) = (old.parent / "cache" / "mel" / "checked").iterdir()
    told = json.loads(record.read_bytes())
    assert told["file"] == str(old) and told["identity"] == list(checks._identity(old))
    record.write_text("{")
    settle_anew(old)
    monkeypatch.setenv("XDG_CACHE_HOME", str(old / "no-folder"))
    settle_anew(old)
    assert reads == ["a", "a", "a"]


def test_nothing_is_published_that_was_made_from_a_damaged_file(tmp_path, reads):
    with publish(tmp_path / "a", "thing") as draft:
        (draft / "file.txt").write_text("hello")
    flip_a_bit(tmp_path / "a" / "file.txt")
    artifact = open_artifact(tmp_path / "a", "thing")
    with pytest.raises(MelError, match=rf"{tmp_path}/a/file.txt is damaged.* delete {tmp_path}/a and run the same"):
        with publish(tmp_path / "b", "thing") as draft:
            draft.reads("a", artifact)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_a_file_that_nobody_reads_is_not_compared(tmp_path, reads):
    with publish(tmp_path / "a", "thing") as draft:
        (draft / "read").mkdir()
        (draft / "read" / "file").write_text("hello")
        (draft / "not-read").write_text("hello")
    flip_a_bit(tmp_path / "a" / "not-read")
    artifact = open_artifact(tmp_path / "a", "thing", reads=("read/*",))
    artifact.settle()
    artifact.check("not-*")
    with pytest.raises(MelError, match="not-read is damaged"):
        artifact.settle()


def test_waiting_that_takes_long_is_said(tmp_path, reads, monkeypatch, caplog):
    (tmp_path / "a").write_bytes(bytes(3 << 20))

    def slow(file, progress):
        time.sleep(0.3)
        progress(3 << 20)
        return hashlib.sha256(bytes(3 << 20)).hexdigest()

    monkeypatch.setattr(checks, "file_digest", slow)
    monkeypatch.setattr(checks, "SAYING_SECONDS", 0.0)
    looked = Checks()
    looked.expect([Expected(tmp_path / "a", hashlib.sha256(bytes(3 << 20)).hexdigest(), REMEDY)])
    with caplog.at_level("INFO", logger="absl"):
        looked.settle()
    assert "Comparing 3 MB that were read with their digests" in caplog.text


FORKING = """
import os, pathlib, sys
from mel.checks import CHECKS, Expected
CHECKS.expect([Expected(pathlib.Path(sys.argv[1]), "0" * 64, "no remedy")])
child = os.fork()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
CHECKS.settle()
os._exit(3)
"""


def test_a_forked_child_begins_with_nothing(tmp_path):
    (tmp_path / "a").write_bytes(bytes(checks.AT_ONCE + 1))
    command = [sys.executable, "-c", FORKING, tmp_path / "a"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout == "3\n"
    assert ended.stderr.strip().endswith("a is damaged, its content is not what was published: no remedy.")
