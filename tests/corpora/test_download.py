"""Fetching from a server on this machine that stalls, breaks off, is busy, and tells lies."""

import dataclasses
import fcntl
import hashlib
import http.server
import io
import random
import tarfile
import threading

import pytest

from mel.corpora import download
from mel.corpora.archives import list_parts
from mel.corpora.download import Patience, fetch_archives
from mel.types import MelError

SILENCE_S = 1.0
PATIENCE = Patience(tries=3, wait_s=0.01, longest_wait_s=0.05, silence_s=60.0)
IMPATIENCE = dataclasses.replace(PATIENCE, silence_s=SILENCE_S)


def tar_of(size):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:") as tar:
        member = tarfile.TarInfo("damuel_1.0_es/part-00000")
        member.size = size
        tar.addfile(member, io.BytesIO(random.Random(0).randbytes(size)))
    return file.getvalue()


TAR = tar_of(700_000)


class Server:
    """Serves `files`; the n-th request for an archive is answered as the n-th of `script` says, the rest in full.

    Words of a script: a number breaks off after so many bytes; "stall" sends 100,000 and "mute" none, and
    then nothing until the server closes; a number as text is a status; "whole" ignores ranges; "other
    range" begins one byte late.
    """

    def __init__(self):
        self.files = {"/damuel_1.0_es.tar": TAR}
        self.script = []
        self.busy = 0  # how often the md5 is not to be had
        self.asked = []  # (path, range) of each request
        self.closing = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def answer(self, request):
        asked = request.headers.get("Range")
        self.asked.append((request.path, asked))
        data = self.files.get(request.path)
        word = self.script.pop(0) if self.script and request.path.endswith(".tar") else None
        status, first, headers = 404 if data is None else 200, 0, {}
        if self.busy and request.path.endswith(".md5"):
            self.busy, word = self.busy - 1, "503"
        if isinstance(word, str) and word.isdigit():
            status, headers = int(word), {"Retry-After": "0"}
        elif data is not None and asked and word != "whole":
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
            status = 206 if first < len(data) else 416
            last, told = len(data) - 1, first + (word == "other range")
            headers["Content-Range"] = f"bytes {told}-{last}/{len(data)}" if status == 206 else f"bytes */{len(data)}"
        body = data[first:] if status in (200, 206) else b""
        request.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            request.send_header(name, value)
        request.end_headers()
        try:
            request.wfile.write(body[: word if isinstance(word, int) else {"stall": 100_000, "mute": 0}.get(word)])
            request.wfile.flush()
            if word in ("stall", "mute"):
                self.closing.wait()
        except ConnectionError:
            pass
        request.close_connection = True


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def ranges(server):
    return [asked for path, asked in server.asked if path.endswith(".tar")]


def fetch(server, folder, **changes):
    fetch_archives(folder, ["es"], server.url, changes.get("patience", PATIENCE))
    assert [path.name for path in folder.iterdir() if not path.name.endswith(".md5")] == ["damuel_1.0_es.tar"]
    assert (folder / "damuel_1.0_es.tar").read_bytes() == TAR


def test_an_archive_is_fetched_into_a_folder_that_is_made_and_not_again(server, tmp_path, caplog):
    with caplog.at_level("WARNING", logger="absl"):
        fetch(server, tmp_path / "new")
    assert caplog.messages == [
        f"{server.url}/damuel_1.0_es.tar: no md5 is published beside it, so only its length and its layout are checked."
    ]
    count = len(server.asked)
    fetch(server, tmp_path / "new")
    assert len(server.asked) == count
    assert [part.name for part in list_parts(tmp_path / "new" / "damuel_1.0_es.tar")] == ["part-00000"]


def test_it_goes_on_from_where_the_connection_broke(server, tmp_path):
    server.script = [300_000, "503", 200_000, "stall"]
    fetch(server, tmp_path, patience=IMPATIENCE)
    first, *others = ranges(server)
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in others]
    assert first is None and starts == sorted(starts)
    assert starts[0] == starts[1] and 0 < starts[0] <= 300_000
    assert starts[1] < starts[2] <= 500_000 and starts[2] < starts[-1]  # on a busy machine more tries bring nothing


def test_a_later_command_goes_on_from_the_draft(server, tmp_path):
    (tmp_path / ".draft-damuel_1.0_es.tar").write_bytes(TAR[:123_456])
    fetch(server, tmp_path)
    assert ranges(server) == ["bytes=123456-"]


def test_a_draft_that_is_whole_is_not_fetched_again(server, tmp_path):
    (tmp_path / ".draft-damuel_1.0_es.tar").write_bytes(TAR)
    fetch(server, tmp_path)
    assert ranges(server) == [f"bytes={len(TAR)}-"]


@pytest.mark.parametrize("word", ["whole", "other range"])
def test_a_server_that_cannot_go_on_is_asked_from_the_beginning(server, tmp_path, word):
    (tmp_path / ".draft-damuel_1.0_es.tar").write_bytes(b"x" * 1000)
    server.script = [word]
    fetch(server, tmp_path)
    assert ranges(server)[-1] in (None, "bytes=1000-")


