"""Load on mel-serve: how long answers take, how many mentions a second, how much memory, and what overload is told.

    python -m experiments.benchmarks.serve --bundle=W/bundle --mewsli=../shared/data/mdn/mewsli/dev

Starts the service, and asks with as many clients as --clients, each as soon as it has its answer, for --seconds: once
with the spans of the tree, once with plain paragraphs whose mentions are detected. Then come --crowd clients to a
service that lets --waiting wait. Each text is a window of a page around up to eight mentions. The clients run on the
same machine, in one process.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mel.corpora import mewsli
from mel.corpora.malformed import Malformed

MENTIONS = 8
CONTEXT = 200  # characters before the first mention of a text and after the last one
STARTING_SECONDS = 120


class Answer(NamedTuple):
    status: int
    seconds: float
    mentions: int


def read_questions(tree: pathlib.Path, documents: int) -> list[dict[str, Any]]:
    """Windows of the first pages of each language, with their spans."""
    found = []
    for language in mewsli.list_languages(tree):
        for document in itertools.islice(mewsli.read_documents(tree, language, Malformed(0)), documents):
            spans = sorted((mention.span.start, mention.span.end) for mention in document.mentions)[:MENTIONS]
            spans = [span for span, before in zip(spans, [(0, 0), *spans], strict=False) if span[0] >= before[1]]
            first, last = max(0, spans[0][0] - CONTEXT), spans[-1][1] + CONTEXT
            shifted = [[start - first, end - first] for start, end in spans]
            found.append({"text": document.text[first:last], "language": language, "spans": shifted})
    order = np.random.default_rng(0).permutation(len(found))
    return [found[place] for place in order]


class Server:
    """A mel-serve of its own."""

    def __init__(self, bundle: str, **flags: int):
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mel.bin.serve", f"--bundle={bundle}", "--port=0", *arguments],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        lines = iter(self._process.stderr.readline, "")
        found = next(filter(None, (re.search(r"http://([\d.]+):(\d+)/", line) for line in lines)), None)
        if found is None:
            sys.exit(f"mel-serve did not start: run it by hand with --bundle={bundle}.")
        self.host, self.port = found[1], int(found[2])
        threading.Thread(target=lambda: list(lines), daemon=True).start()

    def ask(self, connection: http.client.HTTPConnection, question: dict[str, Any]) -> Answer:
        began = time.perf_counter()
        connection.request("POST", "/link", json.dumps(question), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        mentions = len(json.loads(body)["links"]) if answer.status == 200 else 0
        return Answer(answer.status, time.perf_counter() - began, mentions)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=STARTING_SECONDS)

    def metric(self, name: str) -> float:
        connection = self.connect()
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def peak_mb(self) -> float:
        status = pathlib.Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # pyright: ignore[reportOptionalSubscript]

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)


def load(server: Server, questions: Sequence[dict[str, Any]], clients: int, seconds: float) -> list[Answer]:
    """What all clients hear in that time."""
    answers: list[Answer] = []
    end = time.monotonic() + seconds

    def client(mine: Iterator[dict[str, Any]]) -> None:
        connection = server.connect()
        while time.monotonic() < end:
            answers.append(server.ask(connection, next(mine)))

    threads = [
        threading.Thread(target=client, args=(itertools.cycle(questions[number::clients] or questions),))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def told(name: str, answers: Sequence[Answer], seconds: float) -> str:
    """A row of the table."""
    good = [answer for answer in answers if answer.status == 200]
    times = np.array([answer.seconds for answer in good]) * 1000
    p50, p99 = np.percentile(times, [50, 99])
    statuses = ", ".join(
        f"{count:,} × {status}" for status, count in sorted(Counter(a.status for a in answers).items())
    )
    mentions = sum(answer.mentions for answer in good) / seconds
    return f"| {name} | {statuses} | {p50:.0f} | {p99:.0f} | {len(good) / seconds:.0f} | {mentions:.0f} |"


def main(argv: Sequence[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--bundle", required=True, help="one with a detector")
    flags.add_argument("--mewsli", type=pathlib.Path, required=True, help="tree of texts")
    flags.add_argument("--clients", type=int, default=16, help="that ask at the same time")
    flags.add_argument("--crowd", type=int, default=200, help="clients of the overloaded service")
    flags.add_argument("--waiting", type=int, default=16, help="requests that may wait there")
    flags.add_argument("--seconds", type=float, default=15.0, help="of each part")
    chosen = flags.parse_args(argv)
    questions = read_questions(chosen.mewsli, 60)
    plain = [{name: question[name] for name in ("text", "language")} for question in questions]
    server = Server(chosen.bundle)
    for each in (questions, plain):
        load(server, each, chosen.clients, chosen.seconds / 5)  # every width is compiled
    print("| load | answers | p50, ms | p99, ms | requests/s | mentions/s |\n|---|---|---:|---:|---:|---:|")
    many = chosen.clients
    parts = [("1 client, spans given", questions, 1), (f"{many} clients, spans given", questions, many)]
    for name, asked, clients in [*parts, (f"{many} clients, plain text", plain, many)]:
        print(told(name, load(server, asked, clients, chosen.seconds), chosen.seconds), flush=True)
    peak, status = server.peak_mb(), server.stop()
    crowded = Server(chosen.bundle, max_waiting=chosen.waiting)
    load(crowded, questions, 4, chosen.seconds / 5)
    name = f"{chosen.crowd} clients, {chosen.waiting} may wait"
    print(told(name, load(crowded, questions, chosen.crowd, chosen.seconds), chosen.seconds))
    after = crowded.ask(crowded.connect(), questions[0]).status
    crowd_peak, crowd_status = crowded.peak_mb(), crowded.stop()
    print(f"\npeak memory {peak:.0f} MiB, in the crowd {crowd_peak:.0f} MiB; the next request is answered {after}")
    print(f"exit status after SIGTERM {status} and {crowd_status}")


if __name__ == "__main__":
    main()
