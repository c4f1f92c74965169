"""The binary over a tiny world: two ways to ask the same questions, names, refusals."""

import dataclasses
import json
import math
import shlex
import shutil

import numpy as np
import pytest

from mel.artifacts import START, Workdir, open_artifact, seal
from mel.bin import evaluate, train
from mel.corpora.alias_table import AliasTable
from mel.corpora.kb import KnowledgeBase
from mel.evaluation import evidence
from mel.evaluation.breakdowns import IN_TRAINING
from mel.evaluation.evaluation_set import read_prepared
from mel.evaluation.recall import METRICS
from mel.reports import evaluate as evaluation
from mel.reports.evaluate import command
from mel.reports.report import open_report
from mel.shards.blocks import Windows
from mel.shards.rows import TokenRows
from mel.systems import system
from mel.systems.system import SystemConfig
from mel.text.tokenizer import Tokenizer
from mel.training.loss import LossConfig
from mel.types import MarkedText, MelError, Span


@pytest.fixture
def work(untrained, tmp_path) -> Workdir:
    """A copy that a test may write to."""
    return Workdir(shutil.copytree(untrained.path, tmp_path / "run"))


def config_of(work: Workdir, name: str, **options) -> evaluate.Config:
    """A config whose options may be those of the system."""
    about_system = {field.name for field in dataclasses.fields(SystemConfig)}
    chosen = SystemConfig(**{name: value for name, value in options.items() if name in about_system})
    others = {name: value for name, value in options.items() if name not in about_system}
    return evaluate.Config(workdir=str(work.path), name=name, system=chosen, **others)


def evaluated(work: Workdir, name: str, **options) -> dict:
    evaluate.main(config_of(work, name, **options))
    return open_report(work.report(name))


def without(report: dict, *names: str) -> dict:
    return {name: value for name, value in report.items() if name not in names}


def pretend_trained(work: Workdir, number: int) -> None:
    """A round whose training changed nothing."""
    start = open_artifact(work.round(START).checkpoint, "checkpoint")
    manifest = shutil.copytree(start.path, work.round(number).checkpoint) / "manifest.json"
    changed = json.loads(manifest.read_text()) | {"inputs": start.inputs | {"start": start.digest}}
    manifest.write_text(json.dumps(seal(changed)))


def test_the_alias_table_answers_with_its_most_frequent_entity(work):
    report = evaluated(work, "aliases", model="alias_table")
    table = AliasTable.read(work.alias_table)
    mentions = read_prepared(
        work, "mewsli", KnowledgeBase.read(work.kb, open_artifact(work.kb, "kb").facts["languages"])
    )
    hits = [
        bool(found := table.candidates(surface_form)) and found[0].entity == gold
        for surface_form, gold in zip(mentions.surface_forms, mentions.gold_Q)
    ]
    assert report["micro"]["r@1"] == pytest.approx(np.mean(hits), abs=1e-6)
    by_ambiguity = report["breakdowns"][IN_TRAINING]
    assert report["mentions"] == len(hits) == sum(group["mentions"] for group in by_ambiguity.values())
    assert by_ambiguity["unseen"]["r@1"] == 0 < by_ambiguity["unseen"]["mentions"]
    assert by_ambiguity["ambiguous"]["r@1"] < by_ambiguity["unambiguous"]["r@1"]


def test_every_system_answers_and_each_table_knows_more_than_the_one_before(work):
    names = (
        "alias_table",
        "alias_table_names",
        "string_similarity",
        "alias_table_language",
        "olpeat",
        "olpeat_all_languages",
        "fusion",
    )
    reports = {name: evaluated(work, name, model=name, round=START) for name in names}
    found = [reports[name]["micro"]["r@100"] for name in names[:3]]
    assert found == sorted(found) and found[0] < found[2]
    unseen = {name: report["breakdowns"][IN_TRAINING]["unseen"]["r@1"] for name, report in reports.items()}
    assert unseen["alias_table"] == unseen["alias_table_language"] == 0 < unseen["string_similarity"]
    assert reports["olpeat"]["round"] == START and reports["alias_table_names"]["round"] is None
    tuned = reports["fusion"]["tuned"]
    assert set(tuned) == {"fusion_weight", "fusion_weight_by_fold", "how"}
    assert "tuned" not in reports["olpeat"]
    alone = evaluated(work, "alone", round=START)
    assert reports["fusion"]["micro"]["r@1"] > alone["micro"]["r@1"]  # random weights know nothing


