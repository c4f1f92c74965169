"""The whole loop on the tiny world, through the binaries: exact, resumable, and the same when linked.

Few and small steps: what is tested is that nothing is lost, not how good it gets; the quickstart does that.
"""

import dataclasses
import json
import pathlib
import shutil

import pytest

from mel.artifacts import START, Workdir, exists, open_artifact
from mel.bin import evaluate, export, link, mine_negatives, prepare_data, run_rounds, train
from mel.bin.export import USUAL_WEIGHT
from mel.corpora import mewsli
from mel.corpora.kb import read_entities
from mel.corpora.malformed import Malformed
from mel.systems.system import SystemConfig
from mel.training.state import OptimizerConfig
from mel.types import MelError
from mel.verification import verify
from tests.configs import config_of
from tests.crash import is_killed_at

STEPS = 8


def config_for(workdir, evaluation_index="exact", **mining):
    return run_rounds.Config(
        workdir=str(workdir),
        first_negatives="hard",
        evaluation_index=evaluation_index,
        train=train.Config(
            workdir=str(workdir), rounds=2, steps_per_round=STEPS, batch_size=16, encoder="random:1x16x2",
            optimizer=OptimizerConfig(learning_rate=1e-2), save_every=2,
        ),
        mine=mine_negatives.Config(workdir=str(workdir), negatives_per_mention=2, pool=4, **mining),
    )  # fmt: skip


def command_line(config):
    """The flags of a config, nested ones included."""
    pairs = ((name, ",".join(value) if isinstance(value, tuple) else value) for name, value in leaves(config))
    flags = dict(pair for pair in pairs if pair[0] not in ("round", "negatives"))
    return [f"--{name}={value}" for name, value in flags.items()]


def leaves(config):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        yield from leaves(value) if dataclasses.is_dataclass(value) else [(field.name, value)]


