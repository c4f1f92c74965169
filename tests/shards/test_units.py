"""Units: only what is missing is made, whatever was killed, and nothing is trusted that was made of something else."""

import errno
import os
import shutil
from collections.abc import Iterator

import pytest

from mel.artifacts import Workdir, open_artifact
from mel.bin import prepare_data
from mel.corpora import archives, columns
from mel.shards import units
from mel.types import MelError
from mel.verification import verify
from tests.configs import config_of, with_flags
from tests.crash import is_killed_at

PARTS = 3  # that the archive of a language has


@pytest.fixture(scope="module")
def flags(tiny_world, tmp_path_factory):
    """Of a preparation from an unpacked archive, which a test may change in its copy."""
    folder = tmp_path_factory.mktemp("units")
    (folder / "damuel" / "damuel_1.0_ar").mkdir(parents=True)
    for part in archives.list_parts(archives.find_archive(tiny_world / "damuel", "ar")):
        with open(part.path, "rb") as file:
            file.seek(part.offset)
            (folder / "damuel" / "damuel_1.0_ar" / part.name).write_bytes(file.read(part.size))
    return dict(
        damuel=str(folder / "damuel"), languages=("ar",), tokenizer=str(tiny_world / "tokenizer"), mention_tokens=16,
        entity_tokens=16, held_out=0.2, workers=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """The digests of all that is published in one go."""
    run = tmp_path_factory.mktemp("whole") / "run"
    prepare_data.main(config_of(prepare_data.Config, workdir=str(run), **flags))
    assert not (run / "units").exists()
    return digests(run)


@pytest.fixture
def config(flags, tmp_path):
    return config_of(prepare_data.Config, workdir=str(tmp_path / "run"), **flags)


@pytest.fixture
def read(monkeypatch):
    """The names of the parts that are read, as they are."""
    names, write = [], units._write

    def note(draft, item, reading):
        names.append(item[1].name)
        write(draft, item, reading)

    monkeypatch.setattr(units, "_write", note)
    return names


def digests(run):
    return {finding.path: finding.digest for finding in verify(run) if not finding.path.startswith("units")}


def fail_at(monkeypatch, place, *path):
    """Whoever opens a column so named finds the disk full."""

    class Full(columns.ColumnWriter):
        def __init__(self, path, dtype):
            if place in str(path):
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            super().__init__(path, dtype)

    for module in path:
        monkeypatch.setattr(module, "ColumnWriter", Full)


def test_only_parts_that_are_missing_are_read_after_a_kill(config, flags, whole, read):
    arguments = [f"--{name}={','.join(each) if isinstance(each, tuple) else each}" for name, each in flags.items()]
    killed = is_killed_at("os.rename", "ar/part-00001", "prepare_data", [f"--workdir={config.workdir}", *arguments])
    assert killed and (Workdir(config.workdir).units / "ar" / "part-00000").is_dir()
    prepare_data.main(config)
    assert read == ["part-00001", "part-00002"] and digests(config.workdir) == whole
    assert not Workdir(config.workdir).units.exists()
    assert not [path for path in Workdir(config.workdir).path.rglob(".*") if path.name.startswith((".draft", ".lock"))]


def test_a_disk_that_fills_in_the_merge_is_a_sentence_and_no_part_is_read_again(config, whole, read, monkeypatch):
    from mel.corpora import sorting

    with monkeypatch.context() as patch:
        fail_at(patch, "order.npy", sorting)
        with pytest.raises(MelError, match="The disk is full while writing .*kb; nothing of it was kept: free some"):
            prepare_data.main(config)
    assert len(read) == PARTS and not Workdir(config.workdir).kb.exists()
    prepare_data.main(config)
    assert len(read) == PARTS and digests(config.workdir) == whole


@pytest.fixture
def stopped(config, monkeypatch):
    """Units are there, and nothing else."""
    from mel.shards import prepare

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "merge_ids", stop)
        with pytest.raises(MelError, match="stopped here"):
            prepare_data.main(config)
    return Workdir(config.workdir)


def stop(*arguments):
    for each in arguments:
        list(each) if isinstance(each, Iterator) else None  # blocks come only to those who ask
    raise MelError("stopped here")


def test_a_unit_that_is_damaged_is_made_again(config, stopped, whole, read, caplog):
    path = stopped.units / "ar" / "part-00001" / "links_lines.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    prepare_data.main(config)
    assert read == ["part-00001"] and digests(config.workdir) == whole
    assert "links_lines.npy" in caplog.text and "That is done now." in caplog.text


def test_a_unit_of_another_content_or_other_rows_is_made_again(config, stopped, read, tmp_path):
    damuel = shutil.copytree(config.archives.damuel, tmp_path / "damuel")
    moved = with_flags(config, damuel=str(damuel))
    part = damuel / "damuel_1.0_ar" / "part-00002"
    data = part.read_bytes()
    assert b'"wiki"' in data
    part.write_bytes(data.replace(b'"wiki"', b'"wikj"', 1))
    with pytest.raises(MelError, match="stopped here"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mel.shards.prepare.merge_ids", stop)
            prepare_data.main(moved)
    assert read == ["part-00002"]
    prepare_data.main(with_flags(moved, mention_tokens=24))
    assert read[1:] == ["part-00000", "part-00001", "part-00002"]


def test_a_unit_holds_what_is_wanted_and_no_more(config, whole, read):
    prepare_data.main(config)
    work = Workdir(config.workdir)
    shutil.rmtree(work.mentions("train"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mel.shards.prepare.write_token_rows", stop)
        with pytest.raises(MelError, match="stopped here"):
            prepare_data.main(config)
    assert len(read) == 2 * PARTS
    unit = open_artifact(work.units / "ar" / "part-00000", units.KIND)
    assert unit.facts["contents"] == ["train"] and not (unit / "titles.npy").exists()
    prepare_data.main(config)
    assert len(read) == 2 * PARTS and digests(config.workdir) == whole


def test_a_part_that_grows_or_vanishes_during_the_run_is_a_sentence(config, tmp_path, monkeypatch):
    damuel = shutil.copytree(config.archives.damuel, tmp_path / "damuel")
    config, part = with_flags(config, damuel=str(damuel)), damuel / "damuel_1.0_ar" / "part-00001"
    data, read_pages = part.read_bytes(), units.damuel.read_pages

    def grow(one, *arguments):
        for page in read_pages(one, *arguments):
            if one.name == part.name:
                os.truncate(part, len(data) + 1)
            yield page

    with monkeypatch.context() as patch:
        patch.setattr(units.damuel, "read_pages", grow)
        with pytest.raises(MelError, match="part-00001 changed while it was read: wait until nobody writes it any"):
            prepare_data.main(config)

    def vanish(one, *arguments):
        if one.name == part.name:
            part.unlink()
        return read_pages(one, *arguments)

    part.write_bytes(data)
    with monkeypatch.context() as patch:
        patch.setattr(units.damuel, "read_pages", vanish)
        with pytest.raises(MelError, match="part-00001 cannot be read .*No such file"):
            prepare_data.main(config)
    part.write_bytes(data)
    prepare_data.main(config)
    assert Workdir(config.workdir).kb.exists()
