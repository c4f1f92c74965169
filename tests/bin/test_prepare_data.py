"""From archives to artefacts: the real samples, and what must not matter."""

import json
import shutil
from collections import Counter

import pytest

from mel.artifacts import Workdir, open_artifact
from mel.bin import prepare_data
from mel.bin.prepare_data import Config
from mel.corpora.alias_table import AliasTable
from mel.corpora.download import Download
from mel.corpora.kb import KnowledgeBase, read_entities
from mel.shards.blocks import is_held_out
from mel.shards.datasets import open_rows
from mel.types import MelError
from tests.configs import config_of, with_flags


@pytest.fixture
def config(tiny_world, tmp_path):
    return config_of(
        Config,
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
    config = config_of(
        Config,
        workdir=str(tmp_path / "run"), damuel=str(shared_data / "samples" / "damuel"), workers=1,
        mewsli=str(shared_data / "samples" / "mewsli9"), languages=("es",), tokenizer=str(tiny_world / "tokenizer"),
        kb_rows="all",
    )  # fmt: skip
    prepare_data.main(config)
    work = Workdir(config.workdir)
    assert open_artifact(work.kb, "kb").facts["entities"] == {"es": 29}
    assert open_artifact(work.kb, "kb").facts["dropped"] == {"record without a name": 9}
    assert not [entity for entity in read_entities(work.kb) if not entity.title or entity.title[1:].isdigit()]
    assert len(lines(work.mentions("train"))) == 55
    assert [line["surface_form"] for line in lines(work.mentions("mewsli"))][:3] == ["Lérida", "España", "Lérida"]
    assert len(lines(work.mentions("mewsli"))) == 9
    assert "| es | 29 | 55 | 9 |" in capsys.readouterr().out


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
    several = with_flags(config, workdir=config.workdir + "2", workers=2)
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
    config = with_flags(config, held_out=0.3, mewsli="")
    prepare_data.main(config)
    work = Workdir(config.workdir)
    pages = {
        split: {line["document"].split("-")[1] for line in lines(work.mentions(split))}
        for split in ("train", "held_out")
    }
    assert all(is_held_out(page, 0.3) for page in pages["held_out"]) and pages["held_out"]
    assert not any(is_held_out(page, 0.3) for page in pages["train"]) and pages["train"]
    kb = KnowledgeBase.read(work.kb, open_artifact(work.kb, "kb").facts["languages"])
    linked = Counter((line["surface_form"], line["language"], line["gold"]) for line in lines(work.mentions("train")))
    table, shares = AliasTable.read(work.alias_table), {}
    for form, language in {key[:2] for key in linked}:
        shares |= {(form, language, kb.ids[entity]): score for entity, score in table.candidates(form, language)}
    totals = Counter()
    for (form, language, _), count in linked.items():
        totals[form, language] += count
    assert shares == {key: count / totals[key[:2]] for key, count in linked.items()}
    assert table.surface_forms() == sorted({form for form, _, _ in linked})


def test_redirects_are_followed_to_the_end_and_counted(config, tmp_path):
    prepare_data.main(config)
    old, between, new = next(read_entities(Workdir(config.workdir).kb)).entity_id, "Q999998", "Q999999"
    (tmp_path / "redirects.json").write_text(json.dumps({old: between, between: new}))
    moved = with_flags(config, workdir=config.workdir + "2", redirects=str(tmp_path / "redirects.json"))
    prepare_data.main(moved)
    names = {entity.entity_id for entity in read_entities(Workdir(moved.workdir).kb)}
    assert new in names and not {old, between} & names
    assert open_artifact(Workdir(moved.workdir).kb, "kb").facts["redirected"] > 1


def write_records(folder, language, *records):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"lang": language} | record) + "\n" for record in records]
    (folder / f"damuel_1.0_{language}").mkdir()
    (folder / f"damuel_1.0_{language}" / "part-00000").write_text("".join(lines), encoding="utf-8")


def page(title, text, *links):
    tokens, start = [], 0
    for word in text.split(" "):
        tokens.append({"start": start, "end": start + len(word)})
        start += len(word) + 1
    links = [{"start": first, "end": last, "origin": "wiki", "qid": qid} for first, last, qid in links]
    return {"label": title, "wiki": {"title": title, "text": text, "tokens": tokens, "links": links}}


