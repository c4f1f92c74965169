"""The page in headless Chromium: by keyboard, light and dark, right to left, narrow; nothing from a text is run."""

import threading

import pytest
import uvicorn
from matplotlib import image

from mel.serving.service import application
from tests.serving.browser import Browser, find

pytestmark = pytest.mark.slow
MARKS = "[...document.querySelectorAll('#text .mark')]"


@pytest.fixture
def address(service):
    server = uvicorn.Server(uvicorn.Config(application(service), port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture
def browser(address, tmp_path):
    program = find()
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    started = Browser(program, tmp_path / "profile")
    started.open(address)
    started.wait_for("document.querySelectorAll('#language option').length === 4")
    yield started
    started.close()


def link(browser, text):
    """Pastes a text, and links it without a mouse."""
    browser.value("document.getElementById('input').value = ''; document.getElementById('input').focus()")
    browser.write(text)
    browser.press("Enter", control=True)
    browser.wait_for("/mention|no entity/.test(document.getElementById('status').textContent)")


def chosen(browser):
    return browser.value(
        f"{MARKS}.filter((mark) => mark.getAttribute('aria-pressed') === 'true').map((m) => m.textContent)"
    )


def detail(browser):
    return browser.value("document.getElementById('detail').innerText")


def test_a_text_is_linked_by_keyboard_alone(browser, tmp_path):
    assert browser.value("document.activeElement.id") == "input"
    link(browser, "\U0001f600 Paris liegt an der Seine und NIL")
    assert browser.value(f"{MARKS}.map((mark) => mark.textContent)") == ["Paris", "Seine", "NIL"]
    assert browser.value("document.getElementById('text').textContent") == "\U0001f600 Paris liegt an der Seine und NIL"
    assert chosen(browser) == ["Paris"] and browser.value("document.activeElement.textContent") == "Paris"
    shown = detail(browser)
    assert "Title 1 <b>" in shown and "what 1 is" in shown and "Probability 75.0 %" in shown
    bar = "document.querySelector('.bar')"
    assert browser.value(f"{bar}.firstChild.offsetWidth / {bar}.offsetWidth") == pytest.approx(0.75, abs=0.01)
    assert "Alternatives" in shown and "Title 5 <b>" in shown and "0.200" in shown
    assert browser.value("document.querySelector('#detail a').href") == "https://www.wikidata.org/wiki/Q1"
    browser.press("ArrowRight")
    assert chosen(browser) == ["Seine"]
    browser.press("End")
    assert chosen(browser) == ["NIL"] and "NIL: no entity" in detail(browser) and "Candidates" in detail(browser)
    browser.press("Home")
    browser.press("ArrowLeft")
    assert chosen(browser) == ["Paris"]
    browser.press("Tab")  # one stop for all mentions
    assert browser.value("document.activeElement.textContent") == "Q1"
    browser.screenshot(tmp_path / "linked.png")
    assert image.imread(tmp_path / "linked.png").shape[0] > 500


def test_nothing_in_a_text_or_a_title_is_run(browser):
    link(browser, "<img src=x onerror=window.broken=1> Paris</script><script>window.broken=1</script>")
    assert browser.value("window.broken === undefined && !document.querySelector('#text img, #detail b')")
    assert browser.value(f"{MARKS}.length") == 1


def test_right_to_left(browser, tmp_path):
    link(browser, "تقع Paris على نهر Seine")
    assert browser.value("getComputedStyle(document.getElementById('text')).direction") == "rtl"
    assert browser.value(f"{MARKS}[0].getBoundingClientRect().x > {MARKS}[1].getBoundingClientRect().x")
    browser.press("ArrowLeft")
    assert chosen(browser) == ["Seine"]
    browser.screenshot(tmp_path / "right_to_left.png")


def test_light_and_dark(browser, tmp_path):
    link(browser, "Paris")
    brightness = {}
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.screenshot(tmp_path / f"{scheme}.png")
        brightness[scheme] = image.imread(tmp_path / f"{scheme}.png")[..., :3].mean()
    assert brightness["light"] > 0.8 and brightness["dark"] < 0.3


def test_a_narrow_screen_is_not_scrolled_sideways(browser, tmp_path):
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    link(browser, "Paris und " + "a" * 300)
    assert browser.value("document.documentElement.scrollWidth") <= 390
    browser.screenshot(tmp_path / "narrow.png")


def test_what_goes_wrong_is_said(browser, service):
    browser.value("document.getElementById('input').focus()")
    browser.write("unlucky")
    browser.press("Enter", control=True)
    browser.wait_for("document.getElementById('status').textContent === 'This text is unlucky.'")
    assert browser.value("document.getElementById('status').className") == "bad"
    assert not browser.value("document.getElementById('link').disabled")
