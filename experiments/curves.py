"""Finished runs of an experiment as tables and curves: R@1 by round, against steps and against minutes.

Reads what `experiments.run_grid` left, and writes the section between the result markers of the
experiment's README.md, and curves.svg beside it. Means are over seeds, with the standard deviation of
one run. A difference is paired by seed; it counts as a claim where there are three seeds or more and
its 95 % interval (Student's t over the seeds) excludes zero.

  python -m experiments.curves experiments/first_negatives --workdir=W
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from experiments.run_grid import MADE_WITH, Run, grid, read_settings
from mel.artifacts import Workdir, write_text
from mel.cost import read_cost
from mel.reports.report import Report, open_report
from mel.types import MelError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEGIN, END = "<!-- results: written by a script, not by hand -->", "<!-- end of results -->"
CLAIM_SEEDS = 3
SMOOTH = 20  # steps of one point of a training curve


class Point(NamedTuple):
    """What a run had reached after a round; `seconds` of training and mining, None where nobody took the time."""

    steps: int
    seconds: float | None
    report: Report


class Finished(NamedTuple):
    run: Run
    points: tuple[Point, ...]

    @property
    def last(self) -> Report:
        return self.points[-1].report


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
            seconds = [point.seconds for point in points if point.seconds is not None]
            row += [spread([point.report["micro"]["r@1"] for point in points]), str(points[0].steps)]
            row.append(f"{statistics.fmean(seconds) / 60:.1f}" if seconds else "–")
        rows.append(row + [""] * (len(header) - len(row)))
    return table(header, rows)


def differences_table(found: Mapping[str, Sequence[Finished]], value: Callable[[Finished], float]) -> list[str]:
    """Each setting minus the first, of the same seeds."""
    (first, base), *others = found.items()
    at_seed = {finished.run.seed: value(finished) for finished in base}
    rows = []
    for setting, some in others:
        pairs = [value(finished) - at_seed[finished.run.seed] for finished in some if finished.run.seed in at_seed]
        if pairs:
            rows.append([f"{setting} – {first}", str(len(pairs)), *_interval(pairs)])
    return table(["difference in R@1", "seeds", "mean", "95 % interval", "claim"], rows)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation; the mean alone of a single value."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table whose first column is text."""
    cells = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return ["| " + " | ".join(row) + " |" for row in cells]


def about(found: Mapping[str, Sequence[Finished]]) -> str:
    """What data the figures are of, and what the alias table makes of them."""
    report = alias_table(found)
    data = f"{report['dataset'] or report['split']}; every R@1 is a share of all {report['mentions']:,} mentions."
    return f"{data} The alias table's is {report['micro']['r@1']:.3f}."


def alias_table(found: Mapping[str, Sequence[Finished]]) -> Report:
    """The report of the alias table, which is the same in all runs."""
    return open_report(Workdir(next(iter(found.values()))[0].run.path).report("alias_table"))


def write_results(readme: pathlib.Path, lines: Sequence[str]) -> None:
    """Puts lines between the result markers of a page, in place of what stood there.

    Raises:
      MelError: the page lacks the markers.
    """
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise MelError(f"{readme} lacks the lines {BEGIN!r} and {END!r}.")
    write_text(readme, "\n".join([before + begin, *lines, end + after]))


def draw(found: Mapping[str, Sequence[Finished]], path: pathlib.Path) -> None:
    """R@1 by round against steps and minutes, a line a setting and a dot a run; training accuracy by step."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": path.name, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure((11, 3.6), layout="constrained")
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
            axes.grid(axis="y", linewidth=0.4)
        figure.legend(*by_step.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})


def _plot_rounds(
    axes: Axes, setting: str, look: dict, some: Sequence[Finished], horizontal: Callable[[Point], float]
) -> None:
    runs = [[(horizontal(point), point.report["micro"]["r@1"]) for point in finished.points] for finished in some]
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
    lines = []
    for number in range(run.rounds):
        path = Workdir(run.path).round(number).training / "metrics.jsonl"
        lines += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    parts = [lines[start : start + SMOOTH] for start in range(0, len(lines), SMOOTH)]
    return [tuple(statistics.fmean(line[name] for line in part) for name in ("step", "accuracy")) for part in parts]


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all result scripts share; `runs_of` reads them."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workdir", type=pathlib.Path, help="as given to experiments.run_grid")
    options.add_argument("--runs", type=pathlib.Path, help="as given to experiments.run_grid")
    return options


def runs_of(options: argparse.Namespace, experiment: pathlib.Path) -> pathlib.Path:
    """Where the runs of an experiment are.

    Raises:
      MelError: neither --runs nor --workdir says so.
    """
    if not (options.runs or options.workdir):
        raise MelError("Say with --workdir or --runs where the runs are.")
    return options.runs or options.workdir / "experiments" / experiment.name


def launch(main: Callable[[], None]) -> None:
    """Runs a script, ending a user's mistake with its sentence."""
    try:
        main()
    except MelError as error:
        sys.exit(str(error))


def _points(run: Run) -> Iterable[Point]:
    work, seconds = Workdir(run.path), _seconds_by_round(run.path)
    for number in range(run.rounds):
        metrics = (work.round(number).training / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        report = open_report(work.report(f"round-{number}"))
        yield Point(json.loads(metrics[-1])["step"], seconds.get(number), report)


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
    options = parser(__doc__)
    options.add_argument("experiment", type=pathlib.Path, help="folder of the experiment")
    chosen = options.parse_args()
    found = read_runs(chosen.experiment, runs_of(chosen, chosen.experiment))
    draw(found, chosen.experiment / "curves.svg")
    difference = differences_table(found, lambda finished: finished.last["micro"]["r@1"])
    write_results(
        chosen.experiment / "README.md",
        [
            about(found),
            "",
            *by_round_table(found),
            "",
            "After the last round:",
            "",
            *difference,
            "",
            "![curves](curves.svg)",
        ],
    )


if __name__ == "__main__":
    launch(main)
