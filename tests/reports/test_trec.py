"""TREC files: written, read back, and scored by trec_eval's own code to our figures."""

import numpy as np
import pytest

from mel.corpora.strings import Strings
from mel.evaluation import recall
from mel.evaluation.ranking import Ranking
from mel.reports import trec
from mel.reports.report import open_report, publish_report
from tests.evaluation.hand_made import evaluation, mentions_of, ranking_of, report_of
from tests.reports.trec_reader import read_qrels, read_run

IDS = Strings.of(["NIL", *(f"Q{number}" for number in range(1, 200))])
MEASURES = {"r@1": "success_1", "r@10": "success_10", "r@100": "success_100", "mrr": "recip_rank"}


@pytest.fixture
def scored():
    """trec_eval's figures: {mention: {measure: value}}."""
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec-eval-terrier is not installed")

    def score(run, qrels):
        return pytrec_eval.RelevanceEvaluator(qrels, {"success.1,10,100", "recip_rank"}).evaluate(run)

    return score


def random_ranking(rng, questions, ties) -> tuple[Ranking, np.ndarray]:
    """Up to 100 distinct QIDs a mention, and golds of which some are missing."""
    entities_QK = np.argsort(rng.random((questions, 150)))[:, :100] + 1
    entities_QK[np.arange(100) >= rng.integers(0, 101, questions)[:, None]] = 0
    scores_QK = -np.sort(-(rng.integers(0, 4, entities_QK.shape) if ties else rng.random(entities_QK.shape)))
    return Ranking(entities_QK, np.where(entities_QK > 0, scores_QK, -np.inf).astype(np.float32)), rng.integers(
        1, 151, questions
    )


def written(folder, names, ranking, gold_Q):
    trec.write_run(folder / "run.trec", names, ranking, IDS, "a tag")
    trec.write_qrels(folder / "qrels.txt", names, [IDS[gold] for gold in gold_Q])
    return read_run(folder / "run.trec"), read_qrels(folder / "qrels.txt")


def test_files_by_hand(tmp_path):
    ranking = Ranking(np.array([[5, 7], [8, 0]]), np.float32([[0.5, 0.25], [1, -np.inf]]))
    run, qrels = written(tmp_path, ["m 1", "m%2"], ranking, np.array([7, 0]))
    assert (tmp_path / "run.trec").read_text() == (
        "m%201 Q0 Q5 1 0.5 a%20tag\nm%201 Q0 Q7 2 0.25 a%20tag\nm%252 Q0 Q8 1 1 a%20tag\n"
    )
    assert (tmp_path / "qrels.txt").read_text() == "m%201 0 Q7 1\nm%252 0 NIL 1\n"
    assert run == {"m%201": {"Q5": 0.5, "Q7": 0.25}, "m%252": {"Q8": 1.0}}
    assert qrels == {"m%201": {"Q7": 1}, "m%252": {"NIL": 1}}


def test_names_are_words_and_no_two_alike():
    names = list(trec.names_of(["a b", "a\tb", "a%20b", "a", "a", "a#2", "\u3000"]))
    assert names == ["a%20b", "a%09b", "a%2520b", "a", "a#2", "a%232", "%E3%80%80"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("ties", [False, True])
def test_our_figures_are_those_of_trec_eval(tmp_path, scored, ties):
    ranking, gold_Q = random_ranking(np.random.default_rng(5), 400, ties)
    names = [f"m{number}" for number in range(len(gold_Q))]
    found = scored(*written(tmp_path, names, ranking, gold_Q))
    gold_rank_Q = recall.gold_rank(ranking, gold_Q)
    for name, rank in zip(names, gold_rank_Q):
        ours = recall.scores(np.array([rank]))
        # A mention without candidates is not in the run, and trec_eval is silent about it.
        theirs = found.get(name, dict.fromkeys(MEASURES.values(), 0.0))
        assert {metric: ours[metric] for metric in MEASURES} == {m: theirs[t] for m, t in MEASURES.items()}
    assert 0 < sum(name not in found for name in names) < 20
    means = {m: sum(found[name][t] for name in found) / len(names) for m, t in MEASURES.items()}
    assert recall.scores(gold_rank_Q) == pytest.approx(means | {"mentions": 400}, rel=1e-14)


def test_equal_scores_as_they_are_would_be_ordered_by_name(scored):
    # What `write_run` prevents: trec_eval puts Q9 before Q5.
    assert scored({"m": {"Q5": 1.0, "Q9": 1.0}}, {"m": {"Q5": 1}})["m"]["recip_rank"] == 0.5


def test_only_equal_scores_move_and_by_one_step_of_single_precision(tmp_path):
    scores = np.float32([[1, 1, 1, 0.5, 0, 0, -3, -3]])
    run, _ = written(tmp_path, ["m"], Ranking(np.arange(1, 9)[None], scores), np.array([1]))
    read = np.float32(list(run["m"].values()))
    assert np.all(np.diff(read) < 0)
    assert read == pytest.approx(scores[0], abs=1e-6)
    assert read[[0, 3, 4, 6]].tolist() == [1, 0.5, 0, -3]
    assert read[2] == np.nextafter(np.nextafter(np.float32(1), np.float32(0)), np.float32(0))


def test_a_published_report_scores_the_same_by_its_files(tmp_path, scored):
    ranking, gold_Q = random_ranking(np.random.default_rng(6), 90, ties=True)
    evaluated = evaluation()
    evaluated = type(evaluated)(mentions_of(gold_Q), {"script": ["Latin"] * 90}, ranking, evaluated.kb)
    publish_report(tmp_path / "report", report_of(evaluated), evaluated)
    found = scored(*(read(tmp_path / "report" / name) for read, name in FILES))
    micro = open_report(tmp_path / "report")["micro"]
    for metric, measure in MEASURES.items():
        assert micro[metric] == round(sum(scores[measure] for scores in found.values()) / 90, 6)


FILES = ((read_run, "run.trec.gz"), (read_qrels, "qrels.txt"))


def test_an_id_that_is_no_word_is_made_one(tmp_path):
    ids = Strings.of(["NIL", "MESH:D 1", "http://a/b#c"])
    trec.write_run(tmp_path / "run.trec", ["m"], ranking_of([[1, 2]]), ids, "tag")
    assert list(read_run(tmp_path / "run.trec")["m"]) == ["MESH:D%201", "http://a/b%23c"]


def test_candidates_are_read_back_in_their_order(tmp_path):
    run, _ = written(tmp_path, ["m"], ranking_of([[3, 1, 2, 0]]), np.array([1]))
    assert list(run["m"]) == ["Q3", "Q1", "Q2"]
