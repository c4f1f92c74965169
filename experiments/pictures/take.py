"""Takes the pictures of README.md in a headless Chromium: the page of mel-serve and that of a report.

  python -m experiments.pictures.take --bundle=W/bundle --report=W/reports/NAME --output=experiments/pictures

The texts are about the web, so the bundle is one of MDN (`experiments/detection`). Pictures have a palette.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

import uvicorn
from PIL import Image

from experiments.programs import launch
from mel.linking.linker import Linker
from mel.serving.service import LimitsConfig, Service, application
from mel.types import MelError
from tests.serving.browser import Browser, find

COLOURS = 64
WIDTH, HEIGHT = 1000, 860
TEXTS = {
    "service-light": (
        "light", "en", 0,
        "The Fetch API lets scripts request resources over HTTP. It returns a Promise that resolves to a Response, "
        "while XMLHttpRequest uses events. A service worker can intercept such requests and answer them from the "
        "Cache.",
    ),
    "service-dark": (
        "dark", "ja", 1,
        "Fetch API は Promise を返しますが、XMLHttpRequest はイベントを使います。"
        "サービスワーカーはリクエストに Cache から応答できます。",
    ),
    "service-right-to-left": (
        "light", "", 1,
        "تتيح Fetch API للبرامج المكتوبة بلغة JavaScript أن تطلب الموارد عبر بروتوكول HTTP، وتعيد كائنا من النوع "
        "Promise. ويمكن أن يجيب Service worker عن هذه الطلبات من الذاكرة.",
    ),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--bundle", required=True, help="of MDN, with a detector and calibrated")
    flags.add_argument("--report", type=pathlib.Path, required=True, help="folder of a report")
    flags.add_argument("--output", type=pathlib.Path, required=True, help="folder of the pictures")
    chosen = flags.parse_args(argv)
    chosen.output.mkdir(parents=True, exist_ok=True)
    program = find()
    if program is None:
        raise MelError("There is no Chromium on this machine: install one.")
    service = Service(Linker.load(chosen.bundle), LimitsConfig())
    with tempfile.TemporaryDirectory() as profile, served(service) as address:
        with contextlib.closing(Browser(program, pathlib.Path(profile), WIDTH, HEIGHT)) as browser:
            for name, (scheme, language, steps, text) in TEXTS.items():
                browser.open(address)
                look(browser, scheme)
                link(browser, language, steps, text)
                take(browser, chosen.output / f"{name}.png")
            for scheme in ("light", "dark"):
                browser.open((chosen.report / "index.html").resolve().as_uri())
                look(browser, scheme)
                take(browser, chosen.output / f"report-{scheme}.png")


@contextlib.contextmanager
def served(service: Service) -> Iterator[str]:
    """The address of a service while the block runs."""
    server = uvicorn.Server(uvicorn.Config(application(service), port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


def look(browser: Browser, scheme: str) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False)


def link(browser: Browser, language: str, steps: int, text: str) -> None:
    """Pastes a text, links it, and goes some mentions on, by keyboard."""
    browser.wait_for("document.querySelectorAll('#language option').length > 1")
    browser.value(f"document.getElementById('language').value = {language!r}; document.getElementById('input').focus()")
    browser.write(text)
    browser.press("Enter", control=True)
    browser.wait_for("/mention/.test(document.getElementById('status').textContent)")
    for _ in range(steps):
        browser.press("ArrowRight")
    browser.value("window.scrollTo(0, 0)")


def take(browser: Browser, path: pathlib.Path) -> None:
    browser.screenshot(path)
    Image.open(path).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    launch(main)