def test_a_draft_longer_than_the_archive_is_begun_anew(server, tmp_path):
    (tmp_path / ".draft-damuel_1.0_es.tar").write_bytes(TAR + b"x")
    fetch(server, tmp_path)
    assert ranges(server) == [f"bytes={len(TAR) + 1}-", None]


def test_tries_count_only_while_nothing_comes(server, tmp_path):
    server.script = ["503", "503", 200_000, "503", "503", 200_000, "503", "503"]
    fetch(server, tmp_path)
    assert not server.script


@pytest.mark.parametrize(
    "word, fault", [("503", "it answered 503"), (0, "the connection broke"), ("429", "it answered 429")]
)
def test_a_server_that_brings_nothing_is_given_up_and_the_draft_stays(server, tmp_path, word, fault):
    server.script = [200_000, *[word] * 3]
    message = f"damuel_1.0_es.tar cannot be fetched, 3 tries brought nothing .{fault}.*: run again later"
    with pytest.raises(MelError, match=message):
        fetch(server, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".draft-damuel_1.0_es.tar"]
    fetch(server, tmp_path)


def test_a_server_that_is_silent_is_given_up(server, tmp_path):
    server.script = ["mute", "mute", "mute"]
    with pytest.raises(MelError, match=f"3 tries brought nothing .nothing came for {SILENCE_S:g} s"):
        fetch(server, tmp_path, patience=IMPATIENCE)


def test_what_the_server_does_not_have_is_refused_at_once(server, tmp_path):
    with pytest.raises(
        MelError, match="_xx.tar cannot be fetched: the server answers 404 Not Found; check --languages"
    ):
        fetch_archives(tmp_path, ["xx"], server.url, PATIENCE)
    assert len(server.asked) == 1 and list(tmp_path.iterdir()) == []


def test_no_server_and_no_address_are_refused(server, tmp_path):
    server.close()
    with pytest.raises(MelError, match="3 tries brought nothing .the connection broke"):
        fetch_archives(tmp_path, ["es"], server.url, PATIENCE)
    with pytest.raises(MelError, match="--download_from=ftp://x is no address"):
        fetch_archives(tmp_path, ["es"], "ftp://x", PATIENCE)
    with pytest.raises(MelError, match="'../es' is not a language"):
        fetch_archives(tmp_path, ["../es"], server.url, PATIENCE)


MD5 = hashlib.md5(TAR).hexdigest()


@pytest.mark.parametrize("text", [f"{MD5}  damuel_1.0_es.tar\n", MD5.upper()])
@pytest.mark.parametrize("beside", ["on the server", "in the folder"])
def test_the_md5_that_stands_beside_it_is_compared(server, tmp_path, caplog, text, beside):
    if beside == "on the server":
        server.files["/damuel_1.0_es.tar.md5"] = text.encode()
    else:
        (tmp_path / "damuel_1.0_es.tar.md5").write_text(text)
    with caplog.at_level("WARNING", logger="absl"):
        fetch(server, tmp_path)
    assert not caplog.messages


def test_an_md5_is_asked_for_again_where_the_server_is_busy(server, tmp_path, caplog):
    server.files["/damuel_1.0_es.tar.md5"], server.busy = MD5.encode(), 2
    with caplog.at_level("WARNING", logger="absl"):
        fetch(server, tmp_path)
    assert not caplog.messages and [path for path, _ in server.asked].count("/damuel_1.0_es.tar.md5") == 3


def test_nothing_is_fetched_beside_archives_that_are_there(server, tmp_path):
    for names in (["damuel_1.0_es.tar", "damuel_1.1_es.tar"], ["damuel_1.0_es"], ["part-00000"]):
        folder = tmp_path / names[0].replace(".", "-")
        folder.mkdir()
        for name in names:
            (folder / name).touch() if name.endswith(("tar", "0000")) else (folder / name).mkdir()
        fetch_archives(folder, ["es"], server.url, PATIENCE)
    assert not server.asked


def test_another_md5_is_refused_and_takes_the_draft_away(server, tmp_path):
    server.files["/damuel_1.0_es.tar.md5"] = b"0" * 32
    with pytest.raises(MelError, match=f"gave is not the archive .its md5 is {MD5}, and {'0' * 32} was published"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.files["/damuel_1.0_es.tar.md5"] = MD5.encode()
    fetch(server, tmp_path)


@pytest.mark.parametrize("data", [b"<html>Log in</html>" * 100, TAR[:400_000], b""])
def test_what_is_no_whole_tar_is_refused_and_taken_away(server, tmp_path, data):
    server.files["/damuel_1.0_es.tar"] = data
    with pytest.raises(MelError, match="gave is not the archive .*truncated"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_before_anything_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(MelError, match=r"needs 0 MB more, and .* has 0 MB: free some space"):
        fetch(server, tmp_path)


def test_two_processes_do_not_write_one_draft(server, tmp_path):
    with open(tmp_path / ".draft-damuel_1.0_es.tar", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(MelError, match="Another process is fetching"):
            fetch(server, tmp_path)
