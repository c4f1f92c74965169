import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import pathlib
import pickle
import tarfile

import pytest
from backports import zstd

from mel.corpora import archives
from mel.corpora.archives import Part, find_archive, list_parts
from mel.corpora.damuel import read_pages
from mel.corpora.malformed import Malformed
from mel.types import MelError

COMPRESS = {
    ".xz": lzma.compress, ".bz2": bz2.compress, ".gz": gzip.compress, ".zst": zstd.compress, "": bytes,
}  # fmt: skip
TEXT = b'{"qid": "Q1"}\n\n{"qid": "Q2"}\n{"qid": "Q3"}'
LINES = [(1, b'{"qid": "Q1"}'), (3, b'{"qid": "Q2"}'), (4, b'{"qid": "Q3"}')]


def read_lines(part):
    return archives.read_lines(part, lambda line, reason: pytest.fail(f"{line}: {reason}"))


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


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("write, name", [(write_tar, "damuel_1.0_es.tar"), (write_folder, "damuel_1.0_es")])
def test_every_layout_gives_the_same_lines(tmp_path, write, name, suffix):
    part = f"part-00000{suffix}"
    archive = write(tmp_path / name, {part: COMPRESS[suffix](TEXT)})
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


@pytest.mark.parametrize("suffix", [suffix for suffix in COMPRESS if suffix])
@pytest.mark.parametrize("write, name", [(write_tar, "damuel_1.0_es.tar"), (write_folder, "damuel_1.0_es")])
def test_a_truncated_or_damaged_part_is_refused_by_name(tmp_path, write, name, suffix):
    text = b"".join(b"%d\n" % (n * n) for n in range(9999))
    checked = {zstd.CompressionParameter.checksum_flag: 1}
    data = zstd.compress(text, options=checked) if suffix == ".zst" else COMPRESS[suffix](text)
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


def test_a_damaged_header_after_the_first_part_is_refused(tmp_path):
    path = write_tar(tmp_path / "damuel_1.0_es.tar", {"part-00000": b"0" * 1024, "part-00001": b"1" * 1024})
    data = bytearray(path.read_bytes())
    data[1536:1546] = b"!" * 10
    path.write_bytes(data)
    with pytest.raises(MelError, match="damaged after damuel_1.0_es/part-00000"):
        list_parts(path)


def test_parts_of_every_compression_are_read_together(tmp_path):
    files = {f"part-0000{n}{suffix}": COMPRESS[suffix](b"%d\n" % n) for n, suffix in enumerate(COMPRESS)}
    parts = list_parts(write_tar(tmp_path / "damuel_1.0_es.tar", files))
    assert [line for part in parts for _, line in read_lines(part)] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_broken_part_beside_others_is_refused_by_name(tmp_path):
    records = [{"qid": f"Q{number}", "lang": "en", "label": label} for number, label in enumerate(("Alpha", "Beta"), 1)]
    alpha, beta = (json.dumps(record).encode() for record in records)
    files = {"part-00000": alpha, "part-00001.gz": gzip.compress(beta), "part-00002.zst": b"xx"}
    write_folder(tmp_path / "damuel_1.0_en", files)
    plain, gzipped, broken = list_parts(find_archive(tmp_path, "en"))
    pages = [page for part in (plain, gzipped) for page in read_pages(part, "en", Malformed(0))]
    assert [page.entity.title for page in pages] == ["Alpha", "Beta"]
    with pytest.raises(MelError, match="part-00002.zst cannot be read"):
        list(read_lines(broken))


@pytest.mark.parametrize("suffix", [".xz", ".zst", ".bz2", ".gz"])
def test_streams_one_after_the_other_are_one_part_and_rubbish_after_them_is_refused(tmp_path, suffix):
    two = COMPRESS[suffix](b"1\n") + COMPRESS[suffix](b"2\n")
    archive = write_folder(tmp_path / "a", {f"part-0{suffix}": two + bytes(8), f"part-1{suffix}": two + b"rubbish"})
    good, bad = list_parts(archive)
    assert list(read_lines(good)) == [(1, b"1"), (2, b"2")]
    with pytest.raises(MelError, match=f"part-1{suffix} cannot be read"):
        list(read_lines(bad))


def test_a_part_whose_name_hides_its_compression_is_refused(tmp_path):
    (part,) = list_parts(write_folder(tmp_path / "a", {"part-00000": lzma.compress(TEXT)}))
    with pytest.raises(MelError, match="part-00000 cannot be read .*not compressed, but it is .xz"):
        list(read_lines(part))


def test_a_stream_that_asks_for_too_much_memory_is_refused(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    data = bytearray(lzma.compress(TEXT, lzma.FORMAT_RAW, filters=filters))
    header = lzma.compress(b"", lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20}])
    claiming = header[:1] + (3 << 30).to_bytes(4, "little") + header[5:] + bytes(data)
    (part,) = list_parts(write_folder(tmp_path / "a", {"part-00000.xz": claiming}))
    with pytest.raises(MelError, match="part-00000.xz cannot be read .*[Mm]emory"):
        list(read_lines(part))


