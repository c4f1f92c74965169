"""Model size: chooses each size's learning rate and logit scale, and tabulates the sizes at equal cost.

`choose` reads the tuning runs, writes settings.txt with the best of each size, and the tuning table into
tuning/README.md. `results` reads the runs of those settings and writes README.md and curves.svg.

  python -m experiments.model_size.sizes choose --workdir=W
  python -m experiments.model_size.sizes results --workdir=W
"""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence

from experiments import curves
from experiments.curves import Finished, spread, write_results
from experiments.programs import launch
from experiments.run_grid import parser_of_runs, runs_of
from mel.artifacts import write_text
from mel.encoder.config import EncoderConfig
from mel.reports.report import table
from mel.shards.batches import Layout
from mel.training.meter import step_flops

EXPERIMENT = pathlib.Path(__file__).resolve().parent
REFERENCE = "2x128x4"  # the size that the others are matched to
STEPS = 120  # of the reference
WARMUP = 0.2  # share of the steps
BATCH = 256
LAYOUT = Layout((48,), (BATCH + 700,), 700)  # about what a batch with 2 negatives a mention is on MDN


def flops_per_step(size: str) -> float:
    """Training FLOPs of a step of "LAYERSxHIDDENxHEADS" as `mel.training.meter.step_flops` counts them.

    Looking a token up costs none; of the last layer only the first position counts.
    """
    layers, hidden, heads = map(int, size.split("x"))
    return step_flops(EncoderConfig(1, hidden, layers, heads, 4 * hidden), LAYOUT, BATCH)


def settings(chosen: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """The lines of settings.txt for the learning rate and logit scale of each size, the reference first."""
    yield "# Written by `sizes choose`. Sizes matched to the first by examples, and by training FLOPs."
    for size in sorted(chosen, key=lambda size: size != REFERENCE):
        by_flops = round(STEPS * flops_per_step(REFERENCE) / flops_per_step(size))
        for match, steps in (("", STEPS),) if size == REFERENCE else (("-examples", STEPS), ("-flops", by_flops)):
            rate, scale = chosen[size]
            own = f"--encoder=random:{size} --learning_rate={rate} --logit_scale={scale}"
            yield f"{size + match:<18} {own} --steps_per_round={steps} --warmup_steps={round(WARMUP * steps)}"


def best(found: Mapping[str, Sequence[Finished]]) -> dict[str, tuple[str, str]]:
    """The learning rate and logit scale with the highest R@1 of each size, from settings SIZE-RATE-SCALE."""
    values = {setting: _r_at_1(some) for setting, some in found.items()}
    chosen: dict[str, tuple[str, str]] = {}
    for setting in sorted(values, key=values.__getitem__):
        size, rate, scale = split(setting)
        chosen[size] = rate, scale
    return {size: chosen[size] for size in dict.fromkeys(split(setting)[0] for setting in found)}


def split(setting: str) -> tuple[str, str, str]:
    """ "2x64x4-1.5e-3-10" as size, learning rate and logit scale."""
    size, rest = setting.split("-", 1)
    rate, scale = rest.rsplit("-", 1)
    return size, rate, scale


def tuning_lines(found: Mapping[str, Sequence[Finished]]) -> list[str]:
    """R@1 of every learning rate and logit scale, and a warning where the best is at an edge of the grid."""
    grid = list(dict.fromkeys(split(setting)[1:] for setting in found))
    chosen, rows, edges = best(found), [], []
    for size, (rate, scale) in chosen.items():
        runs = {place: found.get("-".join((size, *place))) for place in grid}
        cells = {place: f"{_r_at_1(some):.3f}" if some else "–" for place, some in runs.items()}
        rows.append([size, *(f"**{cells[place]}**" if place == (rate, scale) else cells[place] for place in grid)])
        tried = [float(place[0]) for place, some in runs.items() if some]
        if float(rate) in (min(tried), max(tried)):
            edges.append(f"The best learning rate of {size}, {rate}, is at the edge of its grid: widen it.")
    header = ["size", *(f"rate {rate}, scale {scale}" for rate, scale in grid)]
    return [*table(header, rows), *(["", *edges] if edges else [])]


def sizes_table(found: Mapping[str, Sequence[Finished]]) -> list[str]:
    """R@1 of every size and match, with what it cost in steps, minutes and FLOPs of the reference."""
    rows = []
    for setting, some in found.items():
        size, _, match = setting.partition("-")
        parts = (flag.removeprefix("--").partition("=") for flag in some[0].run.flags)
        own = {name: value for name, _, value in parts}
        cost = int(own["steps_per_round"]) * flops_per_step(size) / (STEPS * flops_per_step(REFERENCE))
        rows.append([
            size, match or "reference", own["learning_rate"], own["logit_scale"], own["steps_per_round"],
            f"{cost:.2f}", curves.minutes([finished.points[-1] for finished in some]), str(len(some)),
            spread([finished.r_at_1 for finished in some]),
        ])  # fmt: skip
    header = ["size", "matched by", "learning rate", "logit scale", "steps", "FLOPs", "minutes", "seeds", "R@1"]
    return table(header, rows)


def _r_at_1(some: Sequence[Finished]) -> float:
    return statistics.fmean(finished.r_at_1 for finished in some)


def main() -> None:
    options = parser_of_runs(__doc__)
    options.add_argument("what", choices=("choose", "results"))
    chosen = options.parse_args()
    experiment = EXPERIMENT / "tuning" if chosen.what == "choose" else EXPERIMENT
    found = curves.read_runs(experiment, runs_of(chosen, experiment))
    if chosen.what == "choose":
        write_results(experiment / "README.md", [curves.about(found), tuning_lines(found)])
        write_text(EXPERIMENT / "settings.txt", "\n".join([*settings(best(found)), ""]))
    else:
        curves.write_page(experiment, found, sizes_table(found), curves.differences_table(found))


if __name__ == "__main__":
    launch(main)