def preparation(tiny_world, workdir):
    return config_of(
            prepare_data.Config,
        workdir=str(workdir), damuel=str(tiny_world / "damuel"), mewsli=str(tiny_world / "mewsli"),
        languages=("en", "ru", "ar", "ja"), tokenizer=str(tiny_world / "tokenizer"), mention_tokens=16,
        entity_tokens=16, workers=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tiny_world, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("prepared")
    prepare_data.main(preparation(tiny_world, workdir))
    return workdir


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    """A run with exact search that nobody stopped."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(prepared, workdir)
    run_rounds.main(config_for(workdir, index="exact"))
    return workdir


def results(workdir):
    """Everything that has to be equal between two runs: metrics, negatives and reports, byte for byte."""
    folder = pathlib.Path(workdir)
    names = ("rounds/*/training/metrics.jsonl", "rounds/*/negatives/negatives.npy", "reports/*/report.*")
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for name in names for path in sorted(folder.glob(name))
    }


def checkpoint_digests(workdir):
    rounds = (Workdir(workdir).round(number) for number in (0, 1))
    return [open_artifact(this.checkpoint, "checkpoint").digest for this in rounds]


def test_a_run_leaves_what_it_promises(finished):
    found = results(finished)
    assert sorted(found) == [
        "reports/alias_table/report.json", "reports/alias_table/report.md",
        "reports/round-0/report.json", "reports/round-0/report.md",
        "reports/round-1/report.json", "reports/round-1/report.md",
        "rounds/0/negatives/negatives.npy", "rounds/0/training/metrics.jsonl",
        "rounds/1/negatives/negatives.npy", "rounds/1/training/metrics.jsonl",
    ]  # fmt: skip
    steps = [json.loads(line)["step"] for line in found["rounds/1/training/metrics.jsonl"].splitlines()]
    assert steps == list(range(STEPS + 1, 2 * STEPS + 1))
    report = json.loads(found["reports/round-1/report.json"])
    assert set(report["micro"]) == {"r@1", "r@1_interval", "r@10", "r@100", "mrr"}
    assert report["mentions"] == sum(language["mentions"] for language in report["by_language"].values())
    embedded = {number: exists(Workdir(finished).round(number).entity_embeddings) for number in (START, 0, 1)}
    assert embedded == {START: False, 0: True, 1: True}  # of rounds before the one that mined they are removed
    assert not [finding for finding in verify(finished) if finding.amiss]


def test_the_same_command_over_what_is_finished_computes_nothing(finished, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("manifest.json")}
    monkeypatch.setattr("mel.encoder.embed.Encoder.embed", None)
    monkeypatch.setattr("mel.systems.trained.open_checkpoint", None)
    monkeypatch.setattr("mel.corpora.alias_table.AliasTable.read", None)
    run_rounds.main(config_for(finished, index="exact"))
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("manifest.json")} == before
    assert "| round-1 |" in capsys.readouterr().out


def test_the_same_command_twice_gives_the_same_bytes(finished, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "run")
    run_rounds.main(config_for(tmp_path / "run", index="exact"))
    assert results(tmp_path / "run") == results(finished)
    assert checkpoint_digests(tmp_path / "run") == checkpoint_digests(finished)


TRAINING = ("os.mkdir", "rounds/0/training/checkpoints/6")
STAGES = (
    ("os.rename", "rounds/start/.draft-checkpoint"),
    ("os.mkdir", "rounds/0/mining/.draft-00000"),
    ("os.rename", "rounds/0/.draft-negatives"),
    TRAINING,
    ("os.rename", "rounds/0/.draft-checkpoint"),
    ("os.mkdir", "rounds/1/training/checkpoints/10"),
    ("os.rename", "reports/.draft-round-1"),
)


@pytest.mark.parametrize("places", [(TRAINING,), pytest.param(STAGES, marks=pytest.mark.slow)], ids=["one", "all"])
def test_killed_in_any_stage_and_run_again_it_ends_with_the_same_report(finished, prepared, tmp_path, places):
    run = tmp_path / "run"
    shutil.copytree(prepared, run)
    config = config_for(run, index="exact")
    assert all([is_killed_at(*place, "run_rounds", command_line(config)) for place in places])
    run_rounds.main(config)
    assert results(run) == results(finished)
    assert checkpoint_digests(run) == checkpoint_digests(finished)
    assert not list(run.rglob(".draft-*"))


def test_preparing_killed_in_any_stage_and_run_again_publishes_the_same(prepared, tiny_world, tmp_path):
    config = preparation(tiny_world, tmp_path / "run")
    stages = (
        ("os.mkdir", "tokens/.draft-tokenizer"),
        ("os.rename", ".draft-kb"),
        ("os.mkdir", "tokens/.draft-entities"),
        ("os.rename", "mentions/.draft-train"),
        ("os.mkdir", "mentions/.draft-mewsli"),
    )
    assert all([is_killed_at(*stage, "prepare_data", command_line(config)) for stage in stages])
    prepare_data.main(config)
    whole, again = (
        {
            path.relative_to(folder).as_posix(): json.loads(path.read_bytes())["digest"]
            for path in folder.rglob("manifest.json")
        }
        for folder in (prepared, tmp_path / "run")
    )
    assert again == {name: digest for name, digest in whole.items() if not name.startswith("cache/")}
    assert not list((tmp_path / "run").rglob(".draft-*"))


@pytest.mark.parametrize(
    "mining, evaluation",
    [
        ("scann", "scann"),
        pytest.param("scann", "exact", marks=pytest.mark.slow),
        pytest.param("exact", "scann", marks=pytest.mark.slow),
    ],
)
def test_with_scann_index_and_negatives_are_published_once(prepared, tmp_path, caplog, mining, evaluation):
    run = tmp_path / "run"
    shutil.copytree(prepared, run)
    config = config_for(run, evaluation, index=mining, rows_a_shard=50)
    with caplog.at_level("INFO", logger="absl"):
        run_rounds.main(config)
    assert "ScaNN builds another index each time" in caplog.text and "--index=exact makes both equal" in caplog.text
    mined = [open_artifact(run / f"rounds/{number}/negatives", "negatives").facts for number in (0, 1)]
    assert ["index_recall" in facts for facts in mined] == [mining == "scann"] * 2
    reports = [json.loads((run / f"reports/round-{number}/report.json").read_text()) for number in (0, 1)]
    assert ["index_recall" in each for each in reports] == [evaluation == "scann"] * 2
    assert [each["search"] for each in reports] == [evaluation] * 2
    before, published = results(run), {path: path.stat().st_mtime_ns for path in run.glob("rounds/*/*/manifest.json")}
    shutil.rmtree(run / "rounds/1/checkpoint")
    shutil.rmtree(run / "rounds/1/embeddings")
    shutil.rmtree(run / "reports/round-1")
    run_rounds.main(config)
    assert results(run) == before
    kept = {path: path.stat().st_mtime_ns for path in published if "rounds/1/checkpoint" not in str(path)}
    assert kept.items() <= published.items()
    assert not [finding for finding in verify(run) if finding.amiss]


def test_linking_gives_the_answers_of_the_evaluation(finished, tiny_world, tmp_path):
    export.main(export.Config(workdir=str(finished), round=1))
    golds, texts = [], []
    for language in ("en", "ja"):
        for document in mewsli.read_documents(tiny_world / "mewsli", language, Malformed(0)):
            spans = [[mention.span.start, mention.span.end] for mention in document.mentions]
            golds += [mention.gold for mention in document.mentions]
            about = {"id": document.docid, "language": language, "title": document.title}
            texts.append(about | {"text": document.text, "spans": spans})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    link.main(
        link.Config(
            bundle=str(finished / "bundle"), input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out.jsonl")
        )
    )
    linked = [json.loads(line)["links"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    answers = [link["id"] for links in linked for link in links]
    right = sum(answer == gold for answer, gold in zip(answers, golds))
    fusion = SystemConfig(model="fusion", round=1, fusion_weight=USUAL_WEIGHT)  # what a bundle that fits none has
    evaluate.main(evaluate.Config(workdir=str(finished), name="two", system=fusion, languages=("en", "ja")))
    report = json.loads((finished / "reports/two/report.json").read_text())
    assert report["mentions"] == len(golds)
    assert report["micro"]["r@1"] == pytest.approx(right / len(golds), abs=1e-6)


def test_another_recipe_in_the_same_workdir_is_refused_by_flag_and_value(finished):
    config = config_for(finished, index="exact")
    fast = dataclasses.replace(config.train, optimizer=OptimizerConfig(learning_rate=0.5))
    with pytest.raises(MelError, match="was made with --learning_rate=0.01, not 0.5"):
        run_rounds.main(dataclasses.replace(config, train=fast))
    approximate = dataclasses.replace(config, mine=dataclasses.replace(config.mine, index="scann"))
    with pytest.raises(MelError, match="was made with --index=exact, not scann"):
        run_rounds.main(approximate)


def test_embeddings_of_another_checkpoint_are_refused(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "rounds/0/embeddings")
    (run / "rounds/1/embeddings").rename(run / "rounds/0/embeddings")
    shutil.rmtree(run / "rounds/1")
    with pytest.raises(MelError, match="was not made from the checkpoint at"):
        run_rounds.main(config_for(run, index="exact"))


@pytest.mark.parametrize("kb_rows_by", ["language", pytest.param("most_linked", marks=pytest.mark.slow)])
def test_a_gold_without_a_row_in_its_language_is_the_row_that_has_text_on_the_whole_path(
    shared_data, tiny_world, tmp_path, kb_rows_by
):
    case, run = shared_data.parent / "cases" / "nameless_record", tmp_path / "run"
    flags = dict(damuel=str(case / "damuel"), mewsli=str(case / "mewsli"), languages=("es", "en"), workers=1)
    tokenizer = str(tiny_world / "tokenizer")
    prepare_data.main(
        config_of(prepare_data.Config, workdir=str(run), tokenizer=tokenizer, kb_rows_by=kb_rows_by, **flags)
    )
    training = train.Config(workdir=str(run), rounds=1, steps_per_round=3, batch_size=1, encoder="random:1x16x2")
    train.main(dataclasses.replace(training, round=START))
    mine_negatives.main(mine_negatives.Config(str(run), round=START, negatives="random", negatives_per_mention=1))
    train.main(training)
    evaluate.main(evaluate.Config(workdir=str(run), name="trained", system=SystemConfig(round=0)))
    export.main(export.Config(workdir=str(run), round=0))
    text = {"id": "1", "language": "es", "text": "Llueve en Saltwick.", "spans": [[10, 18]]}
    (tmp_path / "texts.jsonl").write_text(json.dumps(text) + "\n")
    output = tmp_path / "links.jsonl"
    link.main(link.Config(bundle=str(run / "bundle"), input=str(tmp_path / "texts.jsonl"), output=str(output)))
    kb = {(entity.entity_id, entity.language): entity.title for entity in read_entities(run / "kb")}
    assert "Q5" not in kb.values() and ("Q5", "es") not in kb and kb["Q5", "en"] == "Saltwick"
    for split in ("train", "mewsli"):
        facts = open_artifact(Workdir(run).mentions(split), "mentions").facts
        assert facts["counts"]["es"] == 1 and not any(facts["gold outside the KB"].values())
    report = json.loads((run / "reports/trained/report.json").read_text())
    assert report["kb_coverage"] == report["micro"]["r@10"] == 1
    (found,) = json.loads(output.read_text())["links"]
    assert {candidate["id"]: candidate["title"] for candidate in found["candidates"]}["Q5"] == "Saltwick"
