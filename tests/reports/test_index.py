"""The page over all reports: a row each, escaped, with figures to sort by, and of use without its script."""

import re

import pytest

from mel.artifacts import Workdir
from mel.reports import index
from mel.types import MelError
from tests.reports.test_page import EVIL, Outline, report


@pytest.fixture
def written(tmp_path, monkeypatch):
    """The text of the page over given reports, by folder."""

    def write(reports):
        work = Workdir(tmp_path)
        for name in [*reports, "damaged"]:
            work.report(name).mkdir(parents=True, exist_ok=True)
            (work.report(name) / "report.json").touch()

        def open_report(path):
            assert path.is_dir()
            if path.name not in reports:
                raise MelError("There is none.")
            return reports[path.name]

        monkeypatch.setattr(index, "open_report", open_report)
        index.write_index(work)
        index.write_index(work)  # once more, beside its own page
        return (tmp_path / "reports" / "index.html").read_text("utf-8")

    return write


def test_a_row_for_each_report_in_the_order_of_names(written):
    text = written({"b": report(name="b", calibration={"ece": 0.0123}), "a b": report(name="a b", round=0)})
    outline = Outline(text)
    assert [link["href"] for link in outline.named("a")] == ["a%20b/index.html", "b/index.html"]
    cells = [cell["data-value"] for cell in outline.named("td")]
    assert cells[:10] == ["checkpoint", "MDN, dev", "mewsli", "23754", "0.881", "0.874", "0.96", "0.98", "0.9", ""]
    assert cells[20] == "0.0123" and re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", cells[21])
    assert len(outline.named("th")) == len(index.COLUMNS) + 2 and len(cells) == 2 * (len(index.COLUMNS) - 1)


def test_it_is_self_contained_and_readable_without_script(written):
    text = written({"a": report(name="a")})
    assert text.startswith("<!DOCTYPE html>") and "http" not in text and "src=" not in text
    assert not Outline(text).named("button") and "23,754" in text


def test_names_are_escaped(written):
    text = written({"a": report(name=EVIL, dataset=EVIL, split=EVIL)})
    assert text.count("<script") == 1 and len(Outline(text).named("script")) == 1
