"""The recipes for DaMuEL and Mewsli-9, as they are but for sizes and names, on the tiny world."""

import json
import shutil

import pytest

from experiments import programs
from mel.artifacts import Workdir, open_artifact
from mel.bin import evaluate, prepare_data, run_rounds

RECIPES = programs.ROOT / "experiments" / "mewsli9"
DAMUEL_LANGUAGES = 53
# What a tiny world asks for: nothing that a recipe is about.
SMALL = (
    "--encoder=random:1x8x2", "--steps_per_round=2", "--batch_size=8", "--warmup_steps=0", "--index=exact",
)  # fmt: skip


def run(binary, flagfile, *overrides):
    config = programs.parse(binary.__name__.rpartition(".")[2], [f"--flagfile={RECIPES / flagfile}", *overrides])
    binary.main(config)
    return config


def prepare(world, workdir, flagfile, *overrides):
    return run(
        prepare_data, flagfile, f"--workdir={workdir}", f"--damuel={world / 'damuel'}", f"--mewsli={world / 'mewsli'}",
        f"--tokenizer={world / 'tokenizer'}", "--languages=en,ar", "--workers=1", "--limit=1", "--mention_tokens=16",
        "--entity_tokens=16", *overrides,
    )  # fmt: skip


@pytest.fixture(scope="module")
def thesis(tiny_world, tmp_path_factory):
    """The data that the thesis' experiments share."""
    workdir = tmp_path_factory.mktemp("thesis") / "run"
    prepare(tiny_world, workdir, "thesis/prepare_data.flags")
    return workdir


def report(workdir, name):
    return json.loads((workdir / "reports" / name / "report.json").read_text())


def test_the_alias_table_alone(thesis, tmp_path):
    workdir = shutil.copytree(thesis, tmp_path / "run")
    run(evaluate, "thesis/alias_table/evaluate.flags", f"--workdir={workdir}")
    assert report(workdir, "alias_table")["model"] == "alias_table"
    assert not (workdir / "rounds").exists()


def test_the_small_encoder_is_looked_at_after_round_0(thesis, tmp_path):
    workdir = shutil.copytree(thesis, tmp_path / "run")
    config = run(run_rounds, "thesis/small/run_rounds.flags", f"--workdir={workdir}", *SMALL)
    assert (config.mine.negatives_per_mention, config.mine.pool, config.train.loss.logit_scale) == (7, 100, 10)
    reports = sorted(path.name for path in (workdir / "reports").iterdir() if path.is_dir())
    assert reports == ["alias_table", "round-0"]
    assert open_artifact(Workdir(workdir).round(0).negatives, "negatives").facts["settings"]["negatives"] == "hard"


@pytest.mark.slow
def test_one_language_is_trained_on_and_all_are_evaluated_beside_olpeat(thesis, tmp_path):
    workdir = shutil.copytree(thesis, tmp_path / "run")
    run(run_rounds, "thesis/spanish/run_rounds.flags", f"--workdir={workdir}", *SMALL, "--train_languages=en")
    run(evaluate, "thesis/spanish/evaluate.flags", f"--workdir={workdir}")
    reports = [report(workdir, name) for name in ("round-1", "olpeat")]
    assert [set(each["by_language"]) for each in reports] == [{"en", "ar"}] * 2
    assert (reports[1]["model"], reports[1]["round"]) == ("olpeat", -1)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["", "later/"])
def test_the_recipes_of_many_rounds(tiny_world, tmp_path, recipe):
    workdir = tmp_path / "run"
    prepare(tiny_world, workdir, f"{recipe}prepare_data.flags", "--held_out=0.3")
    config = run(run_rounds, f"{recipe}run_rounds.flags", f"--workdir={workdir}", *SMALL, "--rounds=1")
    assert config.train.loss.bidirectional == bool(recipe) and config.mine.pool == 3
    assert report(workdir, "round-0")["split"] == "held_out"


def test_the_later_recipe_has_all_languages_and_steps():
    prepared = programs.parse(
        "prepare_data", [f"--flagfile={RECIPES / 'later/prepare_data.flags'}", "--workdir=W", "--damuel=D"]
    )
    languages = prepared.archives.languages
    assert len(set(languages)) == len(languages) == DAMUEL_LANGUAGES
    assert languages[:9] == ("ar", "de", "en", "es", "fa", "ja", "sr", "ta", "tr")
    rounds = programs.parse("run_rounds", [f"--flagfile={RECIPES / 'later/run_rounds.flags'}", "--workdir=W"])
    assert (rounds.train.rounds, rounds.train.steps_per_round, rounds.train.batch_size) == (10, 100_000, 2688)
