"""A knowledge base of one's own, alone and beside DaMuEL: what is made of it, and when it is made again."""

import json
import shutil

import pytest

from mel.artifacts import Workdir, open_artifact
from mel.bin import prepare_data
from mel.corpora.alias_table import AliasTable
from mel.corpora.kb import KnowledgeBase, read_entities
from mel.shards.blocks import is_held_out
from mel.shards.datasets import open_rows
from mel.types import MelError
from tests.configs import config_of, with_flags

ENTITIES = """id,language,title,description,aliases,count
MESH:D001,en,Agate,A banded stone.,Banded stone|Onyx,4
MESH:D001,de,Achat,Ein gebänderter Stein.,,
http://x/opal,en,Opal,A stone that plays with light.,Onyx,
Q42,en,Opal,A car that was built in Rüsselsheim.,,9
"""
TEXT = "Onyx and opal lay beside the Opal."
MENTIONS = [
    {"id": "1", "language": "en", "text": TEXT, "start": 0, "end": 4, "entity": "MESH:D001", "document": "a"},
    {
        "id": "2",
        "language": "fr",
        "text": "Une opale.",
        "start": 4,
        "end": 9,
        "entity": "http://x/opal",
        "document": "b",
    },
    {"id": "3", "language": "en", "text": TEXT, "start": 29, "end": 33, "entity": "Q42", "document": "a"},
    {"id": "4", "language": "en", "text": TEXT, "start": 9, "end": 13, "entity": "http://x/unknown", "document": "c"},
    {"id": "5", "language": "en", "text": TEXT, "start": 9, "end": 13, "entity": "NIL", "document": "c"},
]


def write(folder, name, records):
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(folder / name)


@pytest.fixture
def config(tiny_world, tmp_path):
    (tmp_path / "entities.csv").write_text(ENTITIES, "utf-8")
    return config_of(
        prepare_data.Config, workdir=str(tmp_path / "run"), entities=(str(tmp_path / "entities.csv"),),
        tokenizer=str(tiny_world / "tokenizer"), mention_tokens=16, entity_tokens=16, workers=1,
    )  # fmt: skip


def lines(work, split):
    facts = open_artifact(work.mentions(split), "mentions").facts
    files = [(work.mentions(split) / f"{name}.jsonl").read_text("utf-8").splitlines() for name in facts["languages"]]
    return [json.loads(line) for file in files for line in file]


def test_entities_alone_make_a_kb_names_and_no_mentions(config, capsys):
    prepare_data.main(config)
    work = Workdir(config.workdir)
    facts = open_artifact(work.kb, "kb").facts
    assert facts["languages"] == ["en", "de"] and facts["entities"] == {"en": 3, "de": 1}
    kb, entities = KnowledgeBase.read(work.kb, facts["languages"]), list(read_entities(work.kb))
    assert [kb.ids[number] for number in kb.entities_E] == ["MESH:D001", "MESH:D001", "http://x/opal", "Q42"]
    assert [entity.title for entity in entities] == ["Agate", "Achat", "Opal", "Opal"]
    table = AliasTable.read(work.alias_table)
    table.add_titles(kb)
    assert table.candidates("Onyx") == ()

    def prior(form):
        return {kb.ids[number]: round(share, 6) for number, share in table.prior(form, "en")[0].items()}

    assert prior("Onyx") == {"MESH:D001": round(5 / 7, 6), "http://x/opal": round(1 / 7, 6)}
    assert prior("opal") == {"Q42": round(10 / 12, 6), "http://x/opal": round(1 / 12, 6)}
    tokens = open_artifact(work.mention_tokens("train"), "tokens")
    assert tokens.facts["rows"] == len(open_rows(tokens, work.cache(tokens))) == 0 and lines(work, "train") == []
    assert "| all | 4 | 0 | |" in capsys.readouterr().out


