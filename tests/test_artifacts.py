"""An artefact exists if and only if it is complete, and a reader refuses what does not fit, in a sentence."""

import contextlib
import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mel import artifacts
from mel.artifacts import (
    Workdir,
    allocate,
    discard,
    exists,
    open_artifact,
    publish,
    recorded,
    remove_files,
    require_settings,
    write_text,
)  # fmt: skip
from mel.types import MelError


def put(path, text="hello", kind="thing", **facts):
    with publish(path, kind) as draft:
        (draft / "file.txt").write_text(text)
        draft.facts |= facts
    return open_artifact(path, kind)


def test_what_is_published_can_be_opened(tmp_path):
    artifact = put(tmp_path / "a", answer=42)
    assert artifact.facts["answer"] == 42
    assert (artifact / "file.txt").read_text() == "hello"


def test_the_digest_covers_content_and_nothing_else(tmp_path):
    one, same = put(tmp_path / "a"), put(tmp_path / "elsewhere" / "b")
    assert one.digest == same.digest
    assert one.digest != put(tmp_path / "c", text="hullo").digest
    assert one.digest != put(tmp_path / "d", answer=42).digest


def test_a_failure_inside_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        with publish(tmp_path / "a", "thing") as draft:
            (draft / "file.txt").write_text("half")
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_artefact_and_the_next_one_can_publish(tmp_path):
    program = """
import os, signal, sys
from mel.artifacts import publish
with publish(sys.argv[1], "thing") as draft:
    (draft / "stale.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a")], check=False)
    assert killed.returncode == -9
    assert not exists(tmp_path / "a")
    assert sorted(p.name for p in put(tmp_path / "a").path.iterdir()) == ["file.txt", "manifest.json"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    with pytest.raises(MelError, match="The disk is full while writing .*free some space"):
        with publish(tmp_path / "a", "thing"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["write() failed: No space left on device", "Disk quota exceeded"])
def test_a_full_disk_that_a_library_reports_in_words_is_the_same_sentence(tmp_path, words):
    with pytest.raises(MelError, match="The disk is full while writing"):
        with publish(tmp_path / "a", "thing"):
            raise RuntimeError(f"UNKNOWN: {words}")


def test_a_mapped_file_takes_its_space_at_once(tmp_path, monkeypatch):
    array = allocate(tmp_path / "a.npy", (3, 2), np.float32)
    array[:] = 7
    array.flush()
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.full((3, 2), 7, np.float32))

    def full(descriptor, offset, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MelError, match="The disk is full"):
        with publish(tmp_path / "b", "thing") as draft:
            allocate(draft / "a.npy", (3, 2), np.float32)
    assert not (tmp_path / "b").exists()


def test_nothing_is_published_twice(tmp_path):
    put(tmp_path / "a")
    with pytest.raises(MelError, match="already published"):
        put(tmp_path / "a")


def test_what_was_not_published_is_not_called_so(tmp_path):
    put(tmp_path / "run" / "thing")
    with pytest.raises(MelError, match="run is there, and nothing that was published: move it away, or name another"):
        put(tmp_path / "run")
    with pytest.raises(MelError, match="There is no thing at .*run: there is one at .*run/thing, name that."):
        open_artifact(tmp_path / "run", "thing")


def test_refusals_of_a_reader(tmp_path):
    with pytest.raises(MelError, match="There is no thing at"):
        open_artifact(tmp_path / "nowhere", "thing")
    (tmp_path / "bare").mkdir()
    lost = (
        f"^There is no kb at {tmp_path}/bare, where manifest.json is missing: "
        f"if there was one, delete {tmp_path}/bare and run mel-prepare-data again.$"
    )
    with pytest.raises(MelError, match=lost):
        open_artifact(tmp_path / "bare", "kb")
    a, b = put(tmp_path / "a"), put(tmp_path / "b", text="other")
    with pytest.raises(MelError, match="holds thing, not index"):
        open_artifact(a.path, "index")
    with pytest.raises(MelError, match="was not made from the b at"):
        open_artifact(a.path, "thing", {"b": b})
    (a / "file.txt").write_text("hell")
    with pytest.raises(MelError, match="has 4 bytes instead of 5"):
        open_artifact(a.path, "thing")
    (a / "file.txt").unlink()
    with pytest.raises(MelError, match="is missing"):
        open_artifact(a.path, "thing")


def test_inputs_are_checked_by_digest(tmp_path):
    a = put(tmp_path / "a")
    with publish(tmp_path / "c", "thing") as draft:
        draft.reads("a", a)
    assert open_artifact(tmp_path / "c", "thing", {"a": a}).inputs == {"a": a.digest}
    with pytest.raises(MelError, match="was not made from the a at"):
        open_artifact(tmp_path / "c", "thing", {"a": put(tmp_path / "b", text="other")})


def test_another_format_version_and_a_damaged_manifest_are_refused(tmp_path):
    a = put(tmp_path / "a")
    manifest = json.loads((a / "manifest.json").read_text())
    (a / "manifest.json").write_text(json.dumps(manifest | {"format_version": artifacts.FORMAT_VERSION + 1}))
    with pytest.raises(
        MelError,
        match=f"has format version {artifacts.FORMAT_VERSION + 1}, this program reads {artifacts.FORMAT_VERSION}",
    ):
        open_artifact(a.path, "thing")
    (a / "manifest.json").write_text("{")
    with pytest.raises(MelError, match="is damaged"):
        open_artifact(a.path, "thing")


def test_an_artefact_of_another_command_line_is_refused_by_flag_and_value(tmp_path):
    a = put(tmp_path / "a", settings={"seed": 0, "languages": ["en"]})
    require_settings(a, {"seed": 0, "languages": ("en",)})
    with pytest.raises(MelError, match="made with --seed=0, not 1"):
        require_settings(a, {"seed": 1})


@pytest.mark.parametrize("character", "*?[]\\")
def test_a_path_that_a_library_would_misread_is_refused_before_anything_is_written(tmp_path, character):
    with pytest.raises(MelError) as refused:
        Workdir(tmp_path / f"a{character}b" / "run")
    assert str(refused.value).startswith(f"--workdir={tmp_path}/a{character}b/run has a {character} in its path")
    assert str(refused.value).endswith("choose a folder without any of * ? [ ] \\ in its path.")


def test_a_path_that_is_no_text_is_refused_and_any_other_is_not(tmp_path):
    with pytest.raises(MelError, match=r"--workdir=b'/data/\\xff' is no UTF-8: choose a folder whose name is."):
        Workdir(os.fsdecode(b"/data/\xff"))
    assert Workdir(tmp_path / "é 東%20#;$x{y},z=@1:~&|").kb.name == "kb"


def test_a_flipped_bit_anywhere_in_a_manifest_is_found(tmp_path):
    a = put(tmp_path / "a", answer=42)
    with publish(tmp_path / "b", "thing", {"flag": "value"}) as draft:
        draft.reads("a", a)
        (draft / "file.txt").write_text("hello")
    data = (tmp_path / "b" / "manifest.json").read_bytes()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 7
        (tmp_path / "b" / "manifest.json").write_bytes(flipped)
        with pytest.raises(MelError, match="is damaged: delete|has format version"):
            open_artifact(tmp_path / "b", "thing")
    (tmp_path / "b" / "manifest.json").write_bytes(data)
    open_artifact(tmp_path / "b", "thing")


@pytest.mark.parametrize(
    "content", ["", "[]", "3", "[" * 100_000, '{"kind": 3}', '{"kind": "thing", "format_version": null}', "\xff"]
)
def test_a_manifest_of_the_wrong_shape_is_a_sentence(tmp_path, content):
    a = put(tmp_path / "a")
    (a / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(MelError, match=f"{tmp_path}/a.*: delete {tmp_path}/a and run the same command again."):
        open_artifact(a.path, "thing")


def test_a_manifest_of_absurd_size_is_not_read(tmp_path):
    a = put(tmp_path / "a")
    os.truncate(a / "manifest.json", 1 << 40)
    with pytest.raises(MelError, match="manifest.json is damaged"):
        open_artifact(a.path, "thing")


def test_what_stands_in_another_artefact_is_made_again_with_it(tmp_path):
    with publish(tmp_path / "bundle", "bundle") as draft:
        with publish(draft / "index", "index") as inner:
            (inner / "file").write_text("hello")
    (tmp_path / "bundle" / "index" / "file").write_text("hullo")
    way_out = f"delete {tmp_path}/bundle and run mel-export or mel-update-bundle again."
    with pytest.raises(MelError, match=f"file is damaged, .*: {way_out}"):
        open_artifact(tmp_path / "bundle" / "index", "index")


def test_who_made_an_artefact_again_finds_it_sound(tmp_path):
    a = put(tmp_path / "a")
    (a / "file.txt").write_text("hullo")
    with pytest.raises(MelError, match="is damaged"):
        open_artifact(a.path, "thing")
    discard(a.path)
    assert list(tmp_path.iterdir()) == []
    put(tmp_path / "a")
    with publish(tmp_path / "b", "thing"):
        pass


def test_where_inputs_stood_is_told_and_is_no_part_of_a_digest(tmp_path):
    def made_from(folder, name):
        a = put(folder / name)
        with publish(folder / "made", "thing") as draft:
            draft.inputs["a"] = a.digest  # as a stage does that knows only the digest
        return open_artifact(folder / "made", "thing")

    one, other = made_from(tmp_path / "one", "a"), made_from(tmp_path / "other" / "deeper", "b")
    assert (one.places, other.places) == ({"a": "a"}, {"a": "b"})
    assert one.digest == other.digest


def test_a_text_is_written_whole_and_leaves_nothing_behind(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "one")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_text(tmp_path / "a", "other")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "one"


@pytest.mark.parametrize("links", [True, False])
def test_a_file_of_another_artefact_is_taken_over_by_a_link_or_else_as_a_copy(tmp_path, monkeypatch, links):
    with publish(tmp_path / "old", "kb") as draft:
        (draft / "deep").mkdir()
        (draft / "deep" / "a").write_text("content")
    old = open_artifact(tmp_path / "old", "kb")
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "another device")))
    with publish(tmp_path / "new", "kb") as draft:
        draft.adopts(old, "deep/a")
        (draft / "b").write_text("more")
    new = open_artifact(tmp_path / "new", "kb")
    assert os.path.samefile(tmp_path / "old/deep/a", tmp_path / "new/deep/a") == links
    assert new.files["deep/a"] == old.files["deep/a"] and set(new.files) == {"deep/a", "b"}


def test_what_is_damaged_is_not_taken_over(tmp_path):
    with publish(tmp_path / "old", "kb") as draft:
        (draft / "a").write_bytes(bytes(2 << 20))
    old_file = tmp_path / "old" / "a"
    old_file.write_bytes(b"x" + old_file.read_bytes()[1:])
    with pytest.raises(MelError, match="old/a is damaged"), publish(tmp_path / "new", "kb") as draft:
        draft.adopts(open_artifact(tmp_path / "old", "kb"), "a")
    assert not (tmp_path / "new").exists()


def test_what_another_published_before_the_lock_was_had_is_found_before_the_work(tmp_path, monkeypatch):
    claim, worked = artifacts.claim, []

    @contextlib.contextmanager
    def late(path, **options):
        (tmp_path / "a").mkdir(exist_ok=True)  # by who held the lock until now
        with claim(path, **options):
            yield

    monkeypatch.setattr(artifacts, "claim", late)
    with pytest.raises(MelError, match="a has just been published by another process: run the same command again"):
        with publish(tmp_path / "a", "thing"):
            worked.append("all for nothing")
    assert not worked


def test_of_what_was_removed_the_manifest_tells_what_it_was(tmp_path):
    source, path = put(tmp_path / "source"), tmp_path / "a"
    with publish(path, "thing") as draft:
        draft.reads("source", source)
        (draft / "folder").mkdir()
        (draft / "folder" / "file.txt").write_text("hello")
    before = open_artifact(path, "thing")
    remove_files(path)
    assert [file.name for file in path.rglob("*")] == ["manifest.json"] and not exists(path)
    with pytest.raises(MelError, match=f"The files of {path} were removed when nothing needed them: delete"):
        open_artifact(path, "thing")
    found = recorded(path, "thing", {"source": source})
    assert found.removed and (found.digest, found.inputs) == (before.digest, before.inputs)
    with pytest.raises(MelError, match="was not made from the source at"):
        recorded(path, "thing", {"source": put(tmp_path / "other", text="other")})
    remove_files(path)
    remove_files(tmp_path / "nothing")
    assert recorded(tmp_path / "nothing", "thing", {}) is None


def test_what_was_removed_is_published_again_in_its_place(tmp_path):
    before = put(tmp_path / "a")
    remove_files(tmp_path / "a")
    with pytest.raises(RuntimeError), publish(tmp_path / "a", "thing"):
        raise RuntimeError
    assert recorded(tmp_path / "a", "thing", {}).removed
    after = put(tmp_path / "a")
    assert exists(tmp_path / "a") and after.digest == before.digest
    assert recorded(tmp_path / "a", "thing", {}) == after


def test_removing_that_was_ended_in_the_middle_is_finished(tmp_path, monkeypatch):
    put(tmp_path / "a")
    with monkeypatch.context() as broken:
        broken.setattr("pathlib.Path.unlink", None)
        with pytest.raises(TypeError):
            remove_files(tmp_path / "a")
    assert not exists(tmp_path / "a") and (tmp_path / "a" / "file.txt").exists()
    remove_files(tmp_path / "a")
    assert not (tmp_path / "a" / "file.txt").exists() and recorded(tmp_path / "a", "thing", {}).removed
