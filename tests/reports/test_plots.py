"""Plots are well-formed, readable without colour, themed by variables, and the same every time."""

import re
import warnings
import xml.etree.ElementTree as ElementTree

import pytest

from mel.reports import plots

SCORES = {"mentions": 10, "r@1": 0.8, "r@10": 0.9, "r@100": 0.95, "mrr": 0.85, "r@1_interval": [0.75, 0.85]}
LINES = [{"step": step, "loss": 4.0 / step, "accuracy": 1 - 1 / step} for step in range(1, 11)]
PLOTS = {
    "scores": lambda: plots.scores_plot("R@k", {"ar": SCORES, "de": SCORES}),
    "published": lambda: plots.scores_plot("R@k", {"ar": SCORES, "de": SCORES}, {"mGENRE": {"ar": 0.954}}),
    "curves": lambda: plots.curves_plot("Loss", {0: LINES[:5], 1: LINES[5:]}),
    "rounds": lambda: plots.rounds_plot("Rounds", {"start": SCORES | {"r@1": 0.1}, "0": SCORES}),
    "reliability": lambda: plots.reliability_plot("Reliability", [0.1, 0.95], [0.2, 0.9], [3, 400]),
    "risk": lambda: plots.risk_coverage_plot("Risk", [0.5, 1.0], [0.01, 0.12]),
}


def texts(svg: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_can_stand_in_a_page(name):
    svg = PLOTS[name]()
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg" and root.get("role") == "img" and root.get("aria-label")
    assert "width" not in root.attrib and "viewBox" in root.attrib
    for outside in ("http", "<style", "<metadata", "<!", "<?", "font-family", "$"):
        assert outside not in svg
    ids = re.findall(r' id="([^"]+)"', svg)
    assert len(ids) == len(set(ids)) and set(re.findall(r"#([\w-]+)", svg)) <= set(ids)
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)) <= {f"var(--{name})" for name in plots.VARIABLES} | {
        "none"
    }
    assert svg == PLOTS[name]()


def test_a_user_s_own_style_changes_nothing(monkeypatch):
    import matplotlib

    svg = PLOTS["scores"]()
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)
    assert PLOTS["scores"]() == svg
    assert matplotlib.rcParams["font.size"] == 30


def test_groups_are_named_and_those_without_mentions_left_out():
    svg = plots.scores_plot("R@k", {"ar": SCORES, "<&$x_1$>": SCORES, "tr": SCORES | {"mentions": 0}})
    assert {"ar", "<&$x_1$>", "R@1", "R@10", "R@100"} <= set(texts(svg)) and "tr" not in texts(svg)


def test_every_series_has_a_marker_of_its_own():
    markers = [marker for _, _, marker in plots.METRICS.values()] + [marker for _, marker in plots.PUBLISHED]
    assert len(markers) == len(set(markers))
    assert "R@1 of mGENRE" in texts(PLOTS["published"]())


def test_names_in_any_script_raise_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "日本語" in texts(plots.scores_plot("R@k", {"日本語": SCORES, "فارسی": SCORES}))


def test_the_curves_name_their_rounds_and_write_plain_numbers():
    found = texts(PLOTS["curves"]())
    assert {"round 0", "round 1", "loss", "in-batch accuracy", "step", "0.5", "1", "2"} <= set(found)


def test_smoothing_by_hand(monkeypatch):
    monkeypatch.setattr(plots, "POINTS", 2)
    lines = [{"step": step, "loss": loss} for step, loss in ((1, 6.0), (2, 3.0), (3, 0.0), (4, 5.0), (5, 7.0))]
    assert list(plots.smooth(lines, "loss")) == [(2.0, 3.0), (4.5, 6.0)]