def test_a_stated_weight_is_used_and_said(work):
    report = evaluated(work, "stated", model="fusion", round=START, fusion_weight=0.0)
    alone = evaluated(work, "alone", round=START)
    assert report["micro"]["r@1"] == alone["micro"]["r@1"] and "tuned" not in report
    assert report["command"].endswith("--model=fusion --round=-1 --fusion_weight=0.0")
    with pytest.raises(MelError, match="differs in fusion_weight"):
        evaluated(work, "stated", model="fusion", round=START)


@pytest.mark.parametrize("index", ["exact", "scann"])
def test_training_mentions_can_be_heard_and_answer_themselves(work, index):
    report = evaluated(work, f"heard-{index}", round=START, context_weight=1.0, index=index)
    alone = evaluated(work, f"alone-{index}", round=START, index=index)
    assert report["context_weight"] == 1 and "context_weight" not in alone
    assert report["micro"]["r@1"] > alone["micro"]["r@1"]  # random weights know the same words again
    fused = evaluated(work, f"heard-fused-{index}", model="fusion", round=START, context_weight=1.0, index=index)
    assert fused["command"].count("--context_weight=1.0") == 1


@pytest.mark.parametrize("options", [{"model": "alias_table"}, {"round": START}], ids=["aliases", "checkpoint"])
def test_the_prepared_split_and_its_tree_give_the_same_figures(work, tiny_world, options):
    prepared = evaluated(work, "prepared", **options)
    tree = evaluated(work, "tree", mewsli=str(tiny_world / "mewsli"), languages=("ru", "en", "ar"), **options)
    differing = ("name", "command", "inputs", "dropped", "split", "languages")
    assert without(prepared, *differing) == without(tree, *differing)
    assert tree["split"] == "mewsli" and "DIR" in tree["command"] and str(tiny_world) not in str(tree)


def test_a_language_that_was_not_prepared_can_be_evaluated(work, tiny_world):
    report = evaluated(work, "ja", round=START, mewsli=str(tiny_world / "mewsli"))
    assert list(report["by_language"]) == ["ar", "en", "ja", "ru"]
    assert report["by_language"]["ja"]["mentions"] > 100
    assert 0.5 < report["kb_coverage"] < 1


def test_the_last_round_is_meant_where_none_is_said(work):
    with pytest.raises(MelError, match="Round 0 of .* has no checkpoint: run mel-train --round=0 first"):
        evaluated(work, "last")
    pretend_trained(work, 0)
    pretend_trained(work, 1)
    said_nothing = evaluated(work, "last")
    assert said_nothing["round"] == 1
    assert said_nothing == evaluated(work, "last", round=1)


def test_the_command_is_one_line_for_a_shell():
    config = config_of(Workdir("/a/b"), "it's", mewsli="/c", languages=("de", "ja"), dataset="My data", limit=3)
    assert shlex.split(command(config, 2)) == [
        "mel-evaluate", "--workdir=W", "--name=it's", "--round=2", "--mewsli=DIR", "--languages=de,ja",
        "--dataset=My data", "--limit=3",
    ]  # fmt: skip
    config = config_of(Workdir("/a/b"), "aliases", model="alias_table", round=4)
    assert command(config, None) == "mel-evaluate --workdir=W --name=aliases --model=alias_table"


def test_a_limit_asks_the_first_mentions_of_each_language(work, tiny_world):
    options = {"round": START, "limit": 70, "languages": ("ar", "ru")}
    prepared = evaluated(work, "few", **options)
    tree = evaluated(work, "few-tree", mewsli=str(tiny_world / "mewsli"), **options)
    assert {name: group["mentions"] for name, group in prepared["by_language"].items()} == {"ar": 70, "ru": 70}
    assert prepared["by_language"] == tree["by_language"]


def test_two_working_directories_give_the_same_report(work, tmp_path):
    other = Workdir(shutil.copytree(work.path, tmp_path / "elsewhere"))
    for each in (work, other):
        evaluated(each, "again", round=START)
    for name in ("report.json", "report.md"):
        assert (work.report("again") / name).read_bytes() == (other.report("again") / name).read_bytes()


def test_the_same_evaluation_is_not_done_twice(work, capsys, monkeypatch):
    evaluated(work, "once", round=START)
    first = capsys.readouterr().out
    monkeypatch.setattr(system, "Evidence", None)
    evaluated(work, "once", round=START)
    assert capsys.readouterr().out == first and "| micro |" in first
    evaluated(work, "once", round=START, dataset="the same by another name")
    with pytest.raises(MelError, match="differs in limit"):
        evaluated(work, "once", round=START, limit=3)