def test_a_byte_order_mark_is_no_part_of_the_first_line_and_utf16_is_named(tmp_path):
    files = {"part-0": b"\xef\xbb\xbf" + TEXT}
    files |= {f"part-{n}": TEXT.decode().encode(name) for n, name in enumerate(("utf-16", "utf-16-be", "utf-16-le"), 1)}
    marked, *others = list_parts(write_folder(tmp_path / "a", files))
    assert list(read_lines(marked)) == LINES
    for part in others:
        with pytest.raises(MelError, match=f"{part.name} is UTF-16: convert it to UTF-8"):
            list(read_lines(part))


@pytest.mark.parametrize("write, name", [(write_tar, "damuel_1.0_es.tar"), (write_folder, "damuel_1.0_es")])
def test_what_is_not_read_is_named_but_for_what_is_published_beside_the_parts(tmp_path, write, name, caplog):
    others = ("part-00001.lz4", "part-2.jsonl", "data.xz", "README", "LICENSE", "schema.json", ".DS_Store")
    archive = write(tmp_path / name, {"part-00000": TEXT} | dict.fromkeys(others, b"x"))
    with caplog.at_level("WARNING", logger="absl"):
        assert [part.name for part in list_parts(archive)] == ["part-00000"]
    (message,) = caplog.messages
    names = {pathlib.PurePosixPath(one).name for one in message.rpartition(": ")[2].rstrip(".").split(", ")}
    assert message.startswith(f"{archive}: not read") and names == {"part-00001.lz4", "part-2.jsonl", "data.xz"}


def test_a_compressed_archive_is_named(tmp_path, caplog):
    (tmp_path / "damuel_1.0_es.tar.xz").write_bytes(b"")
    with pytest.raises(MelError, match=r"languages there: none\. .*es.tar.xz is not read: decompress it"):
        find_archive(tmp_path, "es")
    archive = write_tar(tmp_path / "damuel_1.0_es.tar", {"part-00000": TEXT})
    with caplog.at_level("WARNING", logger="absl"):
        assert find_archive(tmp_path, "es") == archive
    assert "damuel_1.0_es.tar.xz is not read" in caplog.text


def add(tar, name, data=b"", **values):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in values.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def test_links_in_a_tar_are_followed(tmp_path):
    with tarfile.open(path := tmp_path / "damuel_1.0_es.tar", "w:") as tar:
        add(tar, "./es/blobs/a", b"a\n")
        add(tar, "es/part-0", type=tarfile.SYMTYPE, linkname="blobs/b")
        add(tar, "es/part-1", type=tarfile.LNKTYPE, linkname="es/blobs/a")
        add(tar, "es/blobs/b", b"b\n")
        add(tar, "es/part-2", b"c\n")
    assert [list(read_lines(part)) for part in list_parts(path)] == [[(1, b"b")], [(1, b"a")], [(1, b"c")]]


def test_a_part_that_is_another_name_of_a_part_is_read_once(tmp_path, caplog):
    with tarfile.open(tar_path := tmp_path / "damuel_1.0_es.tar", "w:") as tar:
        add(tar, "part-0", b"a\n")
        add(tar, "part-1", type=tarfile.LNKTYPE, linkname="part-0")
    folder = write_folder(tmp_path / "damuel_1.0_de", {"part-0": b"a\n"})
    (folder / "part-1").symlink_to("part-0")
    with caplog.at_level("WARNING", logger="absl"):
        assert [part.name for path in (tar_path, folder) for part in list_parts(path)] == ["part-0", "part-0"]
    assert caplog.messages == [
        f"{tar_path}:part-1 is not read: it is a link to part-0.",
        f"{folder}/part-1 is not read: it is a link to part-0.",
    ]


BAD_MEMBERS = {
    "a link to nothing": ([("part-0", {"type": tarfile.SYMTYPE, "linkname": "nowhere"})], "a link to nowhere, which"),
    "a link out of the tar": ([("part-0", {"type": tarfile.SYMTYPE, "linkname": "../../x"})], "a link to ../../x"),
    "links in a ring": (
        [(f"part-{a}", {"type": tarfile.SYMTYPE, "linkname": f"part-{b}"}) for a, b in ((0, 1), (1, 0))],
        "part-0 is a link to part-",
    ),
    "a FIFO": ([("part-0", {"type": tarfile.FIFOTYPE})], "part-0 is no file"),
    "a device": ([("part-0", {"type": tarfile.CHRTYPE})], "part-0 is no file"),
    "a folder": ([("part-0", {"type": tarfile.DIRTYPE})], "part-0 is no file"),
    "several folders": ([("a/part-0", {}), ("b/part-1", {})], r"parts in several folders \(a, b\)"),
}


