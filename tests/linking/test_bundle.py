"""A bundle stands alone, loads elsewhere, and refuses what is not whole."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest

from mel.artifacts import START, Workdir, open_artifact, read_manifest
from mel.bin import export
from mel.corpora.kb import KnowledgeBase, read_entities
from mel.encoder import pretrained
from mel.evaluation.calibration import Calibration, calibrate
from mel.evaluation.evaluation_set import read_prepared
from mel.linking.bundle import open_bundle
from mel.shards.rows import TokenRows
from mel.systems import calibrated
from mel.systems.system import SystemConfig, open_system
from mel.text.marking import mark_mention
from mel.text.tokenizer import MARKER, Tokenizer
from mel.types import NIL_ID, MelError, Mention, Span


def test_every_row_has_what_the_kb_says_of_it(exported):
    bundle = open_bundle(exported.bundle)
    entities = list(read_entities(exported.kb))
    assert list(bundle.kb.titles) == [entity.title for entity in entities]
    assert [bundle.kb.ids[number] for number in bundle.kb.entities_E] == [entity.entity_id for entity in entities]
    assert list(bundle.descriptions) == [entity.description for entity in entities]
    languages = [bundle.kb.languages[number] for number in bundle.kb.languages_E]
    assert languages == [entity.language for entity in entities]


def test_it_moves_and_needs_no_working_directory(exported, tmp_path):
    before = open_bundle(exported.bundle)
    away = shutil.copytree(exported.path, tmp_path / "copy")
    shutil.move(away / "bundle", tmp_path / "bundle")
    shutil.rmtree(away)
    after = open_bundle(tmp_path / "bundle")
    queries_QD = np.eye(3, before.encoder.config.hidden_size, dtype=np.float32)
    for one, other in zip(*(bundle.evidence.index.search(queries_QD, 5) for bundle in (before, after)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (after.max_tokens, after.title_in_window) == (32, True)
    assert all(str(exported.path) not in path.read_text() for path in tmp_path.glob("bundle/**/config.json"))


def test_the_encoder_loads_by_itself(exported):
    config, _ = pretrained.load(exported.bundle / "encoder")
    tokenizer = Tokenizer.load(exported.bundle / "encoder")
    assert config.vocab_size == tokenizer.vocab_size
    assert open_artifact(exported.bundle, "bundle").facts["marker"] == MARKER


def test_the_modules_of_sentence_transformers_are_there(exported):
    modules = json.loads((exported.bundle / "modules.json").read_text())
    assert [(module["path"], module["type"].split(".")[-1]) for module in modules] == [
        ("encoder", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize"),
    ]  # fmt: skip
    assert json.loads((exported.bundle / "1_Pooling" / "config.json").read_text())["pooling_mode_cls_token"]


@pytest.mark.slow
def test_sentence_transformers_gives_the_same_embedding(exported):
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers (and torch) are not installed"
    )
    bundle = open_bundle(exported.bundle)
    mention = Mention("1", "ru", "Старая мельница (mill) у реки.", Span(7, 15), NIL_ID)
    rows = TokenRows.from_rows(bundle.tokenizer.rows([mark_mention(mention, False)], bundle.max_tokens))
    model = sentence_transformers.SentenceTransformer(str(exported.bundle), device="cpu")
    found_1D = model.encode([f"Старая {MARKER} мельница {MARKER} (mill) у реки."])
    np.testing.assert_allclose(found_1D, bundle.encoder.embed(rows), atol=1e-5)


def test_exported_once(exported):
    manifest = (exported.bundle / "manifest.json").read_bytes()
    export.main(export.Config(workdir=str(exported.path), round=START))
    assert (exported.bundle / "manifest.json").read_bytes() == manifest


def test_a_bundle_of_another_index_is_refused(exported):
    with pytest.raises(MelError, match="was made with --index=exact, not scann: move it away"):
        export.main(export.Config(workdir=str(exported.path), round=START, index="scann"))


def test_an_index_that_holds_no_embeddings_has_them_beside_it(exported, tmp_path):
    export.main(export.Config(str(exported.path), str(START), str(tmp_path / "bundle"), index="scann"))
    exact, scann = open_bundle(exported.bundle), open_bundle(tmp_path / "bundle")
    np.testing.assert_array_equal(scann.evidence.embeddings_ED, exact.evidence.embeddings_ED)
    queries_QD = exact.evidence.embeddings_ED[:3]
    assert (scann.evidence.ranking(queries_QD).entities_QK[:, 0] == exact.kb.entities_E[:3]).all()
    assert read_manifest(tmp_path / "bundle" / "index", "").facts["recall"]["kind"] == "training mentions"


def test_a_round_that_was_not_trained_is_refused(exported):
    with pytest.raises(MelError, match="Round 3 of .* has no checkpoint"):
        export.main(export.Config(workdir=str(exported.path), round=3))


def test_a_calibration_is_part_of_the_bundle(calibrated, exported):
    bundle = open_bundle(calibrated.bundle)
    assert open_bundle(exported.bundle).calibration is None
    mentions = open_artifact(calibrated.mentions("mewsli"), "mentions")
    assert bundle.calibration["split"] == "mewsli" and bundle.calibration["mentions"] == mentions.facts["rows"]
    assert bundle.calibration["inputs"]["mentions"] == mentions.digest
    assert Calibration.from_json(bundle.calibration).temperature > 0


def test_a_bundle_that_another_command_made_is_refused(calibrated, exported):
    before = (calibrated.bundle / "manifest.json").read_bytes()
    for work, options, message in (
        (calibrated, {}, "--calibrate_on=mewsli, not : move"),
        (exported, {"calibrate_on": "mewsli"}, "--calibrate_on=, not mewsli"),
        (exported, {"fusion_weight": 0.0}, "--fusion_weight=-1.0, not 0.0"),
        (exported, {"contexts": True}, "--contexts=False, not True"),
    ):
        with pytest.raises(MelError, match=f"was made with {message}"):
            export.main(export.Config(workdir=str(work.path), round=START, **options))
    export.main(export.Config(workdir=str(calibrated.path), round=START, calibrate_on="mewsli"))
    assert (calibrated.bundle / "manifest.json").read_bytes() == before


def test_the_weight_is_fitted_where_there_is_a_split_and_stated_where_there_is_none(calibrated, exported, untrained):
    kb = open_bundle(exported.bundle).kb
    assert open_bundle(exported.bundle).fusion_weight == export.USUAL_WEIGHT
    system, _ = open_system(SystemConfig(model="fusion", round=START), untrained, kb)
    _, tuned = system.rank(read_prepared(untrained, "mewsli", kb))
    fitted = open_bundle(calibrated.bundle)
    assert fitted.fusion_weight == fitted.calibration["fusion_weight"] == tuned["fusion_weight"] > 0


def test_without_a_prior_there_is_no_alias_table(untrained, tmp_path):
    work = Workdir(shutil.copytree(untrained.path, tmp_path / "run"))
    export.main(export.Config(workdir=str(work.path), round=START, fusion_weight=0.0))
    bundle = open_bundle(work.bundle)
    assert bundle.evidence.table is None and bundle.fusion_weight == 0 and not (work.bundle / "alias_table").exists()


@pytest.mark.parametrize("weights", [{"fusion_weight": -2.0}, {"fusion_weight": math.inf}, {"context_weight": 0.0}])
def test_what_is_no_weight_is_refused(weights):
    with pytest.raises(MelError, match="is no weight: state"):
        export.Config(workdir="W", **weights)


SPLITS = {"train": "more probable than they are", "absent": "There is no mentions at"}


@pytest.mark.parametrize("split, message", SPLITS.items())
def test_a_split_that_cannot_be_calibrated_on_is_refused(untrained, tmp_path, split, message):
    work = Workdir(shutil.copytree(untrained.path, tmp_path / "run"))
    with pytest.raises(MelError, match=message):
        export.main(export.Config(workdir=str(work.path), round=START, calibrate_on=split))
    assert not [path for path in work.path.iterdir() if "bundle" in path.name]


PARTS = ["encoder/model.safetensors", "encoder/tokenizer.json", "index/embeddings.npy", "titles.npy", "ids.npy"]


@pytest.mark.parametrize("name", PARTS)
def test_an_incomplete_bundle_is_refused(exported, tmp_path, name):
    broken = shutil.copytree(exported.bundle, tmp_path / "bundle")
    (broken / name).unlink()
    with pytest.raises(MelError, match=f"{name} is missing"):
        open_bundle(broken)


def test_a_folder_that_is_no_bundle_is_refused(exported, tmp_path):
    with pytest.raises(MelError, match="There is no bundle at"):
        open_bundle(tmp_path)
    with pytest.raises(MelError, match="holds kb, not bundle"):
        open_bundle(exported.kb)


def test_a_crash_while_exporting_leaves_nothing(untrained, tmp_path, monkeypatch):
    work = Workdir(shutil.copytree(untrained.path, tmp_path / "run"))

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(KnowledgeBase, "write", crash)
    with pytest.raises(KeyboardInterrupt):
        export.main(export.Config(workdir=str(work.path), round=START))
    assert not [path for path in work.path.iterdir() if "bundle" in path.name]


def test_a_calibration_puts_translations_of_a_page_into_one_half(untrained, tmp_path, monkeypatch):
    work, asked = Workdir(shutil.copytree(untrained.path, tmp_path / "run")), []

    def in_pairs(*split):
        mentions = read_prepared(*split)
        names = dict.fromkeys(mentions.documents)
        return dataclasses.replace(mentions, cluster_of={name: f"pair {n // 2}" for n, name in enumerate(names)})

    def told(ranking, gold_Q, documents, kb):
        asked.extend(documents)
        return calibrate(ranking, gold_Q, documents, kb)

    monkeypatch.setattr(export, "read_prepared", in_pairs)
    monkeypatch.setattr(calibrated, "calibrate", told)
    export.main(export.Config(workdir=str(work.path), round=START, calibrate_on="mewsli"))
    assert asked and all(name.startswith("pair ") for name in asked)
