"""The service as a process: where it listens, what it refuses to serve, and how it ends."""

import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

from mel.artifacts import Workdir
from mel.bin import serve
from mel.files import read_json
from mel.seals import seal
from mel.serving.server import AddressConfig
from mel.types import MelError
from tests.configs import config_of


def config(bundle, **flags):
    return config_of(serve.Config, bundle=str(bundle), port=0, **flags)


def test_what_cannot_be_listened_at_is_refused():
    with AddressConfig(port=0).listen() as taken:
        assert taken.getsockname()[0] == "127.0.0.1"
        with pytest.raises(MelError, match="--port=.* cannot be listened at .*: choose another"):
            AddressConfig(port=taken.getsockname()[1]).listen()
    with pytest.raises(MelError, match="--port=70000 is no port"):
        AddressConfig(port=70000).listen()
    with pytest.raises(MelError, match="--host=no.such.host.invalid"):
        AddressConfig(host="no.such.host.invalid", port=0).listen()


def test_what_is_no_bundle_is_refused(tmp_path, calibrated):
    with pytest.raises(MelError, match="There is no bundle at"):
        serve.main(config(tmp_path))
    work = Workdir(shutil.copytree(calibrated.path, tmp_path / "run"))
    manifest = read_json(work.bundle / "manifest.json") | {"format_version": 1}
    (work.bundle / "manifest.json").write_text(json.dumps(seal(manifest)))
    with pytest.raises(MelError, match="has format version 1, this program reads"):
        serve.main(config(work.bundle))


@pytest.mark.slow
def test_a_signal_ends_the_service_when_all_are_answered(calibrated):
    command = [sys.executable, "-m", "mel.bin.serve", f"--bundle={calibrated.bundle}", "--port=0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lines = iter(process.stderr.readline, "")
    port = next(int(found[1]) for found in (re.search(r"http://127.0.0.1:(\d+)/", line) for line in lines) if found)
    question = json.dumps({"text": "The red mill stands by the old bridge.", "language": "en", "spans": [[4, 12]]})
    answers = []

    def ask():
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("POST", "/link", question)
            answer = connection.getresponse()
            answers.append((answer.status, json.loads(answer.read())))

    def try_to_ask():
        with contextlib.suppress(OSError):  # who comes after the signal finds nobody
            ask()

    ask()
    threads = [threading.Thread(target=try_to_ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(answers) < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said = "".join(lines)
    process.stderr.close()
    for thread in threads:
        thread.join(60)
    assert process.wait(60) == 143 and "ended by SIGTERM; who had been let in was answered." in said
    statuses = {status for status, _ in answers}
    assert statuses <= {200, 503} and answers[0][1]["links"][0]["surface_form"] == "red mill"
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass
