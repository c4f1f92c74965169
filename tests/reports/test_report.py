"""Reports of a hand-made ranking: figures, files, refusals."""

import json

import orjson
import pytest

from mel import artifacts
from mel.evaluation.breakdowns import IN_TRAINING
from mel.reports import report as reports
from mel.types import MelError
from tests.evaluation import hand_made
from tests.evaluation.hand_made import DIGESTS, about, evaluation, report_of
from tests.reports.trec_reader import read_run


def publish(path, name="hand-made", evaluated=None, **options):
    evaluated = evaluated or evaluation()
    return reports.publish_report(path, report_of(evaluated, name=name), evaluated, **options)


def test_measure_by_hand():
    report = report_of(evaluation())
    assert report["mentions"] == 3
    assert report["kb_coverage"] == pytest.approx(2 / 3)
    # Of the documents, d0 has one hit in two mentions and d1 none in one: a resample has 0/2, 1/3 or 2/4.
    assert report["micro"].pop("r@1_interval") == (0, 0.5)
    assert report["micro"] == pytest.approx({"r@1": 1 / 3, "r@10": 2 / 3, "r@100": 2 / 3, "mrr": 1.5 / 3})
    # The mean of de (1/2) and ar (0), or one of them alone.
    assert report["macro"].pop("r@1_interval") == (0, 0.5)
    assert report["macro"] == pytest.approx({"r@1": 1 / 4, "r@10": 3 / 4, "r@100": 3 / 4, "mrr": (1 / 2 + 1 / 2) / 2})
    ar = {"mentions": 1, "r@1": 0, "r@10": 1, "r@100": 1, "mrr": 0.5, "r@1_interval": (0, 0)}
    assert report["by_language"]["ar"] == ar
    assert list(report["by_language"]) == ["ar", "de"]
    assert list(report["breakdowns"]) == [IN_TRAINING]
    assert list(report["breakdowns"][IN_TRAINING]) == ["ambiguous", "unseen"]
    assert report["breakdowns"][IN_TRAINING]["ambiguous"]["r@1"] == 0.5
    assert report["breakdowns"][IN_TRAINING]["ambiguous"]["r@1_interval"] == (0.5, 0.5)
    assert report["breakdowns"][IN_TRAINING]["unseen"]["r@1"] == 0


def test_published_files_are_the_same_wherever_they_are_written(tmp_path):
    for folder in ("here", "there/deeper"):
        publish(tmp_path / folder, config={"workdir": folder})
    for name in ("report.json", "report.md", "predictions.jsonl", "run.trec.gz", "qrels.txt"):
        content = (tmp_path / "here" / name).read_bytes()
        assert content == (tmp_path / "there" / "deeper" / name).read_bytes()
        assert str(tmp_path).encode() not in content
    report = json.loads((tmp_path / "here" / "report.json").read_text())
    assert report["micro"]["r@1"] == 0.333333
    assert report == reports.open_report(tmp_path / "here")


def test_predictions_say_how_each_mention_was_evaluated(tmp_path):
    publish(tmp_path / "report")
    first, second, third = reports.read_predictions(tmp_path / "report")
    assert first == {
        "id": "m0", "language": "de", "document": "d0", "cluster": "d0", "surface_form": "Mond", "gold": "Q1",
        "rank": 0,
        "groups": {IN_TRAINING: "ambiguous"}, "candidates": [["Q1", 0.0], ["Q2", -1.0], ["Q3", -2.0]],
    }  # fmt: skip
    assert second["rank"] == 1 and second["candidates"] == [["Q2", 0.0], ["Q1", -1.0]]
    assert third["rank"] == -1 and third["gold"] == "Q9"


def test_predictions_keep_ten_candidates_and_the_run_all(tmp_path):
    publish(tmp_path / "report", evaluated=evaluation([list(range(2, 102))] * 3, golds=(2, 101, 999)))
    lines = list(reports.read_predictions(tmp_path / "report"))
    assert [len(line["candidates"]) for line in lines] == [10, 10, 10]
    assert [line["rank"] for line in lines] == [0, 99, -1]
    assert sum(map(len, read_run(tmp_path / "report" / "run.trec.gz").values())) == 300


def test_added_files_do_not_change_what_the_report_is(tmp_path):
    def add_files(folder, report):
        seconds = "1" if folder.name.endswith("fast") else "100"
        (folder / "index.html").write_text(f"{report['name']}: {seconds} seconds")
        assert (folder / "predictions.jsonl").exists()

    for name in ("fast", "slow"):
        publish(tmp_path / name, add_files=add_files)
    fast, slow = (artifacts.open_artifact(tmp_path / name, "report") for name in ("fast", "slow"))
    assert fast.digest == slow.digest
    assert (fast / "index.html").read_text() != (slow / "index.html").read_text()
    publish(tmp_path / "other", name="other")
    assert artifacts.open_artifact(tmp_path / "other", "report").digest != fast.digest


