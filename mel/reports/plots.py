"""The plots of a report's page: inline SVG whose text is text and whose colours are CSS variables.

Every series has its own marker, so that no plot needs colour to be read; the page puts the figures
beside it. The same figures give the same SVG with the same Matplotlib.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.4  # inches: small enough to be read on a telephone without scrolling
POINTS = 120  # of one round's curve
# Wong, "Points of view: Color blindness", Nature Methods 8 (2011); page.css gives the values.
VARIABLES = ("ink", "muted", "rule", "blue", "orange", "green", "vermillion", "purple", "sky")
METRICS = {"r@1": ("R@1", "blue", "o"), "r@10": ("R@10", "orange", "s"), "r@100": ("R@100", "green", "D")}
PUBLISHED = tuple(zip(("vermillion", "purple", "sky", "muted", "ink"), "^v<>P", strict=True))

Metrics = Mapping[str, Any]


def scores_plot(title: str, groups: Mapping[str, Metrics], published: Mapping[str, Mapping[str, float]] = {}) -> str:
    """R@k of each group, a line a group, R@1 with its interval.

    Args:
      title: what the plot is about.
      groups: Scores by group; a group without mentions is left out.
      published: {system: {group: R@1}}, drawn as hollow markers.
    """
    groups = {name: scores for name, scores in groups.items() if scores["mentions"]}
    step = 1.5 if published else 1.0
    places = {name: -step * number for number, name in enumerate(groups)}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for metric, (label, name, marker) in METRICS.items():
            values = [scores[metric] for scores in groups.values()]
            axes.plot(values, list(places.values()), marker, color=_colour(name), label=label, zorder=3)
        for name, scores in groups.items():
            axes.hlines(places[name], scores["r@1"], scores["r@100"], color=_colour("rule"), zorder=1)
            if interval := scores.get("r@1_interval"):
                axes.hlines(places[name], *interval, color=_colour("blue"), linewidth=3, zorder=2)
        for (system, values), (name, marker) in zip(published.items(), PUBLISHED, strict=False):
            points = [(values[group], places[group] - 0.55) for group in places if group in values]
            hollow = {"color": _colour(name), "markerfacecolor": "none"}
            shares, heights = zip(*points, strict=True)
            axes.plot(shares, heights, marker, label=f"R@1 of {system}", zorder=3, **hollow)
        axes.set_yticks(list(places.values()), list(places))
        axes.set_ylim(-step * len(places) + 0.4 * step, 0.6 * step)
        axes.set_xlabel("share of mentions")
        axes.grid(axis="x")
        figure.legend(loc="outside lower left", ncols=1 if published else len(METRICS))

    legend = len(METRICS) + len(published) if published else 1
    return _svg(title, 0.28 * step * len(groups) + 0.17 * legend + 0.55, draw)


def curves_plot(title: str, curves: Mapping[int, Sequence[Metrics]]) -> str:
    """Loss and in-batch accuracy by step, both smoothed, with a line where a round begins."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 1, sharex=True)
        for axes, metric, label in zip(panels, ("loss", "accuracy"), ("loss", "in-batch accuracy"), strict=True):
            for number, lines in curves.items():
                axes.plot(*zip(*smooth(lines, metric), strict=True), color=_colour("blue"))
                axes.axvline(lines[0]["step"], color=_colour("muted"), linestyle=":", linewidth=1)
            axes.set_ylabel(label)
            axes.grid(axis="y")
        _logarithmic(panels[0])
        for number, lines in curves.items():
            middle = (lines[0]["step"] + lines[-1]["step"]) / 2
            panels[0].annotate(
                f"round {number}", (middle, 1), (0, 3), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", color=_colour("muted"),
            )  # fmt: skip
        panels[1].set_xlabel("step")

    return _svg(title, 3.6, draw)


