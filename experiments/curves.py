"""Finished runs of an experiment as tables and curves: R@1 by round, against steps and against minutes.

Reads what `experiments.run_grid` left, and writes the section between the result markers of the
experiment's README.md, and curves.svg beside it. Means are over seeds, with the standard deviation of
one run. A difference is paired by seed; it counts as a claim where there are three seeds or more and
its 95 % interval (Student's t over the seeds) excludes zero.

  python -m experiments.curves experiments/first_negatives --workdir=W
"""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.programs import launch
from experiments.run_grid import MADE_WITH, Run, grid, parser_of_runs, read_settings, runs_of
from mel.artifacts import Workdir, write_text
from mel.cost import read_cost
from mel.reports.report import Report, open_report, open_rounds, table
from mel.types import MelError
from mel.workdir import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEGIN, END = "<!-- results: written by a script, not by hand -->", "<!-- end of results -->"
CLAIM_SEEDS = 3
SMOOTH = 20  # steps of one point of a training curve


class Point(NamedTuple):
    """What a run had reached after a round; `seconds` of training and mining, None where nobody took the time."""

    steps: int
    seconds: float | None
    report: Report

    @property
    def r_at_1(self) -> float:
        return self.report["micro"]["r@1"]


class Finished(NamedTuple):
    run: Run
    points: tuple[Point, ...]

    @property
    def last(self) -> Report:
        return self.points[-1].report

    @property
    def r_at_1(self) -> float:
        return self.points[-1].r_at_1


def read_runs(experiment: pathlib.Path, runs: pathlib.Path) -> dict[str, list[Finished]]:
    """The finished runs of every setting, by seed.

    Raises:
      MelError: there is none, or one was made with other flags than settings.txt has now.
    """
    seeds = sorted({int(path.name.removeprefix("seed-")) for path in runs.glob("*/seed-*")})
    settings = read_settings(experiment)
    found = {setting: [] for setting in settings}
    for run in grid(experiment, runs, seeds):
        path = run.path / MADE_WITH
        if not path.exists():
            continue
        run = run._replace(flags=tuple(json.loads(path.read_text(encoding="utf-8"))["flags"]))
        if not set(settings[run.setting]) <= set(run.flags):
            raise MelError(
                f"{path} has other flags than {experiment / 'settings.txt'}: give other --runs, or delete it."
            )
        if run.finished:
            found[run.setting].append(Finished(run, tuple(_points(run))))
    if not any(found.values()):
        raise MelError(f"No run in {runs} is finished: run experiments.run_grid first.")
    return {setting: some for setting, some in found.items() if some}


def by_round_table(found: Mapping[str, Sequence[Finished]]) -> list[str]:
    """R@1 after every round, with the steps and minutes until then."""
    rounds = range(max(len(some[0].points) for some in found.values()))
    header = ["setting", "seeds", *(f"{what} {k}" for k in rounds for what in ("R@1 round", "steps", "minutes"))]
    rows = []
    for setting, some in found.items():
        row = [setting, str(len(some))]
        for points in zip(*(finished.points for finished in some)):
            row += [spread([point.r_at_1 for point in points]), str(points[0].steps), minutes(points)]
        rows.append(row + [""] * (len(header) - len(row)))
    return table(header, rows)


def minutes(points: Sequence[Point]) -> str:
    """The mean of those whose time was taken."""
    seconds = [point.seconds for point in points if point.seconds is not None]
    return f"{statistics.fmean(seconds) / 60:.1f}" if seconds else "–"


def differences_table(found: Mapping[str, Sequence[Finished]]) -> list[str]:
    """R@1 of each setting minus that of the first, of the same seeds."""
    (first, base), *others = found.items()
    at_seed = {finished.run.seed: finished.r_at_1 for finished in base}
    rows = []
    for setting, some in others:
        pairs = [finished.r_at_1 - at_seed[finished.run.seed] for finished in some if finished.run.seed in at_seed]
        if pairs:
            rows.append([f"{setting} – {first}", str(len(pairs)), *_interval(pairs)])
    return table(["difference in R@1", "seeds", "mean", "95 % interval", "claim"], rows)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation; the mean alone of a single value."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


def about(found: Mapping[str, Sequence[Finished]]) -> str:
    """What data the figures are of, and what the alias table makes of them."""
    report = alias_table(found)
    data = f"{report['dataset'] or report['split']}; every R@1 is a share of all {report['mentions']:,} mentions."
    return f"{data} The alias table's is {report['micro']['r@1']:.3f}."


def alias_table(found: Mapping[str, Sequence[Finished]]) -> Report:
    """The report of the alias table, which is the same in all runs."""
    return open_report(Workdir(next(iter(found.values()))[0].run.path).report("alias_table"))


def write_results(readme: pathlib.Path, parts: Iterable[str | Sequence[str]]) -> None:
    """Puts parts, which are a line or several, between the result markers of a page, in place of what stood there.

    Raises:
      MelError: the page lacks the markers.
    """
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise MelError(f"{readme} lacks the lines {BEGIN!r} and {END!r}.")
    blocks = [part if isinstance(part, str) else "\n".join(part) for part in parts]
    write_text(readme, "\n".join([before + begin, "\n\n".join(blocks), end + after]))