@pytest.mark.parametrize("members, message", BAD_MEMBERS.values(), ids=BAD_MEMBERS.keys())
def test_a_member_that_cannot_be_read_is_refused_by_name(tmp_path, members, message):
    with tarfile.open(path := tmp_path / "damuel_1.0_es.tar", "w:") as tar:
        for name, values in members:
            add(tar, name, **values)
    with pytest.raises(MelError, match=message):
        list_parts(path)


def test_a_sparse_member_is_refused_by_name(tmp_path):
    with tarfile.open(path := tmp_path / "damuel_1.0_es.tar", "w:", format=tarfile.PAX_FORMAT) as tar:
        headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": "9", "GNU.sparse.map": "0,2"}
        add(tar, "part-0", b"a\n", pax_headers=headers)
    with pytest.raises(MelError, match="part-0 is a sparse member"):
        list_parts(path)


def test_of_two_members_of_one_name_the_last_counts_as_when_unpacked(tmp_path, caplog):
    with tarfile.open(path := tmp_path / "damuel_1.0_es.tar", "w:") as tar:
        add(tar, "es/part-0", b"old\n")
        add(tar, "./es/part-0", b"new\n")
    with caplog.at_level("WARNING", logger="absl"):
        (part,) = list_parts(path)
    assert list(read_lines(part)) == [(1, b"new")]
    assert caplog.messages == [f"{path} has several members es/part-0: the last one is read."]


@pytest.mark.parametrize("name", ["part-00000.xz", "part-00000"])
def test_a_fifo_is_refused_and_not_waited_for(tmp_path, name):
    folder = write_folder(tmp_path / "damuel_1.0_es", {})
    os.mkfifo(folder / name)
    with pytest.raises(MelError, match=f"{name} is a device or pipe, not a file"):
        list_parts(folder)
    os.mkfifo(tmp_path / "damuel_1.0_de.tar")
    with pytest.raises(MelError, match="damuel_1.0_de.tar is a device or pipe, not a file"):
        list_parts(find_archive(tmp_path, "de"))


def test_a_broken_link_is_refused(tmp_path):
    folder = write_folder(tmp_path / "damuel_1.0_es", {})
    (folder / "part-0").symlink_to("nowhere")
    with pytest.raises(MelError, match="part-0 cannot be read: No such file"):
        list_parts(folder)


@pytest.mark.parametrize("language", ["../x", "", "a/b", "a\0b", ".", "en" * 200, "e n"])
def test_what_cannot_be_a_language_is_refused(tmp_path, language):
    with pytest.raises(MelError, match="is not a language"):
        find_archive(tmp_path, language)


def test_a_line_over_the_bound_is_skipped_and_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("mel.corpora.lines.MAX_LINE_BYTES", 1 << 20)
    bomb = b'{"a": 1}\n' + b"0" * (5 << 20) + b"\n\n" + b'{"b": 2}\n' + b"1" * (1 << 20) + b"2"
    (part,) = list_parts(write_folder(tmp_path / "a", {"part-0.xz": lzma.compress(bomb)}))
    skipped = []
    lines = [(line, json.loads(data)) for line, data in archives.read_lines(part, lambda *what: skipped.append(what))]
    assert lines == [(1, {"a": 1}), (4, {"b": 2})]
    assert skipped == [(2, "it is longer than 1 MB"), (5, "it is longer than 1 MB")]


def test_a_part_over_the_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mel.corpora.lines.MAX_LINE_BYTES", 1 << 20)
    monkeypatch.setattr("mel.corpora.lines.MAX_FILE_BYTES", 3 << 20)
    (part,) = list_parts(write_folder(tmp_path / "a", {"part-0.xz": lzma.compress(bytes(5 << 20))}))
    with pytest.raises(MelError, match="part-0.xz holds more than 0 GB"):
        list(archives.read_lines(part, lambda *_: None))


@pytest.mark.parametrize("suffix, compress", [("", bytes), (".xz", lzma.compress), (".bz2", bz2.compress)])
def test_the_digest_of_a_part_is_that_of_all_its_bytes_wherever_it_lies(tmp_path, suffix, compress):
    data = compress(b'{"qid": "Q1"}\n' * 9_999)
    (tmp_path / "damuel_1.0_xx").mkdir()
    (tmp_path / "damuel_1.0_xx" / f"part-00000{suffix}").write_bytes(data)
    with tarfile.open(tmp_path / "damuel_1.0_xx.tar", "w") as tar:
        tar.add(tmp_path / "damuel_1.0_xx", "damuel_1.0_xx")
    for archive in ("damuel_1.0_xx", "damuel_1.0_xx.tar"):
        (part,) = list_parts(tmp_path / archive)
        digest = hashlib.sha256()
        assert sum(1 for _ in archives.read_lines(part, no_line_is_skipped, digest)) == 9_999
        assert digest.hexdigest() == hashlib.sha256(data).hexdigest()
        assert part.place == f"part-00000{suffix} of {archive}"


def no_line_is_skipped(line, reason):
    raise AssertionError(f"{line}: {reason}")