def test_mentions_train_and_others_evaluate_and_what_is_unknown_is_named(config, tmp_path, caplog, capsys):
    files = {
        "mentions": (write(tmp_path, "m.jsonl", MENTIONS),),
        "evaluate_mentions": (write(tmp_path, "e.jsonl", MENTIONS[:2]),),
    }
    prepare_data.main(with_flags(config, **files))
    work = Workdir(config.workdir)
    kb = KnowledgeBase.read(work.kb, ("en", "de"))
    assert [line["mention_id"] for line in lines(work, "train")] == ["1", "3", "4", "5", "2"]  # language by language
    tokens = open_artifact(work.mention_tokens("train"), "tokens")
    rows = open_rows(tokens, work.cache(tokens))
    assert rows.entity_rows_N.tolist() == [0, 3, -1, -1, 2]
    assert [kb.ids[number] for number in rows.entities_N[[0, 1, 2, 4]]] == [
        "MESH:D001", "Q42", "http://x/unknown", "http://x/opal",
    ]  # fmt: skip
    table = AliasTable.read(work.alias_table)
    linked = {form: [kb.ids[found.entity] for found in table.candidates(form)] for form in ("opal", "Opal", "Onyx")}
    assert linked == {"opal": ["http://x/unknown"], "Opal": ["Q42"], "Onyx": ["MESH:D001"]}  # and not NIL
    assert "1 mentions mean entities that the KB lacks, such as 'http://x/unknown' (1)" in caplog.text
    assert [line["mention_id"] for line in lines(work, "own")] == ["1", "2"]
    out = capsys.readouterr().out
    assert (
        "| language | entities | train mentions | own mentions | gold outside the KB | unknown tokens | dropped |"
        in out
    )
    assert "| en | 3 | 4 | 1 | 2 | 0.00% | - |" in out and "| fr | 0 | 1 | 1 | 0 | 0.00% | - |" in out


def test_documents_are_held_out_and_their_links_are_in_no_alias(config, tmp_path):
    records = [dict(MENTIONS[0], id=f"{number}", document=f"d{number}") for number in range(30)]
    prepare_data.main(with_flags(config, mentions=(write(tmp_path, "m.jsonl", records),), held_out=0.3))
    work = Workdir(config.workdir)
    out = {line["document"] for line in lines(work, "held_out")}
    assert out == {f"d{number}" for number in range(30) if is_held_out(f"d{number}", 0.3)} and 3 < len(out) < 20
    assert not out & {line["document"] for line in lines(work, "train")}
    assert len(lines(work, "train")) + len(out) == 30


def test_beside_damuel_an_own_entity_stands_in_the_place_of_the_archives_one(config, tiny_world, tmp_path):
    damuel = {"damuel": str(tiny_world / "damuel"), "languages": ("en", "ja"), "entities": ()}
    prepare_data.main(with_flags(config, workdir=config.workdir + "0", **damuel))
    before = list(read_entities(Workdir(config.workdir + "0").kb))
    taken = before[5].entity_id
    own = [
        {"id": taken, "language": "en", "title": "Mine", "description": "My own."},
        {"id": "MESH:D001", "language": "en", "title": "Agate"},
    ]
    mention = {"id": "1", "language": "en", "text": "Mine it is.", "start": 0, "end": 4, "entity": taken}
    files = {
        "entities": (write(tmp_path, "e.jsonl", own),),
        "mentions": (write(tmp_path, "m.jsonl", [mention, dict(mention, id="2", language="fr")]),),
    }
    prepare_data.main(with_flags(config, **damuel | files))
    work = Workdir(config.workdir)
    after = list(read_entities(work.kb))
    assert [entity.title for entity in after[:2]] == ["Mine", "Agate"]
    assert after[2:] == [entity for entity in before if (entity.entity_id, entity.language) != (taken, "en")]
    assert open_artifact(work.kb, "kb").facts["duplicates"] == {"en": 1, "ja": 0}
    facts = open_artifact(work.mentions("train"), "mentions").facts
    assert facts["languages"] == ["en", "ja", "fr"]
    in_english = [line for line in lines(work, "train") if line["language"] == "en"]
    assert in_english[-1]["mention_id"] == "1" and len(in_english) > 10
    tokens = open_artifact(work.mention_tokens("train"), "tokens")
    assert open_rows(tokens, work.cache(tokens)).entity_rows_N[facts["counts"]["en"] - 1] == 0