LOOP = page("One", "One is one .", (2, 3, "Q1"))


def write_mention(folder, language, text, surface_form, qid):
    (folder / language / "text").mkdir(parents=True)
    (folder / language / "text" / f"{language}-1").write_text(text, encoding="utf-8")
    row = f"{language}-1\t{text.index(surface_form)}\t{len(surface_form)}\t{surface_form}\t{qid}"
    (folder / language / "mentions.tsv").write_text(f"docid\tposition\tlength\tmention\tqid\n{row}\n")


def golds(workdir, split):
    """(title, description) of the entity whose row each mention of a split has as its gold."""
    work = Workdir(workdir)
    tokens = open_artifact(work.mention_tokens(split), "tokens")
    entities = list(read_entities(work.kb))
    rows = open_rows(tokens, work.cache(tokens)).entity_rows_N
    return [(entities[row].title, entities[row].description) if row >= 0 else None for row in rows]


@pytest.mark.parametrize("stub_first", [True, False])
def test_the_record_of_the_target_itself_wins_over_a_merged_stub(config, tmp_path, stub_first):
    void = {"qid": "Q100"} | page("Word and Void", "Word and Void is a series of novels by a writer .")
    reader = {"qid": "Q5"} | page("Reader", "A reader likes Word and Void very much .", (3, 6, "Q900"))
    stub = {"qid": "Q900", "label": "Old stub label"}
    write_records(tmp_path / "damuel", "en", *([stub, void, reader] if stub_first else [void, stub, reader]))
    write_mention(tmp_path / "mewsli", "en", "She reads Word and Void at night.", "Word and Void", "Q900")
    (tmp_path / "redirects.json").write_text('{"Q900": "Q901", "Q901": "Q100"}')
    config = with_flags(
        config, damuel=str(tmp_path / "damuel"), mewsli=str(tmp_path / "mewsli"), languages=("en",),
        redirects=str(tmp_path / "redirects.json"),
    )  # fmt: skip
    prepare_data.main(config)
    work = Workdir(config.workdir)
    assert [(entity.entity_id, entity.title) for entity in read_entities(work.kb)] == [
        ("Q100", "Word and Void"),
        ("Q5", "Reader"),
    ]
    assert open_artifact(work.kb, "kb").facts["duplicates"] == {"en": 1}
    for split in ("train", "mewsli"):
        assert golds(config.workdir, split) == [("Word and Void", "Word and Void is a series of novels by a writer .")]
        assert open_artifact(work.mentions(split), "mentions").facts["gold outside the KB"] == {"en": 0}
    ids = KnowledgeBase.read(work.kb, ("en",)).ids
    candidates = AliasTable.read(work.alias_table).candidates("Word and Void")
    assert [ids[candidate.entity] for candidate in candidates] == ["Q100"]


def test_a_stub_stands_for_a_target_that_has_no_record(config, tmp_path):
    write_records(tmp_path / "damuel", "en", {"qid": "Q900"} | LOOP, {"qid": "Q901", "label": "Later stub"})
    (tmp_path / "redirects.json").write_text('{"Q900": "Q100", "Q901": "Q100"}')
    config = with_flags(
        config, damuel=str(tmp_path / "damuel"), mewsli="", languages=("en",),
        redirects=str(tmp_path / "redirects.json"),
    )  # fmt: skip
    prepare_data.main(config)
    assert [(entity.entity_id, entity.title) for entity in read_entities(Workdir(config.workdir).kb)] == [
        ("Q100", "One")
    ]


def test_a_record_without_a_name_is_no_row_and_the_first_language_with_one_stands_for_it(config, tmp_path):
    village = "Saltwick is a village on the coast ."
    write_records(
        tmp_path / "damuel", "en",
        {"qid": "Q5"} | page("Saltwick", village), {"qid": "Q6"} | page("Reader", "A reader is a person ."),
    )  # fmt: skip
    write_records(
        tmp_path / "damuel", "es",
        {"qid": "Q5"}, {"qid": "Q6"} | page("Lector", "Un lector vive en Saltwick desde siempre .", (4, 5, "Q5")),
    )  # fmt: skip
    write_mention(tmp_path / "mewsli", "es", "Llueve en Saltwick.", "Saltwick", "Q5")
    config = with_flags(
        config, damuel=str(tmp_path / "damuel"), mewsli=str(tmp_path / "mewsli"), languages=("es", "en")
    )
    prepare_data.main(config)
    work = Workdir(config.workdir)
    assert [(entity.language, entity.title) for entity in read_entities(work.kb)] == [
        ("es", "Lector"), ("en", "Saltwick"), ("en", "Reader"),
    ]  # fmt: skip
    assert golds(config.workdir, "train") == golds(config.workdir, "mewsli") == [("Saltwick", village)]
    assert open_artifact(work.kb, "kb").facts["dropped"] == {"record without a name": 1}


