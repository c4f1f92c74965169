"""Reports of a hand-made ranking: figures, files, tables, refusals."""

import json

import numpy as np
import pytest

from mel.evaluation import report as reports
from mel.evaluation.recall import Ranking
from mel.types import MelError

DIGESTS = {"mentions": "aa", "kb": "bb"}


def about(**changes):
    return {
        "name": "hand-made", "model": "checkpoint", "round": 2, "search": "exact", "seed": 0, "dataset": "",
        "split": "dev", "languages": [], "limit": 0, "command": "mel-evaluate --workdir=W", "inputs": DIGESTS,
    } | changes  # fmt: skip


def hand_made(**changes):
    """Three mentions: found first, found second, gold outside the KB."""
    qids_QK = np.array([[1, 2, 3], [2, 1, 0], [3, 2, 1]])
    ranking = Ranking(qids_QK, np.tile(np.float32([0.9, 0.5, 0.1]), (3, 1)))
    figures = reports.measure(
        ranking, np.array([1, 1, 9]), ["de", "ar", "de"], ["ambiguous", "unseen", "ambiguous"], np.array([1, 2, 3, 3])
    )
    return about(**changes) | {"dropped": {"span outside its text": 4}} | figures


def test_measure_by_hand():
    report = hand_made()
    assert report["mentions"] == 3
    assert report["kb_coverage"] == pytest.approx(2 / 3)
    assert report["micro"] == pytest.approx({"r@1": 1 / 3, "r@10": 2 / 3, "r@100": 2 / 3, "mrr": 1.5 / 3})
    assert report["macro"] == pytest.approx({"r@1": 1 / 4, "r@10": 3 / 4, "r@100": 3 / 4, "mrr": (1 / 2 + 1 / 2) / 2})
    assert report["by_language"]["ar"] == {"mentions": 1, "r@1": 0, "r@10": 1, "r@100": 1, "mrr": 0.5}
    assert list(report["by_language"]) == ["ar", "de"]
    assert report["breakdown"]["ambiguous"]["r@1"] == 0.5
    assert report["breakdown"]["unseen"]["r@1"] == 0
    assert report["breakdown"]["unambiguous"]["mentions"] == 0


def test_published_files_are_the_same_wherever_they_are_written(tmp_path):
    for folder in ("here", "there/deeper"):
        reports.publish_report(tmp_path / folder, hand_made(), {"workdir": folder})
    for name in ("report.json", "report.md"):
        text = (tmp_path / "here" / name).read_text()
        assert text == (tmp_path / "there" / "deeper" / name).read_text()
        assert str(tmp_path) not in text
    report = json.loads((tmp_path / "here" / "report.json").read_text())
    assert report["micro"]["r@1"] == 0.333333
    assert report == reports.open_report(tmp_path / "here")


def test_markdown_states_the_denominator_the_coverage_and_what_was_dropped():
    text = reports.markdown(hand_made(dataset="MDN hyperlink disambiguation"))
    assert "MDN hyperlink disambiguation, split `dev`" in text
    assert "(3 in all)" in text and "66.67%" in text and "4 span outside its text" in text
    assert "checkpoint of round 2, exact search, seed 0" in text
    assert "| de | 2 | 0.500 | 0.500 | 0.500 | 0.500 |" in text
    assert "| micro | 3 | 0.333 | 0.667 | 0.667 | 0.500 |" in text
    assert "| macro |  | 0.250 |" in text
    assert "| unambiguous | 0 | – | – | – | – |" in text


def test_a_table_cell_cannot_break_out():
    assert "a\\|b" in reports.comparison_table([hand_made(name="a|b")])


def test_the_comparison_begins_with_the_alias_table():
    table = reports.comparison_table(
        [hand_made(name="round-0"), hand_made(name="round-1"), hand_made(name="aliases", model="alias_table")]
    )
    rows = [line.split(" | ") for line in table.splitlines()]
    assert [row[0].strip("| ") for row in rows] == ["system", "---", "aliases", "round-0", "round-1"]
    assert rows[2][1:] == ["0.333", "0.500", "0.000", "0.667", "0.667", "0.500 |"]


def test_the_same_evaluation_is_read_back_and_another_is_refused(tmp_path):
    path = tmp_path / "report"
    published = reports.publish_report(path, hand_made())
    assert reports.open_same_report(path, about()) == published
    with pytest.raises(MelError, match=r"is another evaluation \(it differs in inputs\).*another --name or delete"):
        reports.open_same_report(path, about(inputs=DIGESTS | {"kb": "cc"}))


def test_a_report_that_was_edited_is_refused(tmp_path):
    reports.publish_report(tmp_path / "report", hand_made())
    (tmp_path / "report" / "report.json").write_text("{}")
    with pytest.raises(MelError, match="report.json has 2 bytes"):
        reports.open_report(tmp_path / "report")
