"""Several bundles of a working directory, an encoder alone, and what training and preparing take of them."""

import importlib.util
import shutil

import jax
import numpy as np
import pytest

from mel.artifacts import START, Workdir, open_artifact
from mel.bin import evaluate, export, prepare_data, train
from mel.encoder import graph, pretrained
from mel.linking.bundle import open_bundle
from mel.linking.linker import Linker
from mel.systems.system import SystemConfig
from mel.systems.trained import open_trained
from mel.types import MelError
from tests.configs import config_of


@pytest.fixture(scope="module")
def work(untrained, tmp_path_factory) -> Workdir:
    """A copy with two bundles beside each other, and an encoder alone."""
    work = Workdir(shutil.copytree(untrained.path, tmp_path_factory.mktemp("several") / "run"))
    export.main(export.Config(str(work.path), str(START), entities_file=True, license="cc-by-sa-4.0"))
    export.main(export.Config(str(work.path), str(START), str(work.path / "bundles" / "alone"), fusion_weight=0.0))
    export.main(export.Config(str(work.path), str(START), str(work.path / "encoder"), noindex=True))
    return work


def test_several_bundles_stand_beside_each_other(work):
    text, spans = "The red mill stands by the old bridge.", [(4, 12)]
    answers = [Linker.load(path).link(text, spans) for path in (work.bundle, work.path / "bundles" / "alone")]
    assert [len(links) for links in answers] == [1, 1]
    assert open_bundle(work.bundle).fusion_weight > 0 == open_bundle(work.path / "bundles" / "alone").fusion_weight


def test_what_others_may_read_of_a_bundle_is_all_of_it(work):
    mode = work.bundle.stat().st_mode & 0o666
    assert {file.stat().st_mode & 0o777 for file in work.bundle.rglob("*") if file.is_file()} == {mode}


def test_the_card_has_the_licence_and_the_data(work):
    card = (work.bundle / "README.md").read_text("utf-8")
    assert "license: cc-by-sa-4.0" in card and "begun with `random:1x32x2`" in card
    assert "training mentions, from 4 files of" in card and "## All entities in one file" in card


def test_the_reports_of_the_checkpoint_are_in_the_card(untrained, tmp_path):
    work = Workdir(shutil.copytree(untrained.path, tmp_path / "run"))
    for name, model in (("alias-table", "alias_table"), ("start", "checkpoint")):
        evaluate.main(evaluate.Config(str(work.path), name, SystemConfig(model=model, round=START), limit=5))
    export.main(export.Config(str(work.path), str(START)))
    card = (work.bundle / "README.md").read_text("utf-8")
    assert "| alias-table |" in card and "| start |" in card and "mewsli, 15 mentions:" in card


def test_an_encoder_alone_holds_no_knowledge_base_and_links_nothing(work):
    names = {path.name for path in (work.path / "encoder").iterdir()}
    assert names == {"manifest.json", "README.md", "encoder", "modules.json", "1_Pooling", "2_Dense"}
    assert open_artifact(work.path / "encoder", "encoder").facts["max_tokens"] == 32
    with pytest.raises(MelError, match="holds encoder, not bundle"):
        Linker.load(work.path / "encoder")
    manifest = (work.path / "encoder" / "manifest.json").read_bytes()
    export.main(export.Config(str(work.path), str(START), str(work.path / "encoder"), noindex=True))
    assert (work.path / "encoder" / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize("folder", ["bundle", "encoder"])
def test_a_bundle_is_an_encoder_to_train_on_and_a_tokenizer_to_prepare_with(work, folder, tiny_world, tmp_path):
    given = str(work.path / folder)
    again = {"workdir": str(tmp_path), "damuel": str(tiny_world / "damuel"), "tokenizer": given}
    prepare_data.main(config_of(prepare_data.Config, **again, languages=("ar",), mention_tokens=32, workers=1))
    before, after = (open_artifact(each.tokenizer, "tokenizer").facts for each in (work, Workdir(tmp_path)))
    assert after == before
    train.main(config_of(train.Config, workdir=str(tmp_path), round=START, encoder=given))
    found = open_trained(Workdir(tmp_path), START).checkpoint
    config, params = pretrained.load(given)
    assert found.encoder_config == config
    for one, other in zip(jax.tree.leaves(found.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_graph_is_part_of_the_bundle(untrained, tmp_path):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    export.main(export.Config(str(untrained.path), str(START), str(tmp_path / "bundle"), noindex=True, onnx=True))
    assert "encoder.onnx" in open_artifact(tmp_path / "bundle", "encoder").files
    assert "onnxruntime.InferenceSession" in (tmp_path / "bundle" / "README.md").read_text("utf-8")


def test_a_graph_that_gives_other_embeddings_is_not_published(untrained, tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    monkeypatch.setattr(graph, "TOLERANCE", 0.0)
    with pytest.raises(MelError, match="The ONNX graph gives embeddings that differ"):
        export.main(export.Config(str(untrained.path), str(START), str(tmp_path / "bundle"), onnx=True))
    assert list(tmp_path.iterdir()) == []


REFUSALS = {
    "no round": ({"round": "bets"}, "--round=bets is no round: give its number, or best"),
    "no report": ({"round": "best"}, "--round=best needs reports of the held-out split"),
    "nothing to calibrate": (
        {"noindex": True, "entities_file": False, "calibrate_on": "mewsli"},
        "--calibrate_on is for a bundle that links",
    ),
    "nothing to hear": (
        {"noindex": True, "entities_file": False, "contexts": True},
        "--contexts is for a bundle that links",
    ),
    "no entities": ({"noindex": True}, "--entities_file is for a bundle that links"),
    "another": ({"license": "mit"}, "was made with --license=cc-by-sa-4.0, not mit"),
}


@pytest.mark.parametrize("options, message", REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(work, options, message):
    with pytest.raises(MelError, match=message):
        export.main(export.Config(**{"workdir": str(work.path), "round": str(START), "entities_file": True} | options))


def test_without_the_packages_no_graph_is_begun(untrained, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MelError, match="--onnx needs the package onnx"):
        export.main(export.Config(str(untrained.path), str(START), str(tmp_path / "bundle"), onnx=True))
