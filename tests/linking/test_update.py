"""Entities come, change and go in a bundle, and everything else stays what it was, bit for bit."""

import json
import os
import shutil
import threading

import numpy as np
import pytest
import safetensors.numpy

from mel.artifacts import START, Workdir, open_artifact
from mel.bin import export, link, update_bundle, verify
from mel.corpora import mewsli
from mel.corpora.malformed import Malformed
from mel.linking.bundle import open_bundle
from mel.linking.linker import Linker, Text
from mel.locks import claim
from mel.types import NIL, Entity, MelError, Mention, Span

NEW = {"id": "MESH:D1", "language": "en", "title": "Zorbat", "description": "A tool.", "aliases": ["Zorb", "Saturn"]}


def write(folder, name, *records):
    (folder / name).write_text(
        "".join(f"{json.dumps(each)}\n" if isinstance(each, dict) else f"{each}\n" for each in records)
    )
    return (str(folder / name),)


def update(bundle, output, **flags):
    update_bundle.main(update_bundle.Config(bundle=str(bundle), output=str(output), **flags))
    return Linker.load(output)


@pytest.fixture(scope="module")
def mentions(tiny_world):
    documents = mewsli.read_documents(tiny_world / "mewsli", "en", Malformed(0))
    return [mention for document in documents for mention in document.mentions][:60]


@pytest.fixture(scope="module")
def before(exported):
    return Linker.load(exported.bundle)


@pytest.fixture(scope="module")
def touched(before):
    """An entity to change in English, which has other languages, and two to remove, all of them by id."""
    kb = before.bundle.kb
    many = [number for number in np.unique(kb.entities_E).tolist() if len(kb.titles_of(number)) > 1]
    return [kb.ids[number] for number in many[:3]]