def test_scann_gives_a_report_that_says_so(work):
    pytest.importorskip("scann", reason="scann is not installed")
    exact, scann = evaluated(work, "exact", round=START), evaluated(work, "scann", round=START, index="scann")
    assert scann["search"] == "scann" and "index" in scann["inputs"]
    for metric in METRICS:
        assert scann["micro"][metric] == pytest.approx(exact["micro"][metric], abs=0.03)  # near ties, untrained


REFUSALS = {
    "round": ({"round": 4}, "Round 4 of .* has no checkpoint: run mel-train --round=4 first"),
    "name": ({"name": "a/b"}, "--name='a/b' cannot be the name of a folder"),
    "no name": ({"name": ""}, "--name='' cannot be the name of a folder"),
    "split": ({"split": "held_out"}, "There is no mentions at .*held_out"),
    "language": ({"languages": ("ja",)}, "has no language 'ja': choose --languages among en, ru, ar"),
    "weight": ({"model": "fusion", "fusion_weight": -0.5}, "--fusion_weight=-0.5 is no weight"),
    "not a number": ({"model": "fusion", "fusion_weight": math.nan}, "--fusion_weight=nan is no weight"),
    "context": ({"context_weight": -0.5}, "--context_weight=-0.5 is no weight: state 0 or more"),
    "tree": ({"mewsli": "nowhere"}, "nowhere is no Mewsli-9 tree"),
}


@pytest.mark.parametrize("options, message", REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(untrained, options, message):
    with pytest.raises(MelError, match=message):
        evaluated(untrained, **{"name": "refused", "model": "checkpoint", "round": START} | options)
    assert not untrained.report("refused").exists()


def test_a_tree_without_mentions_is_refused(untrained, tiny_world, tmp_path):
    tree = shutil.copytree(tiny_world / "mewsli", tmp_path / "tree")
    for path in tree.glob("*/mentions.tsv"):
        path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(MelError, match="holds no mentions"):
        evaluated(untrained, "refused", model="alias_table", mewsli=str(tree))


def test_malformed_rows_of_a_tree_are_reported_as_dropped(work, tiny_world, tmp_path):
    tree = shutil.copytree(tiny_world / "mewsli", tmp_path / "tree")
    path = tree / "en" / "mentions.tsv"
    header, first, second, *rest = path.read_text().splitlines()
    outside = first.split("\t")
    outside[1] = "999999"
    path.write_text("\n".join([header, "\t".join(outside), "broken", second, *rest]) + "\n")
    report = evaluated(work, "dirty", model="alias_table", mewsli=str(tree), languages=("en",))
    assert report["dropped"] == {"malformed": 1, "span outside its text": 1}
    assert report["mentions"] == len(rest) + 1
    with pytest.raises(MelError, match="More than 0 records are malformed"):
        evaluated(work, "strict", model="alias_table", mewsli=str(tree), max_malformed=0)


def test_settings_that_make_no_sense_are_refused(work):
    def refuse(message, **changes):
        with pytest.raises(MelError, match=message):
            evaluated(work, "refused", model="alias_table", **changes)

    refuse("--limit=-1 must not be below 0", limit=-1)
    refuse("--max_malformed_share=2 is not a share", max_malformed_share=2.0)
    refuse("--redirects=nowhere is for --mewsli", redirects="nowhere")
    refuse("--languages names en twice: once is enough", languages=("en", "ru", "en"))


def test_a_calibration_and_a_fitted_weight_put_translations_of_a_page_into_one_half(work, tmp_path, monkeypatch):
    kb = KnowledgeBase.read(work.kb, open_artifact(work.kb, "kb").facts["languages"])
    documents, asked = read_prepared(work, "mewsli", kb).documents, {}
    pairs = {name: f"pair {place // 2}" for place, name in enumerate(dict.fromkeys(documents))}
    (tmp_path / "clusters.tsv").write_text("".join(f"{name}\t{pair}\n" for name, pair in pairs.items()))

    def listen(module, name):
        real = getattr(module, name)

        def told(answers, gold_Q, halved, *others):
            asked[name] = list(halved)
            return real(answers, gold_Q, halved, *others)

        monkeypatch.setattr(module, name, told)

    listen(evaluation, "calibrate")
    listen(system, "fuse_cross_fitted")
    evaluated(work, "pairs", model="fusion", round=START, clusters=str(tmp_path / "clusters.tsv"))
    wanted = [pairs[name] for name in documents]
    assert asked == {"calibrate": wanted, "fuse_cross_fitted": wanted}


def test_contexts_are_mixed_at_the_scale_of_training(untrained, tmp_path, monkeypatch):
    work = Workdir(shutil.copytree(untrained.path, tmp_path / "run", ignore=shutil.ignore_patterns("rounds")))
    train.main(
        train.Config(workdir=str(work.path), round=START, encoder="random:1x32x2", loss=LossConfig(logit_scale=7.0))
    )
    real, asked = evidence.add_contexts, []
    monkeypatch.setattr(evidence, "add_contexts", lambda *given: asked.append(given[2]) or real(*given))
    evaluated(work, "heard", round=START, context_weight=0.5)
    assert [(contexts.weight, contexts.logit_scale) for contexts in asked] == [(0.5, 7.0)]


def test_without_context_a_mention_is_its_surface_form(work, capsys):
    """Whoever answers is shown each surface form alone, so equal forms of a language have equal answers."""
    report = evaluated(work, "both", round=START, without_context=True)
    alone = report["scores_without_context"]
    assert alone["mentions"] == report["mentions"] and alone["r@1"] != report["micro"]["r@1"]
    low, high = alone["r@1_interval"]
    assert low <= alone["r@1"] <= high
    row = f"| micro, without context | {alone['mentions']} | {alone['r@1']:.3f} [{low:.3f}, "
    assert row in capsys.readouterr().out
    assert "<bdi>micro, without context</bdi>" in (work.report("both") / "index.html").read_text()
    assert without(report, "name", "command", "without_context", "scores_without_context") == without(
        evaluated(work, "full", round=START), "name", "command", "without_context"
    )
    kb = KnowledgeBase.read(work.kb, open_artifact(work.kb, "kb").facts["languages"])
    mentions, (system_, _) = read_prepared(work, "mewsli", kb), system.open_system(SystemConfig(round=START), work, kb)
    tokenizer, cut = Tokenizer.load(work.tokenizer), Windows.of(work).max_tokens
    rows = [tokenizer.rows([MarkedText(form, Span(0, len(form)))], cut)[0] for form in mentions.surface_forms]
    ranking, _ = system_.rank(dataclasses.replace(mentions, rows=TokenRows.from_rows(rows)))
    assert alone["r@1"] == pytest.approx(np.mean(ranking.entities_QK[:, 0] == mentions.gold_Q), abs=1e-6)


def test_only_who_reads_contexts_can_be_asked_without(work):
    with pytest.raises(MelError, match="--model=alias_table reads no context anyway"):
        evaluated(work, "table", model="alias_table", without_context=True)


def test_languages_that_were_trained_on_stand_apart(untrained, tmp_path):
    work = Workdir(shutil.copytree(untrained.path, tmp_path / "run", ignore=shutil.ignore_patterns("rounds")))
    train.main(train.Config(workdir=str(work.path), round=START, encoder="random:1x32x2", train_languages=("en",)))
    report = evaluated(work, "start", round=START)
    apart, by_language = report["breakdowns"]["language in training"], report["by_language"]
    assert list(apart) == ["trained on", "not trained on"] and apart["trained on"]["r@1"] == by_language["en"]["r@1"]
    assert apart["not trained on"]["mentions"] == by_language["ru"]["mentions"] + by_language["ar"]["mentions"]
    assert "language in training" not in evaluated(work, "table", model="alias_table")["breakdowns"]


def test_a_report_tells_how_much_of_what_is_nearest_its_index_finds(work):
    asked = {"round": START, "index": "scann", "rows_a_shard": 40, "context_weight": 0.2, "limit": 5}
    report = evaluated(work, "scann", **asked)
    rows = open_artifact(work.entity_tokens, "tokens").facts["rows"]
    mentions = open_artifact(work.mention_tokens("train"), "tokens").facts["rows"]
    about = {"queries": min(500, report["mentions"]), "kind": "evaluated mentions"}
    assert report["index_recall"] == {
        "entities": about | {"depth": min(200, rows), "recall": 1.0},
        "mentions": about | {"depth": min(100, mentions), "recall": 1.0},
    }
    line = f"Recall of the index: 100.00% of the {min(200, rows)} rows of entities nearest to {about['queries']} "
    assert line in (work.report("scann") / "report.md").read_text()
    assert line in (work.report("scann") / "index.html").read_text()
    exact = evaluated(work, "exact", round=START, context_weight=0.2, limit=5)
    assert "index_recall" not in exact and exact["micro"] == report["micro"]
    assert "Recall of the index" not in (work.report("exact") / "report.md").read_text()
    assert evaluated(work, "scann", **asked | {"rows_a_shard": 0}) == report  # which is published: nothing is built