@contextlib.contextmanager
def drawing(path: pathlib.Path, width: float) -> Iterator[Figure]:
    """A figure `width` inches wide, which is saved when the block ends; what is drawn alike has the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": path.name, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure((width, 3.6), layout="constrained")
        yield figure
        for axes in figure.axes:
            axes.grid(axis="y", linewidth=0.4)
        figure.savefig(path, metadata={"Date": None})


def draw(found: Mapping[str, Sequence[Finished]], path: pathlib.Path) -> None:
    """R@1 by round against steps and minutes, a line a setting and a dot a run; training accuracy by step."""
    with drawing(path, 11) as figure:
        by_step, by_minute, training = figure.subplots(1, 3)
        for number, (setting, some) in enumerate(found.items()):
            look = {"color": f"C{number}", "marker": "osD^vP*X"[number % 8], "markersize": 4}
            _plot_rounds(by_step, setting, look, some, lambda point: point.steps)
            if all(point.seconds is not None for finished in some for point in finished.points):
                _plot_rounds(by_minute, setting, look, some, lambda point: point.seconds / 60)
            for finished in some:
                training.plot(*zip(*training_curve(finished.run)), color=f"C{number}", linewidth=0.8)
        for axes, label in ((by_step, "steps"), (by_minute, "minutes of training and mining")):
            _plot_alias_table(axes, alias_table(found)["micro"]["r@1"])
            axes.set(xlabel=label, ylabel="R@1")
        training.set(xlabel="steps", ylabel="in-batch accuracy in training")
        for axes in (by_step, by_minute, training):
            axes.set_xlim(left=0)
        figure.legend(*by_step.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)


def _plot_rounds(
    axes: Axes, setting: str, look: dict, some: Sequence[Finished], horizontal: Callable[[Point], float]
) -> None:
    runs = [[(horizontal(point), point.r_at_1) for point in finished.points] for finished in some]
    means = [tuple(map(statistics.fmean, zip(*dots))) for dots in zip(*runs)]
    axes.plot(*zip(*means), **look, label=setting)
    axes.plot(*zip(*(dot for dots in runs for dot in dots)), linestyle="", alpha=0.5, **look)


def _plot_alias_table(axes: Axes, value: float) -> None:
    """A line where the runs come near it; far from them, where it would press them flat, a word."""
    low, high = axes.get_ylim()
    if abs(value - (low + high) / 2) < high - low:
        axes.axhline(value, color="0.4", linestyle=":", label="alias table")
    else:
        axes.set_title(f"alias table: {value:.3f}, off the scale", fontsize="small", color="0.4", loc="right")


def training_curve(run: Run) -> list[tuple[float, float]]:
    """(step, in-batch accuracy) of a run through all its rounds, means of `SMOOTH` steps."""
    lines = [line for number in range(run.rounds) for line in _metrics(run, number)]
    parts = [lines[start : start + SMOOTH] for start in range(0, len(lines), SMOOTH)]
    return [tuple(statistics.fmean(line[name] for line in part) for name in ("step", "accuracy")) for part in parts]


def write_page(experiment: pathlib.Path, found: Mapping[str, Sequence[Finished]], *parts: str | Sequence[str]) -> None:
    """Writes the results section of an experiment's README.md, and curves.svg, which stands at its end."""
    draw(found, experiment / "curves.svg")
    write_results(experiment / "README.md", [about(found), *parts, "![curves](curves.svg)"])


def _metrics(run: Run, number: int) -> list[dict[str, Any]]:
    """What a round wrote of each of its steps."""
    path = Workdir(run.path).round(number).checkpoint / METRICS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _points(run: Run) -> Iterator[Point]:
    seconds = _seconds_by_round(run.path)
    for number, report in enumerate(open_rounds(Workdir(run.path))):
        yield Point(_metrics(run, number)[-1]["step"], seconds.get(number), report)


def _seconds_by_round(path: pathlib.Path) -> dict[int, float]:
    """The seconds of all training and mining until the end of each round's training."""
    until, total = {}, 0.0
    for cost in read_cost(path):
        kind, _, number = cost["stage"].partition(" round ")
        if kind in ("train", "mine"):
            total += cost["seconds"]
        if kind == "train":
            until[int(number)] = total
    return until


def _interval(pairs: Sequence[float]) -> tuple[str, str, str]:
    from scipy.stats import t

    mean = statistics.fmean(pairs)
    if len(pairs) < CLAIM_SEEDS:
        return f"{mean:+.3f}", "–", f"no: fewer than {CLAIM_SEEDS} seeds"
    half = t.ppf(0.975, len(pairs) - 1) * statistics.stdev(pairs) / math.sqrt(len(pairs))
    return f"{mean:+.3f}", f"{mean - half:+.3f} to {mean + half:+.3f}", "yes" if abs(mean) > half else "no"


def main() -> None:
    options = parser_of_runs(__doc__)
    options.add_argument("experiment", type=pathlib.Path, help="folder of the experiment")
    chosen = options.parse_args()
    found = read_runs(chosen.experiment, runs_of(chosen, chosen.experiment))
    after_last = "After the last round:", differences_table(found)
    write_page(chosen.experiment, found, by_round_table(found), *after_last)


if __name__ == "__main__":
    launch(main)