@pytest.fixture(scope="module")
def files(touched, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    changed = {"id": touched[0], "language": "en", "title": "Other title", "description": "Another thing."}
    abroad = NEW | {"language": "fr", "title": "Le Zorbat", "aliases": []}
    return {"add": write(folder, "add.jsonl", NEW, abroad, changed), "remove": write(folder, "gone.txt", *touched[1:])}


@pytest.fixture(scope="module")
def updated(exported, files, tmp_path_factory):
    output = tmp_path_factory.mktemp("updated") / "bundle"
    update(exported.bundle, output, **files)
    return output


def scores(linker, mentions):
    """{(mention, id): score} of all candidates."""
    ranking, ids = linker.rank(mentions), linker.bundle.kb.ids
    lines = zip(ranking.entities_QK.tolist(), ranking.scores_QK.tolist(), strict=True)
    return {
        (number, ids[entity]): score
        for number, line in enumerate(lines)
        for entity, score in zip(*line, strict=True)
        if entity != NIL
    }


def candidates(linker, text, language="en"):
    (found,) = linker.link(text, [(0, len(text))], language, top_k=100)
    return {candidate.id: candidate for candidate in found.candidates}


def test_scores_of_untouched_entities_are_what_they_were_bit_for_bit(before, updated, mentions, touched):
    after = Linker.load(updated)
    old, new = scores(before, mentions), scores(after, mentions)
    others = [key for key in old.keys() & new.keys() if key[1] not in touched]
    assert len(others) > 0.8 * len(old) and all(old[key] == new[key] for key in others)
    assert {name for _, name in new} & {"MESH:D1"} and not {name for _, name in new} & set(touched[1:])
    queries_QD = before.embed_mentions([Text(mention.context, [mention.span]) for mention in mentions[:9]])
    one, other = (linker.bundle.evidence.index.search(queries_QD, 500) for linker in (before, after))
    cosines = [dict(zip(rows, each, strict=True)) for rows, each in zip(*map(np.ndarray.tolist, other), strict=True)]
    for number, (rows, each) in enumerate(zip(*map(np.ndarray.tolist, one), strict=True)):
        assert all(cosines[number][row] == score for row, score in zip(rows, each, strict=True) if row >= 0)


def test_nothing_large_is_written_and_the_old_bundle_may_go(exported, updated, files, tmp_path):
    manifest = (exported.bundle / "manifest.json").read_bytes()
    for name in ("index/embeddings.npy", "encoder/model.safetensors", "descriptions.npy", "alias_table/names.npy"):
        assert os.path.samefile(exported.bundle / name, updated / name)
    old = shutil.copytree(exported.bundle, tmp_path / "old")
    expected = open_artifact(update(old, tmp_path / "new", **files) and tmp_path / "new", "bundle").digest
    shutil.rmtree(old)
    verify.main(verify.Config(bundle=str(tmp_path / "new")))
    assert open_artifact(tmp_path / "new", "bundle").digest == expected == open_artifact(updated, "bundle").digest
    assert (exported.bundle / "manifest.json").read_bytes() == manifest
    verify.main(verify.Config(bundle=str(exported.bundle)))


def test_what_was_added_is_found_by_all_its_names_with_its_own_words(updated):
    linker = Linker.load(updated)
    for name in ("Zorbat", "Zorb", "le zorbat", "Zorbatt"):  # as it is, an alias, in another case, most similar
        (known,) = linker.bundle.kb.numbers_of(["MESH:D1"]).tolist()
        probable, other = linker.bundle.evidence.prior([(name, "en", "")])(name, "en", "")
        assert probable[known] > 0.25 > 10 * other
    found = candidates(linker, "Zorbat", "fr")["MESH:D1"]
    assert (found.title, found.description) == ("Le Zorbat", "A tool.")
    bundle, entity = linker.bundle, Entity("MESH:D1", "en", "Zorbat", "A tool.")
    row = int(bundle.kb.rows_of(bundle.kb.numbers_of(["MESH:D1"]), "en")[0])
    assert bundle.descriptions[row] == "A tool." and bundle.kb.titles[row] == "Zorbat"
    vector_1D = bundle.evidence.embeddings_ED[np.array([row])]
    np.testing.assert_allclose(linker.embed_entities([entity]), vector_1D, atol=1e-6)


def test_what_changed_has_its_new_name_in_that_language_and_its_old_ones_in_others(before, updated, touched):
    old, new = before.bundle.kb, Linker.load(updated).bundle.kb
    (number,) = old.numbers_of(touched[:1])
    assert new.numbers_of(touched[:1]).tolist() == [number] and new.entity_rows.has(np.array([number])).all()
    titles = dict(zip([old.languages[place] for place in old.languages_E[old.entities_E == number]],
                      [old.titles[row] for row in np.flatnonzero(old.entities_E == number)], strict=True))  # fmt: skip
    assert sorted(new.titles_of(int(number))) == sorted(titles | {"en": "Other title"} and [
        "Other title", *(title for language, title in titles.items() if language != "en")
    ])  # fmt: skip
    table = Linker.load(updated).bundle.evidence.table
    named = table.prior("Other title", "en")[0]
    assert list(named) == [number]


def test_what_was_removed_is_no_answer_whatever_speaks_for_it(untrained, touched, mentions, tmp_path):
    work = Workdir(shutil.copytree(untrained.path, tmp_path / "run"))
    export.main(
        export.Config(workdir=str(work.path), round=START, contexts=True, context_weight=9.0, fusion_weight=1.0)
    )
    linker = Linker.load(work.bundle)
    found = [name for _, name in sorted(scores(linker, mentions))]
    gone = [max(set(found), key=found.count), touched[1]]
    after = update(work.bundle, tmp_path / "new", remove=write(tmp_path, "gone.txt", *gone))
    assert not {name for _, name in scores(after, mentions)} & set(gone)
    assert set(gone) & {name for _, name in scores(linker, mentions)}


def test_of_two_updates_the_second_sees_the_first(exported, updated, before, mentions, touched, tmp_path):
    second = NEW | {"title": "Zorbat II", "description": "A better tool.", "aliases": ["Zorb II"]}
    files = {
        "add": write(tmp_path, "add.jsonl", second, {"id": "Q42", "language": "en", "title": "Fortytwo"}),
        "remove": write(tmp_path, "gone.txt", touched[0]),
    }
    after = update(updated, tmp_path / "new", **files)
    kb = after.bundle.kb
    (number,) = kb.numbers_of(["MESH:D1"]).tolist()
    assert sorted(kb.titles_of(number)) == ["Le Zorbat", "Zorbat II"]
    assert not kb.entity_rows.has(kb.numbers_of(touched)).any() and kb.entity_rows.has(kb.numbers_of(["Q42"])).all()
    prior = {name: list(after.bundle.evidence.table.prior(name, "en")[0]) for name in ("Zorb", "Zorb II", "Zorbat")}
    assert prior == {"Zorb": [], "Zorb II": [number], "Zorbat": []}
    old, new = scores(before, mentions), scores(after, mentions)
    others = [key for key in old.keys() & new.keys() if key[1] not in touched]
    assert others and all(old[key] == new[key] for key in others)
    back = update(tmp_path / "new", tmp_path / "back", add=write(tmp_path, "a.jsonl", NEW | {"id": touched[0]}))
    assert back.bundle.kb.titles_of(int(back.bundle.kb.numbers_of(touched[:1])[0])) == ["Zorbat"]
    verify.main(verify.Config(bundle=str(tmp_path / "back")))


@pytest.mark.parametrize("index", ["exact", pytest.param("scann", marks=pytest.mark.slow)])
def test_compacted_it_is_one_layer_with_the_same_answers(
    untrained, exported, updated, files, mentions, tmp_path, index
):
    if index == "scann":
        work = Workdir(shutil.copytree(untrained.path, tmp_path / "run"))
        export.main(export.Config(workdir=str(work.path), round=START, index="scann", contexts=True))
        update(work.bundle, tmp_path / "updated", **files)
    source = updated if index == "exact" else tmp_path / "updated"
    layered, whole = Linker.load(source), update(source, tmp_path / "whole", compact=True)
    kb, bundle = layered.bundle.kb, whole.bundle
    assert not (tmp_path / "whole" / "later").exists()
    alive = np.flatnonzero(kb.entities_E != NIL)
    assert list(bundle.kb.titles) == [kb.titles[row] for row in alive.tolist()]
    assert [bundle.kb.ids[n] for n in bundle.kb.entities_E.tolist()] == [
        kb.ids[n] for n in kb.entities_E[alive].tolist()
    ]
    assert list(bundle.descriptions) == [layered.bundle.descriptions[row] for row in alive.tolist()]
    np.testing.assert_array_equal(bundle.evidence.embeddings_ED, layered.bundle.evidence.embeddings_ED[alive])
    old, new = scores(layered, mentions), scores(whole, mentions)
    both = old.keys() & new.keys()
    assert len(both) > 0.9 * len(old)
    np.testing.assert_allclose([old[key] for key in both], [new[key] for key in both], atol=0.05)
    assert "MESH:D1" in candidates(whole, "Zorb")
    verify.main(verify.Config(bundle=str(tmp_path / "whole")))
    with pytest.raises(MelError, match="is one layer already: there is nothing to compact."):
        update(tmp_path / "whole", tmp_path / "again", compact=True)


def test_the_encoder_takes_another_knowledge_base(calibrated, tmp_path, caplog):
    after = update(
        calibrated.bundle, tmp_path / "new", kb=write(tmp_path, "kb.jsonl", NEW, NEW | {"id": "x", "title": "X"})
    )
    assert sorted(after.bundle.kb.ids) == ["MESH:D1", "NIL", "x"] and after.bundle.calibration is None
    assert "has no calibration: those of" in caplog.text
    assert set(candidates(after, "Zorb")) == {"MESH:D1", "x"}
    verify.main(verify.Config(bundle=str(tmp_path / "new")))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    update(tmp_path / "new", tmp_path / "newer", remove=write(tmp_path, "gone.txt", "x"))


def test_it_is_linked_with_from_the_command_line(updated, tmp_path):
    text = {"id": "1", "language": "en", "text": "Zorbat", "spans": [[0, 6]]}
    config = {"input": write(tmp_path, "in.jsonl", text)[0], "output": str(tmp_path / "out.jsonl")}
    link.main(link.Config(bundle=str(updated), **config))
    (found,) = json.loads((tmp_path / "out.jsonl").read_text())["links"]
    assert found["id"] in {each["id"] for each in found["candidates"]}


@pytest.mark.parametrize(
    "add, remove, sentence",
    [
        (
            [],
            ["Q1", "no such id", "x"],
            r"--remove names .*'no such id' \(.*gone.txt:2\).*which the bundle does not have",
        ),
        (
            [NEW | {"id": "{id}"}],
            ["{id}"],
            "is to be added and to be removed .*gone.txt:1.: leave it out of one of the two.",
        ),
        ([NEW], ["x" * 1001], "gone.txt:1: .* is no id"),
        ([NEW, NEW], [], "has a record in en already"),
        (["{"], [], "1 of 1 records of .*add.jsonl were malformed"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_changed(exported, touched, tmp_path, add, remove, sentence):
    manifest = (exported.bundle / "manifest.json").read_bytes()
    add = [each | {"id": each["id"].format(id=touched[0])} if isinstance(each, dict) else each for each in add]
    files = {
        "add": write(tmp_path, "add.jsonl", *add) if add else (),
        "remove": write(tmp_path, "gone.txt", *(name.format(id=touched[0]) for name in remove)) if remove else (),
    }
    with pytest.raises(MelError, match=sentence):
        update_bundle.main(
            update_bundle.Config(
                bundle=str(exported.bundle),
                output=str(tmp_path / "new"),
                max_malformed=0 if len(add) > 1 else 9,
                **files,
            )
        )
    assert not (tmp_path / "new").exists() and (exported.bundle / "manifest.json").read_bytes() == manifest


def test_of_two_at_once_one_is_told_who_writes(exported, files, tmp_path):
    held, done = threading.Event(), threading.Event()

    def hold():
        with claim(tmp_path / "new"):
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        with pytest.raises(MelError, match="new is being written by another thread .*: wait until that is done"):
            update(exported.bundle, tmp_path / "new", **files)
    finally:
        done.set()
        thread.join()
    update(exported.bundle, tmp_path / "new", **files)
    with pytest.raises(MelError, match="new is already published"):
        update(exported.bundle, tmp_path / "new", **files)


@pytest.mark.parametrize(
    "flags, sentence",
    [
        ({}, "One of --add with --remove, --kb and --compact has to be given"),
        ({"kb": ("x.csv",), "compact": True}, "and one at a time"),
        ({"add": ("x.csv",), "output": "{bundle}/new"}, "new is in the bundle itself, which stays as it is"),
        ({"add": ("x.csv",), "output": "{bundle}"}, "is in the bundle itself"),
        ({"compact": True}, "is one layer already"),
        ({"add": ("nowhere.csv",)}, "nowhere.csv cannot be read"),
        ({"remove": ("nowhere.txt",)}, "nowhere.txt cannot be read"),
        ({"add": ("x.csv",), "bundle": "{run}/kb"}, "holds kb, not bundle"),
    ],
)
def test_flags_that_make_no_sense_are_refused(exported, tmp_path, flags, sentence):
    places = {"bundle": str(exported.bundle), "run": str(exported.path)}
    flags = {"bundle": "{bundle}", "output": str(tmp_path / "new")} | flags
    flags = {name: value.format(**places) if isinstance(value, str) else value for name, value in flags.items()}
    with pytest.raises(MelError, match=sentence):
        update_bundle.main(update_bundle.Config(**flags))


def test_the_last_entity_cannot_go_and_ids_come_as_records_too(exported, tmp_path):
    ids = list(open_bundle(exported.bundle).kb.ids)
    kb = open_bundle(exported.bundle).kb
    everything = [kb.ids[number] for number in np.unique(kb.entities_E).tolist()]
    with pytest.raises(MelError, match="Nothing would be left of .*bundle: leave an entity, or add one."):
        update(exported.bundle, tmp_path / "new", remove=write(tmp_path, "all.txt", *everything))
    (tmp_path / "gone.csv").write_text("id\n" + "\n".join(everything[1:]) + "\n", "utf-8")
    after = update(exported.bundle, tmp_path / "new", remove=(str(tmp_path / "gone.csv"),))
    mention = Mention("1", "en", "Anything", Span(0, 8), "NIL")
    assert {name for _, name in scores(after, [mention])} == {everything[0]} and len(ids) > 3


def test_what_is_for_other_programs_says_what_changed_or_is_left_out_until_all_is_written_anew(
    untrained, tmp_path, touched
):
    work = Workdir(shutil.copytree(untrained.path, tmp_path / "run"))
    export.main(export.Config(workdir=str(work.path), round=START, entities_file=True))
    assert (work.bundle / "entities.safetensors").is_file()
    update(work.bundle, tmp_path / "new", remove=write(tmp_path, "gone.txt", touched[1]))
    card = (tmp_path / "new" / "README.md").read_text("utf-8")
    assert not (tmp_path / "new" / "entities.safetensors").exists()
    assert "entities.safetensors is left out: compacting the bundle writes it." in card
    whole = update(tmp_path / "new", tmp_path / "whole", compact=True)
    columns = safetensors.numpy.load_file(tmp_path / "whole" / "entities.safetensors")
    np.testing.assert_array_equal(columns["embeddings"], whole.bundle.evidence.embeddings_ED)
    after = (tmp_path / "whole" / "README.md").read_text("utf-8")
    assert after.startswith((work.bundle / "README.md").read_text("utf-8")) and "left out" not in after
    assert f"Its entities are {len(whole.bundle.kb):,} rows now." in after
