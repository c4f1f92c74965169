import bz2
import io
import lzma
import pickle
import tarfile

import pytest

from mel.corpora.archives import Part, find_archive, list_parts, read_lines
from mel.types import MelError

COMPRESS = {"xz": lzma.compress, "bz2": bz2.compress, "plain": bytes}
SUFFIX = {"xz": ".xz", "bz2": ".bz2", "plain": ""}
TEXT = b'{"qid": "Q1"}\n\n{"qid": "Q2"}\n{"qid": "Q3"}'
LINES = [(1, b'{"qid": "Q1"}'), (3, b'{"qid": "Q2"}'), (4, b'{"qid": "Q3"}')]


def write_tar(path, files):
    with tarfile.open(path, "w:") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{path.stem}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_folder(path, files):
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("write, name", [(write_tar, "damuel_1.0_es.tar"), (write_folder, "damuel_1.0_es")])
def test_every_layout_gives_the_same_lines(tmp_path, write, name, kind):
    part = f"part-00000{SUFFIX[kind]}"
    archive = write(tmp_path / name, {part: COMPRESS[kind](TEXT)})
    assert find_archive(tmp_path, "es") == archive
    (found,) = list_parts(archive)
    assert found.name == part
    assert list(read_lines(found)) == LINES


def test_parts_are_sorted_and_can_be_read_in_any_order_by_another_process(tmp_path):
    files = {f"part-{n:05}.xz": lzma.compress(b"%d\n" % n) for n in (2, 0, 1)}
    archive = write_tar(tmp_path / "damuel_1.0_es.tar", files | {"README": b"not a part"})
    parts = pickle.loads(pickle.dumps(list_parts(archive)))
    assert [part.name for part in parts] == ["part-00000.xz", "part-00001.xz", "part-00002.xz"]
    assert [list(read_lines(part)) for part in reversed(parts)] == [[(1, b"2")], [(1, b"1")], [(1, b"0")]]


def test_a_part_in_several_compressions_is_read_once(tmp_path, caplog):
    files = {"part-00001.bz2": bz2.compress(b"1"), "part-00001.xz": lzma.compress(b"1"), "part-00000": b"0"}
    folder = write_folder(tmp_path / "damuel_1.0_es", files)
    with caplog.at_level("WARNING", logger="absl"):
        parts = list_parts(folder)
    assert [part.name for part in parts] == ["part-00000", "part-00001.xz"]
    assert caplog.messages == [f"{folder}/part-00001.bz2 is not read: part-00001.xz has the same records."]


def test_a_folder_of_parts_is_the_archive_of_every_language(tmp_path):
    folder = write_folder(tmp_path / "parts", {"part-00000": TEXT})
    assert find_archive(folder, "es") == find_archive(folder, "ja") == folder


def test_a_part_is_named_by_its_archive(tmp_path):
    assert str(Part(tmp_path / "a.tar", "part-00000.xz", 512, 9)) == f"{tmp_path}/a.tar:part-00000.xz"
    assert str(Part(tmp_path / "part-00000", "part-00000", 0, 9)) == f"{tmp_path}/part-00000"


def test_a_missing_language_is_refused_with_the_languages_there(tmp_path):
    for language in ("ko", "es"):
        write_tar(tmp_path / f"damuel_1.0_{language}.tar", {"part-00000": TEXT})
    with pytest.raises(MelError, match=r"no damuel_\*_fi.tar; languages there: es, ko\.$"):
        find_archive(tmp_path, "fi")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(MelError, match="nowhere is not a folder"):
        find_archive(tmp_path / "nowhere", "es")


def test_two_archives_of_one_language_are_refused(tmp_path):
    for version in ("1.0", "1.1"):
        write_tar(tmp_path / f"damuel_{version}_es.tar", {"part-00000": TEXT})
    with pytest.raises(MelError, match=r"several archives of 'es' \(damuel_1.0_es.tar, damuel_1.1_es.tar\)"):
        find_archive(tmp_path, "es")


@pytest.mark.parametrize("write, name", [(write_tar, "damuel_1.0_es.tar"), (write_folder, "damuel_1.0_es")])
def test_an_archive_without_parts_is_refused(tmp_path, write, name):
    with pytest.raises(MelError, match=f"{name} holds no part-NNNNN"):
        list_parts(write(tmp_path / name, {"README": b"nothing"}))


@pytest.mark.parametrize("compress, suffix", [(lzma.compress, ".xz"), (bz2.compress, ".bz2")])
@pytest.mark.parametrize("write, name", [(write_tar, "damuel_1.0_es.tar"), (write_folder, "damuel_1.0_es")])
def test_a_truncated_or_damaged_part_is_refused_by_name(tmp_path, write, name, compress, suffix):
    data = compress(b"".join(b"%d\n" % (n * n) for n in range(9999)))
    damaged = data[:2000] + bytes([data[2000] ^ 255]) + data[2001:]
    files = {f"part-00000{suffix}": data[:-20], f"part-00001{suffix}": damaged, f"part-00002{suffix}": b""}
    truncated, damaged, empty = list_parts(write(tmp_path / name, files))
    for part, wrong in [(truncated, "is truncated"), (damaged, "cannot be read"), (empty, "is truncated")]:
        with pytest.raises(MelError, match=f"{name}.{part.name} {wrong}"):
            list(read_lines(part))


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, lzma.compress(TEXT)])
def test_what_is_no_tar_is_refused(tmp_path, data):
    path = tmp_path / "damuel_1.0_es.tar"
    path.write_bytes(data)
    with pytest.raises(MelError, match="damuel_1.0_es.tar is truncated or not an uncompressed tar"):
        list_parts(path)


# One member takes a header of 512 bytes and 1024 of data.
@pytest.mark.parametrize("size", [512 + 700, 512 + 1024, 512 + 1024 + 100, 2 * 1536])
def test_a_truncated_tar_is_refused(tmp_path, size):
    path = write_tar(tmp_path / "damuel_1.0_es.tar", {"part-00000": b"0" * 1024, "part-00001": b"1" * 1024})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(MelError, match="damuel_1.0_es.tar is truncated"):
        list_parts(path)


def test_a_damaged_header_behind_the_first_part_is_refused(tmp_path):
    path = write_tar(tmp_path / "damuel_1.0_es.tar", {"part-00000": b"0" * 1024, "part-00001": b"1" * 1024})
    data = bytearray(path.read_bytes())
    data[1536:1546] = b"!" * 10
    path.write_bytes(data)
    with pytest.raises(MelError, match="damaged behind part-00000"):
        list_parts(path)
