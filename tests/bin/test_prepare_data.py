"""From archives to artefacts: the real samples, and what must not matter."""

import dataclasses
import json
import shutil

import pytest

from mel.artifacts import Workdir, open_artifact
from mel.bin import prepare_data
from mel.bin.prepare_data import Config
from mel.corpora.alias_table import AliasTable
from mel.corpora.kb import KnowledgeBase, read_entities
from mel.shards.datasets import open_rows
from mel.shards.prepare import is_held_out
from mel.types import MelError


@pytest.fixture
def config(tiny_world, tmp_path):
    return Config(
        workdir=str(tmp_path / "run"), damuel=str(tiny_world / "damuel"), mewsli=str(tiny_world / "mewsli"),
        languages=("en", "ja"), tokenizer=str(tiny_world / "tokenizer"), mention_tokens=32, entity_tokens=32, workers=1,
    )  # fmt: skip


def digests(workdir):
    work = Workdir(workdir)
    kinds = {
        "kb": work.kb, "alias table": work.alias_table, "tokenizer": work.tokenizer,
        "mentions": work.mentions("train"), "tokens": work.mention_tokens("train"),
    }  # fmt: skip
    found = {kind: open_artifact(path, kind).digest for kind, path in kinds.items()}
    return found | {"dev": open_artifact(work.mention_tokens("mewsli"), "tokens").digest}


def lines(folder):
    facts = open_artifact(folder, "mentions").facts
    return [
        json.loads(line) for name in facts["languages"] for line in (folder / f"{name}.jsonl").read_text().splitlines()
    ]


def test_the_real_samples_lose_nothing(shared_data, tiny_world, tmp_path, capsys):
    config = Config(
        workdir=str(tmp_path / "run"), damuel=str(shared_data / "samples" / "damuel"), workers=1,
        mewsli=str(shared_data / "samples" / "mewsli9"), languages=("es",), tokenizer=str(tiny_world / "tokenizer"),
    )  # fmt: skip
    prepare_data.main(config)
    work = Workdir(config.workdir)
    assert open_artifact(work.kb, "kb").facts["entities"] == {"es": 38}
    assert len(lines(work.mentions("train"))) == 55
    assert [line["surface_form"] for line in lines(work.mentions("mewsli"))][:3] == ["Lérida", "España", "Lérida"]
    assert len(lines(work.mentions("mewsli"))) == 9
    assert "| es | 38 | 55 | 9 |" in capsys.readouterr().out


def test_what_is_published_fits_together(config, capsys):
    prepare_data.main(config)
    work = Workdir(config.workdir)
    kb, tokens = open_artifact(work.kb, "kb"), open_artifact(work.mention_tokens("train"), "tokens")
    rows, mentions = open_rows(tokens, work.cache(tokens)), lines(work.mentions("train"))
    entities = list(read_entities(kb.path))
    assert len(rows) == len(mentions) == tokens.facts["rows"]
    kb_rows = KnowledgeBase.read(kb.path, kb.facts["languages"])
    assert [kb_rows.ids[number] for number in rows.entities_N] == [mention["gold"] for mention in mentions]
    golds = [entities[row] for row in rows.entity_rows_N]
    assert [entity.entity_id for entity in golds] == [mention["gold"] for mention in mentions]
    both = {kb_rows.ids[number] for number in kb_rows.entities_E if (kb_rows.entities_E == number).sum() == 2}
    in_both = [(gold, mention) for gold, mention in zip(golds, mentions) if gold.entity_id in both]
    assert in_both and all(gold.language == mention["language"] for gold, mention in in_both)
    table = AliasTable.read(work.alias_table)
    assert all(table.candidates(mention["surface_form"]) for mention in mentions)
    entity_tokens = open_artifact(work.entity_tokens, "tokens")
    assert open_rows(entity_tokens, work.cache(entity_tokens)).entities_N.tolist() == kb_rows.entities_E.tolist()
    assert f"| en | {kb.facts['entities']['en']:,} |" in capsys.readouterr().out


def test_the_number_of_workers_changes_nothing(config):
    prepare_data.main(config)
    several = dataclasses.replace(config, workdir=config.workdir + "2", workers=2)
    prepare_data.main(several)
    assert digests(several.workdir) == digests(config.workdir)


def test_what_is_published_is_skipped_and_half_a_pair_is_made_again(config):
    prepare_data.main(config)
    before = digests(config.workdir)
    untouched = (Workdir(config.workdir).kb / "manifest.json").stat().st_mtime_ns
    shutil.rmtree(Workdir(config.workdir).mentions("train"))
    prepare_data.main(config)
    assert digests(config.workdir) == before
    assert (Workdir(config.workdir).kb / "manifest.json").stat().st_mtime_ns == untouched


def test_held_out_pages_are_in_no_training_mention_and_in_no_alias(config):
    config = dataclasses.replace(config, held_out=0.3, mewsli="")
    prepare_data.main(config)
    work = Workdir(config.workdir)
    pages = {
        split: {line["document"].split("-")[1] for line in lines(work.mentions(split))}
        for split in ("train", "held_out")
    }
    assert all(is_held_out(page, 0.3) for page in pages["held_out"]) and pages["held_out"]
    assert not any(is_held_out(page, 0.3) for page in pages["train"]) and pages["train"]


def test_redirects_are_applied_once_and_counted(config, tmp_path):
    prepare_data.main(config)
    old, new = next(read_entities(Workdir(config.workdir).kb)).entity_id, "Q999999"
    (tmp_path / "redirects.json").write_text(json.dumps({old: new, new: "Q1"}))
    moved = dataclasses.replace(config, workdir=config.workdir + "2", redirects=str(tmp_path / "redirects.json"))
    prepare_data.main(moved)
    names = {entity.entity_id for entity in read_entities(Workdir(moved.workdir).kb)}
    assert old not in names and new in names
    assert open_artifact(Workdir(moved.workdir).kb, "kb").facts["redirected"] > 1


def test_refusals(config, tmp_path):
    def refuse(message, **changes):
        with pytest.raises(MelError, match=message):
            prepare_data.main(dataclasses.replace(config, **changes))

    refuse("has no damuel_.*_xx.tar; languages there: ", languages=("en", "xx"))
    refuse("is not a folder", damuel=str(tmp_path / "nowhere"))
    refuse("no Mewsli-9 tree", mewsli=str(tmp_path))
    refuse("--held_out=1.5 is not a share", held_out=1.5)
    refuse("no JSON object of QIDs", redirects=str(tmp_path / "nowhere.json"))
    refuse("holds no tokenizer.json", tokenizer=str(tmp_path))
    prepare_data.main(config)
    refuse("made with --mention_tokens=32, not 48", mention_tokens=48)
    refuse("made with --languages=.*, not ", languages=("en",))


def test_an_empty_knowledge_base_is_refused_and_leaves_nothing(config, tmp_path):
    (tmp_path / "damuel").mkdir()
    (tmp_path / "damuel" / "part-00000").write_text('{"qid": "Q1", "lang": "de", "label": "Eins"}\n')
    empty = dataclasses.replace(config, damuel=str(tmp_path / "damuel"), languages=("en",), mewsli="")
    with pytest.raises(MelError, match="The knowledge base is empty"):
        prepare_data.main(empty)
    assert not Workdir(config.workdir).kb.exists()
