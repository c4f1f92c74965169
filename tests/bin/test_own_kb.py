"""A knowledge base without links on the whole path, and the five commands that README prints for it."""

import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from mel.artifacts import START, Workdir
from mel.bin import evaluate, export, link, mine_negatives, prepare_data, run_rounds, train
from mel.encoder import pretrained
from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import init_params
from mel.systems.system import SystemConfig
from mel.text.foreign import read_tokenizer
from mel.types import MelError
from tests.configs import config_of, with_flags

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "experiments" / "own_kb"
SECTION = (ROOT / "README.md").read_text("utf-8").partition("## A knowledge base of your own\n")[2]
COMMANDS = re.search(r"```\n(.*?)```", SECTION, re.DOTALL)[1].splitlines()
BASELINES = ("alias_table", "alias_table_language", "alias_table_names", "string_similarity", "olpeat_all_languages")


@pytest.fixture(scope="module")
def encoder(tiny_world, tmp_path_factory):
    """A folder with an encoder of random weights and its tokenizer."""
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    tokenizer = read_tokenizer(tiny_world / "tokenizer")
    tokenizer.save(folder)
    config = EncoderConfig(vocab_size=tokenizer.vocab_size - 1, hidden_size=16, num_layers=1, num_heads=2, ffn_size=32)
    pretrained.save(folder, config, init_params(config, 0))
    return folder


@pytest.fixture(scope="module")
def without_links(encoder, tmp_path_factory):
    """A working directory with the example's entities and mentions to evaluate on, and the encoder before training."""
    path = str(tmp_path_factory.mktemp("own") / "run")
    prepare_data.main(
        config_of(
            prepare_data.Config,
            workdir=path,
            tokenizer=str(encoder),
            entities=(str(EXAMPLE / "entities.csv"),),
            evaluate_mentions=(str(EXAMPLE / "mentions.jsonl"),),
            mention_tokens=32,
            entity_tokens=32,
        )  # fmt: skip
    )
    train.main(train.Config(workdir=path, round=START, encoder=str(encoder)))
    return Workdir(path)


def evaluated(work, model, **system):
    name = f"{model}-{len(system)}"
    config = SystemConfig(model=model, **system)
    evaluate.main(evaluate.Config(workdir=str(work.path), name=name, split="own", system=config))
    return json.loads((work.report(name) / "report.json").read_text())


def test_systems_that_need_no_links_answer_and_those_of_links_alone_answer_nothing(without_links):
    found = {model: evaluated(without_links, model)["micro"]["r@100"] for model in BASELINES[:4]}
    assert found["alias_table"] == found["alias_table_language"] == 0
    assert found["string_similarity"] >= found["alias_table_names"] > 0.9
    assert evaluated(without_links, "olpeat_all_languages", round=START)["micro"]["r@100"] == 0
    assert evaluated(without_links, "checkpoint", round=START)["kb_coverage"] == 1
    fused = evaluated(without_links, "fusion", round=START, fusion_weight=1.0)["micro"]
    assert fused["r@1"] > 0.2 and fused["r@10"] > 0.9


def test_contexts_training_and_mining_say_that_there_are_no_mentions(without_links):
    workdir = str(without_links.path)
    for refused in (
        lambda: train.main(train.Config(workdir=workdir)),
        lambda: mine_negatives.main(mine_negatives.Config(workdir=workdir, round=START)),
        lambda: run_rounds.main(with_flags(run_rounds.Config(), workdir=workdir, evaluate_on="own")),
        lambda: evaluated(without_links, "checkpoint", round=START, context_weight=0.2),
    ):
        with pytest.raises(MelError, match="tokens/mentions/train holds no mentions, .* which is --round=-1."):
            refused()
    with pytest.raises(MelError, match="run mel-train --round=0 first, or ask for --round=-1, the untrained encoder."):
        export.main(export.Config(workdir=workdir))


def test_it_is_exported_calibrated_and_linked_against(without_links, tmp_path):
    export.main(export.Config(workdir=str(without_links.path), round=START, calibrate_on="own"))
    output = tmp_path / "links.jsonl"
    bundle, texts = str(without_links.bundle), str(EXAMPLE / "texts.jsonl")
    link.main(link.Config(bundle=bundle, input=texts, output=str(output)))
    linked = [link for line in output.read_text("utf-8").splitlines() for link in json.loads(line)["links"]]
    assert len(linked) == 14 and all(link["id"].startswith("orrin:") for link in linked)


@pytest.mark.slow
def test_the_five_commands_of_the_readme_give_answers(encoder, tmp_path):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "encoder").symlink_to(encoder)
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        module = f"mel.bin.{program.removeprefix('mel-').replace('-', '_')}"
        found = subprocess.run([sys.executable, "-m", module, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
    answers = [json.loads(line) for line in (tmp_path / "own" / "links.jsonl").read_text("utf-8").splitlines()]
    assert [answer["id"] for answer in answers][:2] == ["lake", "train"]
    assert sum(len(answer["links"]) for answer in answers) == 14