def test_another_content_or_name_is_refused_with_what_changed_and_redo_makes_again(config, tmp_path):
    files = {
        "mentions": (write(tmp_path, "m.jsonl", MENTIONS[:3]),),
        "evaluate_mentions": (write(tmp_path, "e.jsonl", MENTIONS[:1]),),
    }
    config = with_flags(config, **files)
    prepare_data.main(config)
    prepare_data.main(config)

    def refused(sentence, **flags):
        with pytest.raises(MelError) as refusal:
            prepare_data.main(with_flags(config, **flags))
        assert str(refusal.value).startswith(f"{sentence}: use another --workdir, or give --redo, which deletes ")
        return str(refusal.value)

    changed = ENTITIES.replace("banded stone", "bended stone")
    (tmp_path / "entities.csv").write_text(changed, "utf-8")
    words = refused("entities.csv has another content than when kb was made")
    assert "kb, alias_table, tokens/entities, mentions/train, tokens/mentions/train, mentions/own" in words
    (tmp_path / "entities.csv").write_text(ENTITIES, "utf-8")
    refused(
        "kb was made with --mentions=m.jsonl, not other.jsonl", mentions=(write(tmp_path, "other.jsonl", MENTIONS),)
    )
    refused("mentions/m.jsonl is gone since kb was made", mentions=())
    write(tmp_path, "e.jsonl", MENTIONS[:2])
    words = refused("e.jsonl has 118 bytes more than when mentions/own was made")
    assert "deletes mentions/own, tokens/mentions/own in" in words
    prepare_data.main(with_flags(config, redo=True))
    assert len(lines(Workdir(config.workdir), "own")) == 2
    moved = shutil.copytree(tmp_path, tmp_path / "moved", ignore=shutil.ignore_patterns("run"))
    there = {name: (str(moved / file),) for name, file in (("entities", "entities.csv"), ("mentions", "m.jsonl"))}
    prepare_data.main(with_flags(config, **there))


@pytest.mark.parametrize(
    "flags, sentence",
    [
        ({"entities": ()}, "Neither --damuel nor --entities is given, so there are no entities: give one or both."),
        ({"damuel": "x"}, "--languages is missing: name those whose archives in --damuel are to be read."),
        ({"held_out": 0.1}, "--held_out=0.1 of no mentions is nothing: give --mentions, or leave it out."),
        ({"mentions": ("nowhere.csv",)}, "nowhere.csv cannot be read: No such file or directory."),
        ({"mentions": ("setup.py",)}, "setup.py is named neither .jsonl nor .csv"),
        ({"languages": ("fr",)}, "The knowledge base is empty: .* 4 of 4 were dropped: record of another language."),
    ],
)
def test_refusals(config, flags, sentence):
    with pytest.raises(MelError, match=sentence):
        prepare_data.main(with_flags(config, **flags))
    assert not Workdir(config.workdir).kb.exists()


def test_mentions_of_which_none_can_be_used_are_refused_with_the_reasons(config, tmp_path):
    bad = (write(tmp_path, "m.jsonl", [dict(MENTIONS[0], end=99)]),)
    with pytest.raises(MelError, match="1 of 1 records of .*m.jsonl were malformed.*Span 0:99 leaves its text of 34"):
        prepare_data.main(with_flags(config, mentions=bad))
    with pytest.raises(MelError, match="1 of 1 records of .*m.jsonl were malformed.*Span 0:99 leaves its text of 34"):
        prepare_data.main(with_flags(config, evaluate_mentions=bad))