def test_the_recall_of_the_indexes_in_words():
    about = {"queries": 1234, "kind": "evaluated mentions"}
    recall = {"entities": about | {"depth": 200, "recall": 0.98765}}
    said = "Recall of the index: 98.77% of the 200 rows of entities nearest to 1,234 evaluated mentions"
    report = report_of(evaluation())
    assert "Recall of the index" not in reports.markdown(report)
    assert f"\n- {said}.\n" in reports.markdown(report | {"index_recall": recall})
    recall["mentions"] = about | {"depth": 100, "recall": 1.0}
    assert reports.index_recall_in_words({"index_recall": recall}) == (
        f"{said}, and 100.00% of the 100 rows of mentions nearest to 1,234 evaluated mentions."
    )


def test_markdown_states_the_denominator_the_coverage_and_what_was_dropped():
    text = reports.markdown(report_of(evaluation(), dataset="MDN hyperlink disambiguation"))
    assert "MDN hyperlink disambiguation, split `dev`" in text
    assert "(3 in all)" in text and "66.67%" in text and "4 span outside its text" in text
    assert "checkpoint of round 2, exact search, seed 0" in text
    assert "95% interval of R@1: percentile bootstrap over documents, each with its translations" in text
    assert "| de | 2 | 0.500 [0.500, 0.500] | 0.500 | 0.500 | 0.500 |" in text
    assert "| micro | 3 | 0.333 [0.000, 0.500] | 0.667 | 0.667 | 0.500 |" in text
    assert "| macro |  | 0.250 [0.000, 0.500] |" in text
    assert "| surface form in training | mentions |" in text
    assert "published" not in text


def test_markdown_says_what_was_tuned():
    said = "- Tuned on these mentions: fusion weight: 0.3; how: by R@1."
    assert said in reports.markdown(report_of(evaluation()) | {"tuned": {"fusion_weight": 0.3, "how": "by R@1"}})
    assert "Tuned" not in reports.markdown(report_of(evaluation()))


def test_a_figure_without_mentions_is_a_dash():
    assert reports.figure({"mentions": 0, "r@1": 0.0}, "r@1") == reports.figure({}, "r@1") == "–"


def test_published_rows_stand_beside_mewsli_9():
    languages = "ar de en es fa ja sr ta tr".split()
    evaluated = evaluation([[1]] * 9, [1] * 9, ["unseen"] * 9, language=languages, document=languages)
    text = reports.markdown(report_of(evaluated, dataset="Mewsli-9"))
    assert "| R@1 | ar | de | en | es | fa | ja | sr | ta | tr | micro | macro |" in text
    assert "| hand-made | 1.000 |" in text
    assert "| OLPEAT (published) | 0.901 | 0.891 |" in text
    assert "| Model F+ (published, unverified) | 0.920 |" in text
    assert "arXiv 2011.02690, 2020" in text and "MOLEMAN" in text


def test_the_same_evaluation_is_read_back_and_another_is_refused(tmp_path):
    path = tmp_path / "report"
    published = publish(path)
    assert reports.open_same_report(path, about()) == published
    with pytest.raises(MelError, match=r"is another evaluation \(it differs in inputs\).*another --name or delete"):
        reports.open_same_report(path, about(inputs=DIGESTS | {"kb": "cc"}))


def test_a_report_without_breakdowns_is_refused_in_a_sentence(tmp_path):
    old = hand_made.about() | {"breakdown": {"ambiguous": {"r@1": 0.5}}}
    with artifacts.publish(tmp_path / "old", "report") as draft:
        (draft / "report.json").write_bytes(orjson.dumps(old))
    with pytest.raises(MelError, match="old was made before reports had breakdowns .*: delete it and evaluate again"):
        reports.open_report(tmp_path / "old")


def test_a_report_that_was_edited_is_refused(tmp_path):
    publish(tmp_path / "report")
    (tmp_path / "report" / "report.json").write_text("{}")
    with pytest.raises(MelError, match="report.json has 2 bytes"):
        reports.open_report(tmp_path / "report")


def test_translations_of_one_page_are_drawn_together():
    entities, golds = ((1, 2, 3), (1, 2, 3), (3, 2, 1)), (1, 1, 1)
    apart = report_of(evaluation(entities, golds, document=["d0", "d1", "d2"]))
    together = report_of(evaluation(entities, golds, document=["d0", "d1", "d2"], cluster=["p", "p", "p"]))
    assert apart["micro"]["r@1"] == together["micro"]["r@1"] == pytest.approx(2 / 3)
    assert apart["micro"]["r@1_interval"] == (0, 1)
    assert together["micro"]["r@1_interval"] == (pytest.approx(2 / 3), pytest.approx(2 / 3))
