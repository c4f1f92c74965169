"""mel-train: a flag sets the setting of its name, mistakes are refused at once, a workdir holds no programs."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from mel.artifacts import Workdir, exists
from mel.bin import prepare_data, train
from mel.bin.launch import config_from_flags, define_flags, flag_names
from mel.types import MelError
from tests.configs import config_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A flag, the group and the value that it sets; all values are other than the default.
FLAGS = {
    "--round=1": ("", 1),
    "--rounds=4": ("", 4),
    "--steps_per_round=5": ("", 5),
    "--batch_size=6": ("", 6),
    "--encoder=random:1x16x2": ("", "random:1x16x2"),
    "--pooling=cls": ("start", "cls"),
    "--encoder_layers=2": ("start", 2),
    "--seed=8": ("", 8),
    "--save_every=9": ("", 9),
    "--train_languages=en,ja": ("", ("en", "ja")),
    "--train_mentions=10": ("", 10),
    "--learning_rate=0.5": ("optimizer", 0.5),
    "--warmup_steps=11": ("optimizer", 11),
    "--schedule=cosine": ("optimizer", "cosine"),
    "--weight_decay=0.25": ("optimizer", 0.25),
    "--dropout=0.125": ("optimizer", 0.125),
    "--logit_scale=12": ("loss", 12.0),
    "--bidirectional": ("loss", True),
    "--multi_positive": ("loss", True),
    "--log_q_correction": ("loss", True),
    "--loss_tile_rows=13": ("loss", 13),
    "--precision=bfloat16": ("compute", "bfloat16"),
    "--compilation_cache=somewhere": ("compute", "somewhere"),
    "--log_every=14": ("watch", 14),
    "--profile=15": ("watch", 15),
    "--synthetic_data": ("watch", True),
    "--peak_tflops=16": ("watch", 16.0),
    "--peak_gbytes=17": ("watch", 17.0),
}


def parse(*arguments):
    values = flags.FlagValues()
    define_flags(train.Config, values)
    values(["mel-train", "--workdir=w", *arguments])
    return config_from_flags(train.Config, values)


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_sets_the_setting_of_its_name_and_no_other(flag):
    group, value = FLAGS[flag]
    name, expected = flag.removeprefix("--").partition("=")[0], dataclasses.asdict(train.Config("w"))
    settings = expected[group] if group else expected
    assert settings[name] != value
    settings[name] = value
    assert dataclasses.asdict(parse(flag)) == expected


def test_these_are_all_flags():
    assert {"workdir", *(flag.removeprefix("--").partition("=")[0] for flag in FLAGS)} == set(flag_names(train.Config))


@pytest.mark.parametrize("flag", ["--learning_rate=0.0", "--logit_scale=0.0", "--steps_per_round=0", "--profile=-1"])
def test_a_value_that_cannot_be_is_refused_before_anything_is_read(flag):
    with pytest.raises(MelError, match=f"{flag} must"):
        parse(flag)


def test_what_is_compiled_is_kept_in_the_users_cache_and_never_in_the_workdir(tiny_world, tmp_path):
    work = Workdir(tmp_path / "run")
    config = config_of(
        prepare_data.Config,
        workdir=str(work.path), damuel=str(tiny_world / "damuel"), languages=("en", "ru"),
        tokenizer=str(tiny_world / "tokenizer"), mention_tokens=16, entity_tokens=16, workers=1,
    )  # fmt: skip
    prepare_data.main(config)
    few = "--encoder=random:1x16x2 --rounds=1 --steps_per_round=1 --batch_size=16".split()
    done = subprocess.run(
        [sys.executable, "-m", "mel.bin.train", f"--workdir={work.path}", *few],
        cwd=ROOT, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and exists(work.round(0).checkpoint), done.stderr
    (machine,) = (tmp_path / "cache/mel/compiled").iterdir()
    programs = [path.name for path in machine.iterdir()]
    assert any(name.startswith("jit_step-") for name in programs)
    kept = sorted(path.name.partition("-")[0] for path in (work.path / "cache").iterdir())
    assert kept == ["entities", "train", "twins"]
    assert not {path.name for path in work.path.rglob("*")} & set(programs)