def test_golds_outside_every_kb_are_kept_and_counted(config, tmp_path):
    shutil.copytree(config.mewsli, tmp_path / "mewsli")
    path = tmp_path / "mewsli" / "en" / "mentions.tsv"
    header, *rows = path.read_text().splitlines()
    column = header.split("\t").index("qid")
    rows = ["\t".join(f if n != column else "NIL" for n, f in enumerate(row.split("\t"))) for row in rows]
    path.write_text("\n".join([header, *rows]) + "\n")
    prepare_data.main(with_flags(config, mewsli=str(tmp_path / "mewsli"), languages=("en",)))
    facts = open_artifact(Workdir(config.workdir).mentions("mewsli"), "mentions").facts
    assert facts["counts"] == {"en": len(rows)} == facts["gold outside the KB"]
    assert {line["gold"] for line in lines(Workdir(config.workdir).mentions("mewsli"))} == {"NIL"}
    assert set(golds(config.workdir, "mewsli")) == {None}


def test_refusals(config, tmp_path):
    def refuse(message, **changes):
        with pytest.raises(MelError, match=message):
            prepare_data.main(with_flags(config, **changes))

    refuse("has no damuel_.*_xx.tar; languages there: ", languages=("en", "xx"))
    refuse("is not a folder", damuel=str(tmp_path / "nowhere"))
    refuse("--languages names en twice: once is enough", languages=("en", "en"))
    refuse("'../x' is not a language", languages=("../x",))
    refuse("--max_malformed_share=20 is not a share", max_malformed_share=20.0)
    refuse("--download_from=nowhere is no address", download=Download(download=True, download_from="nowhere"))
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
    empty = with_flags(config, damuel=str(tmp_path / "damuel"), languages=("en",), mewsli="")
    message = "The knowledge base is empty: .* What was read: 1 of 1 were dropped: record of another language"
    with pytest.raises(MelError, match=message):
        prepare_data.main(empty)
    assert not Workdir(config.workdir).kb.exists()


def test_an_archive_of_which_nothing_or_little_can_be_used_is_refused_with_the_first_reasons(config, tmp_path):
    part = tmp_path / "damuel" / "part-00000"
    part.parent.mkdir()
    config = with_flags(config, damuel=str(part.parent), languages=("en",), mewsli="")
    part.write_text("{\n[]\n")
    with pytest.raises(
        MelError, match=r"2 of 2 records of the archive of en were malformed, all of them.*00000:1 \(it is"
    ):
        prepare_data.main(config)
    good = json.dumps({"qid": "Q1", "lang": "en"} | LOOP) + "\n"
    part.write_text(good * 9 + "{\n" * 3)
    with pytest.raises(MelError, match="3 of 12 records .* more than a share of 0.2"):
        prepare_data.main(config)
    assert not Workdir(config.workdir).kb.exists()
    prepare_data.main(with_flags(config, max_malformed_share=0.3))


def test_a_language_of_which_there_is_nothing_is_said(config, tmp_path, caplog):
    write_records(tmp_path / "damuel", "en", {"qid": "Q1"} | LOOP)
    write_records(tmp_path / "damuel", "de", {"qid": "Q1", "lang": "en", "label": "One"})
    config = with_flags(config, damuel=str(tmp_path / "damuel"), languages=("de", "en"), mewsli="")
    with caplog.at_level("WARNING", logger="absl"):
        prepare_data.main(config)
    assert "No entity of de was found: is the input the right one?" in caplog.messages


