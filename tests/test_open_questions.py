"""The experiments on the open questions: their settings, the grid that runs them, their tables.

The grid is run once, for two steps a round, on the tiny world; the tables are checked on made-up runs.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest
from matplotlib.figure import Figure

from experiments import curves, programs, run_grid
from experiments.curves import Finished, Point
from experiments.mdn import systems
from experiments.model_size import sizes
from experiments.run_grid import Run, grid, read_settings
from experiments.transfer import matrix
from mel.artifacts import START, Workdir, exists
from mel.bin import evaluate, prepare_data
from mel.cost import FILE
from mel.reports.report import open_report
from mel.systems.system import SystemConfig
from mel.types import MelError
from tests.configs import config_of

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted(path.parent for path in (ROOT / "experiments").rglob("settings.txt"))
RECIPE = """
--encoder=random:1x16x2
--rounds=1
--steps_per_round=2
--learning_rate=1e-2
"""
SETTINGS = """
in_batch      --first_negatives=in_batch
same_surface  --first_negatives=same_surface --negatives_per_mention=2
"""


def finished(setting, seed, values, by_language=None, seconds=None, flags=()):
    """A run with R@1 after each of its rounds."""
    reports = [
        {"dataset": "", "split": "dev", "mentions": 1000, "micro": {"r@1": value}, "macro": {"r@1": value}}
        | {"by_language": {name: {"r@1": share} for name, share in (by_language or {}).items()}}
        for value in values
    ]
    seconds = seconds or [None] * len(values)
    points = (Point(100 * (k + 1), seconds[k], report) for k, report in enumerate(reports))
    return Finished(Run(setting, seed, pathlib.Path(), tuple(flags)), tuple(points))


@pytest.fixture(scope="module")
def prepared(tiny_world, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("prepared")
    config = config_of(
            prepare_data.Config,
        workdir=str(workdir), damuel=str(tiny_world / "damuel"), mewsli=str(tiny_world / "mewsli"),
        languages=("en", "ru"), tokenizer=str(tiny_world / "tokenizer"), mention_tokens=16, entity_tokens=16, workers=1,
    )  # fmt: skip
    prepare_data.main(config)
    return workdir


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "run_rounds.flags").write_text(RECIPE)
    (folder / "settings.txt").write_text(SETTINGS)
    return folder


@pytest.fixture(scope="module")
def runs(experiment, prepared, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    run(experiment, prepared, runs)
    return runs


@pytest.fixture(scope="module")
def works(prepared, tmp_path_factory):
    """One recipe at two seeds, everything kept."""
    folder = tmp_path_factory.mktemp("two_seeds")
    (folder / "run_rounds.flags").write_text(RECIPE + "--dataset=tiny")
    (folder / "settings.txt").write_text("only")
    run(folder, prepared, folder, "--keep", "--seeds=5,6")
    return [Workdir(folder / "only" / f"seed-{seed}") for seed in (5, 6)]


def run(experiment, prepared, runs, *options):
    run_grid.main(
        [str(experiment), f"--workdir={prepared}", f"--runs={runs}", "--seeds=5", "--batch_size=16", *options]
    )


class TestSettings:
    @pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.name)
    def test_every_line_is_a_run(self, experiment, tmp_path):
        settings = read_settings(experiment)
        runs = list(grid(experiment, tmp_path, [0, 1]))
        configs = [programs.parse("run_rounds", run.flags) for run in runs]
        assert len(runs) == 2 * len(settings) and len({run.path for run in runs}) == len(runs)
        assert [run.seed for run in runs] == [0] * len(settings) + [1] * len(settings)
        assert [config.train.seed for config in configs] == [config.mine.seed for config in configs]
        assert all(config.workdir == str(run.path) for run, config in zip(runs, configs))
        assert len({run.flags[1:-2] for run in runs}) == len(settings)  # no two settings are the same

    @pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.name)
    def test_every_experiment_has_a_page_for_its_results(self, experiment, tmp_path):
        shutil.copy(experiment / "README.md", tmp_path / "README.md")
        before = (tmp_path / "README.md").read_text()
        curves.write_results(tmp_path / "README.md", ["some result"])
        after = (tmp_path / "README.md").read_text()
        assert after.partition(curves.BEGIN)[0] == before.partition(curves.BEGIN)[0]
        assert after.count("some result") == 1

    def test_the_first_negatives_are_all_there_are(self):
        settings = read_settings(ROOT / "experiments" / "first_negatives")
        configs = [programs.parse("run_rounds", (*own, "--workdir=w")) for own in settings.values()]
        assert [config.first_negatives for config in configs] == list(settings)
        with pytest.raises(MelError, match="should be one of <in_batch|hard|random|by_frequency|same_surface>"):
            programs.parse("run_rounds", ["--workdir=w", "--first_negatives=all"])

    def test_sources_differ_in_their_language_only(self):
        settings = read_settings(ROOT / "experiments" / "transfer")
        assert settings == {name: (f"--train_languages={name}",) for name in settings if name != "all"} | {"all": ()}

    def test_names_comments_and_quotes(self, tmp_path):
        (tmp_path / "settings.txt").write_text('# no\n\nb  --x=1 --y="two words"  # why\na\n')
        assert list(read_settings(tmp_path).items()) == [("b", ("--x=1", "--y=two words")), ("a", ())]


class TestGrid:
    def test_stops_when_the_time_is_used_up(self, experiment, prepared, tmp_path):
        run(experiment, prepared, tmp_path, "--hours=0")
        assert [path.name for path in tmp_path.iterdir()] == ["in_batch"]
        assert not exists(Workdir(tmp_path / "in_batch/seed-5").report("round-0"))

    def test_of_a_finished_run_the_metrics_stay_and_the_weights_go(self, tmp_path):
        checkpoint = Workdir(tmp_path).round(0).checkpoint
        for name in ("manifest.json", "metrics.jsonl", "params/0"):
            (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
            (checkpoint / name).write_text("")
        run_grid.tidy(tmp_path)
        assert [path.name for path in checkpoint.iterdir()] == ["metrics.jsonl"] and not exists(checkpoint)

    def test_mistakes_end_in_one_sentence(self, prepared, tmp_path):
        command = [sys.executable, "-m", "experiments.run_grid", "experiments/transfer", f"--workdir={tmp_path}"]
        for more, sentence in (((), "holds no prepared data"), (("--batchsize=3",), "Did you mean: batch_size")):
            ended = subprocess.run([*command, *more], capture_output=True, text=True, cwd=ROOT, check=False)
            assert ended.returncode == 1 and sentence in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.slow
class TestFinishedGrid:
    def test_a_finished_run_has_its_reports_and_nothing_large(self, experiment, runs):
        found = curves.read_runs(experiment, runs)
        assert list(found) == ["in_batch", "same_surface"]
        for (one,) in found.values():
            assert [point.steps for point in one.points] == [2]
            assert one.last["name"] == "round-0" and len(curves.training_curve(one.run)) == 1
            assert not list(one.run.path.glob("rounds/*/*/params"))
        assert len({(one.run.path / "rounds/0/training/metrics.jsonl").read_text() for (one,) in found.values()}) == 2

    def test_what_is_finished_is_not_run_again_and_the_data_are_shared(self, experiment, prepared, runs):
        before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
        run(experiment, prepared, runs)
        assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == before
        assert (runs / "in_batch/seed-5/tokens").resolve() == prepared / "tokens"

    def test_other_flags_in_the_same_place_are_refused(self, experiment, prepared, runs):
        other = next(grid(experiment, runs, [5], ["--batch_size=8"]))
        with pytest.raises(MelError, match="was begun with other flags"):
            run_grid.set_up(other, prepared)

    def test_a_changed_recipe_or_setting_is_refused(self, experiment, prepared, runs, tmp_path):
        changed = shutil.copytree(experiment, tmp_path / "changed")
        (changed / "settings.txt").write_text(SETTINGS.replace("mention=2", "mention=3"))
        with pytest.raises(MelError, match="has other flags than"):
            curves.read_runs(changed, runs)
        (experiment / "run_rounds.flags").write_text(RECIPE + "--logit_scale=10")
        with pytest.raises(MelError, match="was begun with other flags"):
            run(experiment, prepared, runs)
        (experiment / "run_rounds.flags").write_text(RECIPE)

    def test_tables_and_curves_of_real_runs(self, experiment, runs, tmp_path):
        stages = {"prepare": 1000, "mine round -1": 60, "train round 0": 120, "evaluate": 1000}
        lines = [json.dumps({"stage": stage, "seconds": seconds}) + "\n" for stage, seconds in stages.items()]
        for setting in ("in_batch", "same_surface"):
            (runs / setting / "seed-5" / FILE).write_text("".join(lines))
        found = curves.read_runs(experiment, runs)
        assert [line.endswith("| 2 | 3.0 |") for line in curves.by_round_table(found)] == [False] * 2 + [True] * 2
        curves.draw(found, tmp_path / "curves.svg")
        assert (tmp_path / "curves.svg").read_text().count("<svg") == 1


class TestCurves:
    @pytest.mark.parametrize("value, lines, title", [(0.55, 2, ""), (0.82, 1, "alias table: 0.820, off the scale")])
    def test_an_alias_table_far_off_does_not_press_the_runs_flat(self, value, lines, title):
        axes = Figure().subplots()
        axes.plot([0, 1], [0.3, 0.5])
        curves._plot_alias_table(axes, value)
        assert len(axes.lines) == lines and axes.get_title(loc="right") == title

    def test_spread_by_hand(self):
        assert curves.spread([0.5]) == "0.500"
        assert curves.spread([0.4, 0.5, 0.6]) == "0.500 ± 0.100"

    def test_differences_are_paired_by_seed(self):
        found = {
            "base": [finished("base", seed, [value]) for seed, value in ((0, 0.1), (1, 0.5), (2, 0.9))],
            "better": [finished("better", seed, [value]) for seed, value in ((2, 0.93), (0, 0.12), (1, 0.51))],
            "noisy": [finished("noisy", seed, [value]) for seed, value in ((0, 0.2), (1, 0.5), (2, 0.85))],
            "two": [finished("two", seed, [0.6]) for seed in (0, 1)],
        }
        lines = curves.differences_table(found)
        # .02, .01 and .03: mean .02, standard deviation .01; t of 2 degrees of freedom is 4.3027, over the root of 3.
        assert lines[2] == "| better – base | 3 | +0.020 | -0.005 to +0.045 | no |"
        assert lines[3].endswith("| no |") and lines[4].endswith("| no: fewer than 3 seeds |")
        found["better"] = [finished("better", seed, [value]) for seed, value in ((0, 0.12), (1, 0.52), (2, 0.921))]
        assert curves.differences_table(found)[2].endswith("| yes |")

    def test_a_page_without_markers_is_refused(self, tmp_path):
        (tmp_path / "README.md").write_text("# nothing\n")
        with pytest.raises(MelError, match="lacks the lines"):
            curves.write_results(tmp_path / "README.md", [])


@pytest.mark.slow
class TestSystems:
    def page(self, folder, works):
        (folder / "README.md").write_text(f"above\n{curves.BEGIN}\n{curves.END}\nbelow\n")
        systems.tabulate(works, folder / "README.md")
        return (folder / "README.md").read_text()

    def test_all_systems_and_seeds_stand_in_the_page(self, works, tmp_path):
        page = self.page(tmp_path, works)
        names = ["alias_table", *systems.BASELINES, "round-0", *systems.ENCODERS]
        assert [line.split(" | ")[0] for line in page.splitlines() if line.count("|") == 9][2:] == [
            f"| {name}" for name in names
        ]
        reports = {name: [open_report(work.report(name)) for work in works] for name in names}
        for group, name in (("all", "round-0"), ("ambiguous", "fusion-contexts")):
            values = [systems.r_at_1(report, group) for report in reports[name]]
            seeds = " | ".join(f"{value:.3f}" for value in values)
            assert f"| {name}, {group} | {seeds} | {curves.spread(values)} |" in page
        assert "tiny; seed 5; every figure" in page and "| seed 5 | seed 6 |" in page
        assert [report["round"] for report, _ in reports.values()] == [None] * 4 + [START, 0, 0, 0, 0, 0]
        assert (tmp_path / "rounds.svg").read_text().count("<svg") == 1
        costs = [(work.path / FILE).read_bytes() for work in works]
        assert page == self.page(tmp_path, works)
        assert costs == [(work.path / FILE).read_bytes() for work in works]  # nothing is evaluated again

    def test_one_seed_has_no_table_of_seeds(self, works, tmp_path):
        assert "seed 5 |" not in self.page(tmp_path, works[:1])

    def test_other_data_and_no_rounds_are_refused(self, works, prepared, tmp_path):
        with pytest.raises(MelError, match="holds no evaluated round"):
            self.page(tmp_path, [Workdir(prepared)])
        other = shutil.copytree(works[0].path, tmp_path / "other", symlinks=True)
        shutil.rmtree(Workdir(other).report("alias_table"))
        evaluate.main(
            evaluate.Config(workdir=str(other), name="alias_table", system=SystemConfig(model="alias_table"), limit=9)
        )
        with pytest.raises(MelError, match="has other data or another number of rounds"):
            self.page(tmp_path, [works[0], Workdir(other)])


class TestTransfer:
    def test_the_effect_of_one_script_is_found_beside_those_of_sources_and_targets(self):
        languages = ("en", "es", "ru", "uk", "ja", "ko")
        source_effect, target_effect = (
            dict(zip(languages, (0.1, 0.2, 0.3, 0.1, 0.0, 0.2))),
            dict(zip(languages, range(6))),
        )
        r_at_1 = {
            (source, target): source_effect[source]
            + 0.01 * target_effect[target]
            + 0.05 * ((source, target) in (("en", "es"), ("es", "en"), ("ru", "uk"), ("uk", "ru")))
            + (source == target)
            for source in languages
            for target in languages
        }
        effect, error = matrix.script_effect(r_at_1)
        assert effect == pytest.approx(0.05) and error == pytest.approx(0, abs=1e-9)

    def test_matrix_by_hand(self):
        found = {
            "en": [finished("en", 0, [0.5], {"en": 0.6, "ja": 0.2}), finished("en", 1, [0.5], {"en": 0.8, "ja": 0.4})],
            "ja": [finished("ja", 0, [0.4], {"en": 0.3, "ja": 0.5})],
        }
        alias_table = {"by_language": {"en": {"r@1": 0.9}, "ja": {"r@1": 0.7}}, "macro": {"r@1": 0.8}}
        assert matrix.matrix(found, alias_table) == [
            "| trained on | seeds | en | ja | macro |",
            "| --- | ---: | ---: | ---: | ---: |",
            "| alias table, all languages |  | 0.900 | 0.700 | 0.800 |",
            "| en | 2 | **0.700** | 0.300 | 0.500 ± 0.000 |",
            "| ja | 1 | 0.300 | **0.500** | 0.400 |",
        ]
        assert matrix.distances(found)[2:] == [
            "| the same language | 2 | 0.675 ± 0.177 |",  # (.6 + .5) / 2 and .8
            "| another script | 2 | 0.325 ± 0.106 |",  # (.2 + .3) / 2 and .4
        ]

    def test_distance(self):
        pairs = {("en", "fr"): "another of the same script", ("ja", "zh"): "another of the same script"}
        pairs |= {("ko", "ko"): "the same language", ("ko", "ja"): "another script", ("all", "en"): "all languages"}
        assert {pair: matrix.distance(*pair) for pair in pairs} == pairs


class TestSizes:
    def test_flops_grow_with_the_size(self):
        small, reference, deep = map(sizes.flops_per_step, ("2x64x4", "2x128x4", "4x128x4"))
        assert 3 < reference / small < 4  # products with weights four times, attention twice
        assert 2 < deep / reference < 3  # three full layers and the cheap last one, instead of one and that

    def test_settings_cost_the_same(self):
        lines = list(sizes.settings({"2x64x4": ("1e-3", "10"), "2x128x4": ("5e-4", "30"), "4x128x4": ("5e-4", "10")}))
        words = [line.split() for line in lines[1:]]
        steps = {name: int(own[3].removeprefix("--steps_per_round=")) for name, *own in words}
        assert list(steps) == ["2x128x4", "2x64x4-examples", "2x64x4-flops", "4x128x4-examples", "4x128x4-flops"]
        assert steps["2x64x4-examples"] == steps["2x128x4"] == sizes.STEPS
        cost = {name: count * sizes.flops_per_step(name.split("-")[0]) for name, count in steps.items()}
        for size in ("2x64x4", "4x128x4"):  # to the nearest step
            assert cost[f"{size}-flops"] == pytest.approx(cost["2x128x4"], abs=sizes.flops_per_step(size) / 2)
        assert words[1][2:4] == ["--learning_rate=1e-3", "--logit_scale=10"]

    def test_table_by_hand(self):
        own = ("--learning_rate=1e-3", "--logit_scale=20", f"--steps_per_round={sizes.STEPS // 2}")
        own += ("--nobidirectional",)  # a flag without a value
        runs = [finished("2x128x4-examples", seed, [0.4 + 0.1 * seed], seconds=[60.0], flags=own) for seed in (0, 1)]
        assert sizes.sizes_table({"2x128x4-examples": runs})[2] == (
            f"| 2x128x4 | examples | 1e-3 | 20 | {sizes.STEPS // 2} | 0.50 | 1.0 | 2 | 0.450 ± 0.071 |"
        )

    def test_the_best_of_each_size_is_chosen(self):
        values = {"2x64x4-5e-4-10": 0.2, "2x64x4-1.5e-3-30": 0.4, "2x64x4-4.5e-3-10": 0.3, "2x128x4-4.5e-3-10": 0.5}
        found = {name: [finished(name, 0, [value])] for name, value in values.items()}
        assert sizes.best(found) == {"2x64x4": ("1.5e-3", "30"), "2x128x4": ("4.5e-3", "10")}
        lines = sizes.tuning_lines(found)
        assert lines[2:4] == ["| 2x64x4 | 0.200 | **0.400** | 0.300 |", "| 2x128x4 | – | – | **0.500** |"]
        assert lines[-1].startswith("The best learning rate of 2x128x4, 4.5e-3, is at the edge of its grid")