def rounds_plot(title: str, rounds: Mapping[str, Metrics]) -> str:
    """R@1 by round, with its interval."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot(range(len(rounds)), [scores["r@1"] for scores in rounds.values()], "o-", color=_colour("blue"))
        for number, scores in enumerate(rounds.values()):
            if interval := scores.get("r@1_interval"):
                axes.vlines(number, *interval, color=_colour("blue"), linewidth=3)
        axes.set_xticks(range(len(rounds)), list(rounds))
        axes.set_xlabel("round")
        axes.set_ylabel("R@1")
        axes.grid(axis="y")

    return _svg(title, 2.4, draw)


def risk_coverage_plot(title: str, coverage: Sequence[float], risk: Sequence[float]) -> str:
    """The share of wrong answers among those given, by the share of mentions that are answered."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot(coverage, risk, color=_colour("blue"))
        axes.fill_between(coverage, risk, color=_colour("blue"), alpha=0.15, linewidth=0)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("coverage: share of mentions answered")
        axes.set_ylabel("risk: share of answers wrong")
        axes.grid()

    return _svg(title, 2.8, draw)


def reliability_plot(
    title: str, confidence: Sequence[float], accuracy: Sequence[float], mentions: Sequence[int]
) -> str:
    """The share of right answers by their mean probability, a point a bin, its size by the mentions in it."""
    most = max(mentions, default=1)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=_colour("muted"), linestyle=":", linewidth=1)
        axes.plot(confidence, accuracy, color=_colour("blue"), linewidth=1)
        sizes = [8 + 80 * count / most for count in mentions]
        axes.scatter(confidence, accuracy, s=sizes, color=_colour("blue"), edgecolors="none", zorder=3)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("probability: mean of a bin")
        axes.set_ylabel("share of answers right")
        axes.grid()

    return _svg(title, 2.8, draw)


def smooth(lines: Sequence[Metrics], metric: str) -> Iterator[tuple[float, float]]:
    """Yields (mean step, mean value) of at most `POINTS` runs of neighbouring lines."""
    size = -(-len(lines) // POINTS)
    for start in range(0, len(lines), size):
        run = lines[start : start + size]
        yield sum(line["step"] for line in run) / len(run), sum(line[metric] for line in run) / len(run)


def _logarithmic(axes: Axes) -> None:
    from matplotlib import ticker

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")  # the default writes TeX
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def _colour(variable: str) -> str:
    """A colour that stands for a CSS variable until `_inline` puts the variable in its number."""
    return f"#0000{VARIABLES.index(variable) + 1:02x}"


def _style() -> dict[str, Any]:
    ink, muted, rule = _colour("ink"), _colour("muted"), _colour("rule")
    return {
        "svg.fonttype": "none", "text.parse_math": False, "font.size": 9, "lines.markersize": 5, "lines.linewidth": 1.5,
        "text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": rule, "axes.spines.top": False,
        "axes.spines.right": False, "axes.axisbelow": True, "grid.color": rule, "grid.linewidth": 0.6,
        "xtick.color": muted, "ytick.color": muted, "xtick.labelcolor": ink, "ytick.labelcolor": ink,
        "ytick.major.size": 0, "legend.frameon": False, "legend.handletextpad": 0.3, "legend.columnspacing": 1.2,
    }  # fmt: skip


def _svg(title: str, height: float, draw: Callable[[Figure], None]) -> str:
    """What `draw` puts on an empty figure of `height` inches."""
    import matplotlib  # slow to import, and needed for pages only
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser has its own fonts
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_style() | {"svg.hashsalt": title})
        figure = Figure((WIDTH, height), layout="constrained")
        draw(figure)
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    return _inline(file.getvalue(), title)


def _inline(svg: str, title: str) -> str:
    """A stand-alone SVG file as an element of a page: without namespaces, metadata and own style sheet."""
    root = ElementTree.fromstring(svg)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            name.rpartition("}")[2]: _themed(value) if name == "style" else value
            for name, value in element.attrib.items()
            if name != "id" or value in used
        }
        for child in [child for child in element if child.tag.endswith(("}metadata", "}style"))]:
            element.remove(child)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": title}
    return ElementTree.tostring(root, encoding="unicode")


def _themed(style: str) -> str:
    """Colours become variables, and the page chooses the font."""
    style = re.sub(r"#0000(0\d)", lambda match: f"var(--{VARIABLES[int(match[1], 16) - 1]})", style)
    return re.sub(r"font-family: [^;]+; ", "", style)