def test_archives_without_links_are_refused_with_what_was_dropped(config, tmp_path):
    write_records(tmp_path / "damuel", "en", {"qid": "Q1"} | page("One", "One is one .", (2, 3, "one"), (2, 9, "Q1")))
    config = with_flags(config, damuel=str(tmp_path / "damuel"), languages=("en",), mewsli="")
    message = "No mention was found for .*mentions/train; dropped: 1 qid is not a QID, 1 span outside the text"
    with pytest.raises(MelError, match=message):
        prepare_data.main(config)


def test_archives_that_are_missing_are_fetched_first(config, monkeypatch, tmp_path, tiny_world):
    def fetch(folder, languages, address):
        assert (address, tuple(languages)) == ("http://x", ("en", "ja"))
        shutil.copytree(tiny_world / "damuel", folder)

    monkeypatch.setattr(prepare_data, "fetch_archives", fetch)
    download = Download(download=True, download_from="http://x")
    prepare_data.main(with_flags(config, damuel=str(tmp_path / "new"), download=download))
    assert Workdir(config.workdir).kb.exists()


def test_one_row_an_entity_of_the_language_that_links_most(config, tmp_path, capsys):
    """Q5 is linked twice in Spanish and once in English, Q6 nowhere; --languages has English first."""
    write_records(
        tmp_path / "damuel", "en",
        {"qid": "Q5"} | page("Saltwick", "Saltwick is a village ."), {"qid": "Q6"} | page("Reader", "A reader reads ."),
        {"qid": "Q7"} | page("Coast", "The coast of Saltwick .", (3, 4, "Q5")),
    )  # fmt: skip
    write_records(
        tmp_path / "damuel", "es",
        {"qid": "Q5"} | page("Saltvico", "Saltvico es un pueblo ."), {"qid": "Q6"} | page("Lector", "Un lector lee ."),
        {"qid": "Q8"} | page("Playa", "Saltvico y Saltvico tienen playa .", (0, 1, "Q5"), (2, 3, "Q5")),
    )  # fmt: skip
    config = with_flags(
        config, damuel=str(tmp_path / "damuel"), mewsli="", languages=("en", "es"), kb_rows_by="most_linked"
    )
    prepare_data.main(config)
    work = Workdir(config.workdir)
    assert [(entity.entity_id, entity.title) for entity in read_entities(work.kb)] == [
        ("Q6", "Reader"), ("Q7", "Coast"), ("Q5", "Saltvico"), ("Q8", "Playa"),
    ]  # fmt: skip
    facts = open_artifact(work.kb, "kb").facts
    assert facts["entities"] == {"en": 2, "es": 2} and facts["left_out"] == {"en": 1, "es": 1}
    assert "2 rows of entities that another language links to more" in capsys.readouterr().out
    assert {title for title, _ in golds(config.workdir, "train")} == {"Saltvico"}
    table, ids = AliasTable.read(work.alias_table), KnowledgeBase.read(work.kb, ("en", "es")).ids
    by_name, _ = table.prior("Lector", "es")
    assert [ids[entity] for entity in by_name] == ["Q6"]  # the title of a row that is left out is a name still


def test_a_language_that_the_vocabulary_does_not_know_is_warned_of(config, tmp_path, capsys, caplog):
    letters = [letter for letter in map(chr, range(33, 127)) if not letter.isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (tmp_path / "latin").mkdir()
    (tmp_path / "latin" / "vocab.txt").write_text("\n".join(pieces) + "\n")
    prepare_data.main(with_flags(config, tokenizer=str(tmp_path / "latin")))
    tokens = [open_artifact(Workdir(config.workdir).mention_tokens(split), "tokens") for split in ("train", "mewsli")]
    shares = {}
    for language in ("en", "ja"):
        unknown, known = map(sum, zip(*(split.facts["unknown in focus"][language] for split in tokens), strict=True))
        shares[language] = unknown / known
    assert shares["en"] < 0.02 and shares["ja"] > 0.3
    rows = {
        line.split(" | ")[0]: line.split(" | ")[-2] for line in capsys.readouterr().out.splitlines() if " | " in line
    }
    assert (rows["| en"], rows["| ja"]) == (f"{shares['en']:.2%}", f"{shares['ja']:.2%}")
    (warning,) = (record.message for record in caplog.records if "vocabulary lacks" in record.message)
    assert f"lacks {100 * shares['ja']:.1f} % of the tokens inside mentions of ja" in warning
