"""The source x target matrix of the transfer experiment: R@1 on every language after training on one.

Writes the results into README.md, and curves.svg. Scripts are grouped by the table below; a language
that it lacks is a script of its own.

  python -m experiments.transfer.matrix --workdir=W
"""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from experiments import curves
from experiments.curves import Finished, spread
from experiments.programs import launch
from experiments.run_grid import parser_of_runs, runs_of
from mel.reports.report import Report, table

EXPERIMENT = pathlib.Path(__file__).resolve().parent
MIXED = "all", "all-balanced"  # settings that train on every language, as it comes or as many mentions of each
SCRIPTS = {
    "Latin": "ca cs da de en es fi fr hr hu id it nl no pl pt ro sk sl sv tr vi".split(),
    "Cyrillic": "be bg mk ru sr uk".split(),
    "Han and Kana": "ja zh".split(),
    "Arabic": "ar fa ur".split(),
}


def matrix(found: Mapping[str, Sequence[Finished]], alias_table: Report) -> list[str]:
    """A row a source, a column a target, each its mean over seeds; the best source of a target is bold."""
    targets = list(alias_table["by_language"])
    means = {
        source: [
            statistics.fmean(finished.last["by_language"][target]["r@1"] for finished in some) for target in targets
        ]
        for source, some in found.items()
    }
    best = [max(column) for column in zip(*means.values())]
    shares = [*(scores["r@1"] for scores in alias_table["by_language"].values()), alias_table["macro"]["r@1"]]
    rows = [["alias table, all languages", "", *(f"{share:.3f}" for share in shares)]]
    for source, some in found.items():
        cells = [f"**{value:.3f}**" if value == top else f"{value:.3f}" for value, top in zip(means[source], best)]
        macro = spread([finished.last["macro"]["r@1"] for finished in some])
        rows.append([source, str(len(some)), *cells, macro])
    return table(["trained on", "seeds", *targets, "macro"], rows)


def distances(found: Mapping[str, Sequence[Finished]]) -> list[str]:
    """R@1 by how far the source is from the target: a mean over pairs, spread over seeds."""
    groups: dict[str, dict[int, list[float]]] = {}
    for source, some in found.items():
        for finished in some:
            for target, scores in finished.last["by_language"].items():
                group = groups.setdefault(distance(source, target), {})
                group.setdefault(finished.run.seed, []).append(scores["r@1"])
    order = ("the same language", "all languages", "another of the same script", "another script")
    rows = [
        [name, str(len(groups[name])), spread([statistics.fmean(values) for values in groups[name].values()])]
        for name in order
        if name in groups
    ]
    return table(["trained on", "seeds", "mean R@1 of targets"], rows)


def script_effect(r_at_1: Mapping[tuple[str, str], float]) -> tuple[float, float]:
    """What a source of the target's script is worth, and its standard error, by least squares.

    R@1 of a pair = an effect of its source + one of its target + the effect of one script, over the pairs of
    two languages: a plain mean confuses the script with how hard its languages are as targets and how good as sources.

    Args:
      r_at_1: by source and target.
    """
    pairs = [(source, target) for source, target in r_at_1 if source != target]
    sources, targets = (sorted(set(names)) for names in zip(*pairs, strict=True))
    design_PF = np.zeros((len(pairs), len(sources) + len(targets) + 1))
    for row, (source, target) in enumerate(pairs):
        design_PF[row, sources.index(source)] = design_PF[row, len(sources) + targets.index(target)] = 1
        design_PF[row, -1] = _script(source) == _script(target)
    values_P = np.array([r_at_1[pair] for pair in pairs])
    effects_F, _, rank, _ = np.linalg.lstsq(design_PF, values_P)
    variance = np.sum((values_P - design_PF @ effects_F) ** 2) / (len(pairs) - rank)
    return float(effects_F[-1]), float(np.sqrt(variance * np.linalg.pinv(design_PF.T @ design_PF)[-1, -1]))


def scripts(found: Mapping[str, Sequence[Finished]]) -> list[str]:
    """The effect of one script, in words."""
    r_at_1 = {
        (source, target): statistics.fmean(finished.last["by_language"][target]["r@1"] for finished in of_source)
        for source, of_source in found.items()
        if source not in MIXED
        for target in of_source[0].last["by_language"]
    }
    effect, error = script_effect(r_at_1)
    return [
        f"With source and target effects taken out, one script is worth {effect:+.3f} (standard error {error:.3f})."
    ]


def distance(source: str, target: str) -> str:
    """How a source stands to a target."""
    if source in MIXED:
        return "all languages"
    if source == target:
        return "the same language"
    return "another of the same script" if _script(source) == _script(target) else "another script"


def _script(language: str) -> str:
    return next((script for script, languages in SCRIPTS.items() if language in languages), language)


def main() -> None:
    found = curves.read_runs(EXPERIMENT, runs_of(parser_of_runs(__doc__).parse_args(), EXPERIMENT))
    curves.write_page(EXPERIMENT, found, matrix(found, curves.alias_table(found)), distances(found), scripts(found))


if __name__ == "__main__":
    launch(main)
