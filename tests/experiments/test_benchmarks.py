"""The arithmetic of the benchmarks, and what their workload promises; no rival is started."""

import contextlib
import gzip
import importlib
import itertools
import json
import os

import numpy as np
import pytest

from experiments.benchmarks import (
    gpu,
    gradients,
    harness,
    large_linking,
    large_search,
    large_tables,
    mining_of_many,
    random_reads,
    step_memory,
    step_profile,
    table,
    training_rivals,
    workload,
)
from mel.artifacts import Workdir, open_artifact
from mel.shards.datasets import RowSet, open_rows
from mel.shards.rows import TokenRows
from mel.types import Batch

SCRIPTS = (
    "train_variable_length", "train_fixed_length", "pytorch_loop", "chunking", "memory", "gradients", "vocabulary",
    "exact_search", "step_memory", "step_profile", "gpu", "scale", "large_linking", "mining_of_many",
)  # fmt: skip
TINY = workload.Spec(batch_size=16, tiny=True)


@pytest.mark.parametrize(
    "target, ratio, verdict",
    [
        (harness.Target(2.0, 3.5), 3.5, "stretch"),
        (harness.Target(2.0, 3.5), 2.0, "pass"),
        (harness.Target(2.0, 3.5), 1.99, "short"),
        (harness.Target(1.4, 1.3, at_least=False), 1.3, "stretch"),
        (harness.Target(1.4, 1.3, at_least=False), 1.4, "pass"),
        (harness.Target(1.4, 1.3, at_least=False), 1.41, "short"),
        (harness.Target(0.99999), 1.0, "pass"),
        (harness.Target(1.0), float("nan"), "short"),
    ],
)
def test_a_ratio_is_judged_by_its_bounds(target, ratio, verdict):
    assert target.verdict(ratio) == verdict


def test_sides_take_turns_and_warm_up_apart():
    order = []
    sides = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    assert harness.interleave(sides, repeats=2) == {"a": [3, 6], "b": [4, 5]}
    assert order == ["b", "a", "a", "b", "b", "a"]


def test_a_summary_has_the_median_and_the_spread():
    assert harness.summary([4.0, 1.0, 2.0]) == {"median": 2.0, "spread": 1.5, "runs": [4.0, 1.0, 2.0]}


def test_a_result_is_ours_by_the_other(tmp_path, capsys):
    runs = {"ours": [3.0, 6.0, 5.0], "rival": [2.0]}
    result = harness.publish("loading", "rows", harness.Target(2.0, 3.0), runs, "rows/s", tmp_path, {"rows": 7})
    assert (result["ratio"], result["verdict"]) == (2.5, "pass")
    file = tmp_path / f"loading.{harness.kind(result['machine'])}.json"
    assert json.loads(file.read_text("utf-8")) == result
    assert result["versions"]["numpy"] == np.__version__
    assert "loading: 2.5 (≥ 2: pass)" in capsys.readouterr().out


def test_a_single_side_is_its_own_ratio_and_a_smoke_test_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    chosen = harness.options(harness.parser("what"), ["--quick", "--repeats=3"])
    result = harness.publish("error", "e", harness.Target(1e-5, at_least=False), {"e": [2.0]}, "", chosen.results)
    assert (result["ratio"], result["verdict"], chosen.repeats) == (2.0, "short", 1)
    assert not list(tmp_path.iterdir())


def test_a_result_of_another_kind_of_machine_stands_beside_the_first(tmp_path, monkeypatch):
    runs, target = {"ours": [2.0], "rival": [1.0]}, harness.Target(2.0)
    for vectors in ("AVX-512", "AVX2", "AVX2"):
        monkeypatch.setattr(harness, "vectors", lambda *_, vectors=vectors: vectors)
        monkeypatch.setattr(harness, "gpus", list)
        harness.publish("loading", "rows", target, runs, "rows/s", tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["loading.avx-512.json", "loading.avx2.json"]
    assert [result["machine"]["vectors"] for result in table.read(tmp_path)] == ["AVX-512", "AVX2"]


def test_the_vectors_are_the_widest_that_all_sides_may_use():
    assert harness.vectors("flags : sse avx2 avx512f", {}) == "AVX-512"
    assert harness.vectors("flags : sse avx2", {}) == "AVX2"
    chosen = harness.ISA_CHOICE | {"XLA_FLAGS": "--xla_dump_to=x --xla_cpu_max_isa=AVX2"}
    assert harness.vectors("flags : sse avx2 avx512f", chosen) == "AVX2 by choice"
    assert harness.vectors("flags : sse avx2 avx512f", chosen | {"ONEDNN_MAX_CPU_ISA": ""}) == "AVX-512"
    assert harness.kind({"gpus": [], "vectors": "AVX2 by choice"}) == "avx2-by-choice"
    assert harness.kind({"gpus": ["NVIDIA H100"], "vectors": "AVX2"}) == "nvidia-h100"


def counting_side(turn, first):
    for n in range(first, first + 2):
        turn((n, os.getpid(), os.environ.get("BENCHMARK")))
    raise ValueError("a failure on purpose")


def test_a_child_runs_a_turn_when_asked_and_is_stopped_in_between():
    with harness.child(counting_side, 5, environment={"BENCHMARK": "set"}) as run:
        value, pid, variable = run().value
        assert (value, variable, "BENCHMARK" in os.environ) == (5, "set", False)
        _, status = os.waitpid(pid, os.WUNTRACED)  # returns when the process is stopped
        assert os.WIFSTOPPED(status)
        again = run()
        assert again.value[0] == 6
        assert again.peak_mb > 1
        with pytest.raises(RuntimeError, match="counting_side ended with exit code 1"):
            run()


def test_the_table_has_a_row_a_result():
    result = {
        "name": "loading", "measure": "rows", "ratio": 12.345, "verdict": "pass", "passes": 10.0, "stretch": 50.0,
        "at_least": True, "unit": "rows/s", "command": "python -m x",
        "sides": {"ours": {"median": 123456.0}, "rival": {"median": 0.5}},
        "machine": {"processor": "P", "vectors": "AVX2", "cores": 2, "gpus": [], "python": "3.11"},
        "versions": {"numpy": "2"}, "commit": "abc",
    }  # fmt: skip
    lines = table.markdown([result, result | {"name": "seeking", "at_least": False, "stretch": None}]).split("\n")
    assert lines[2] == "| rows | 123,456 rows/s | 0.5 rows/s | **12.3** | ≥ 10 / ≥ 50 | pass | AVX2 | `python -m x` |"
    assert "| ≤ 10 |" in lines[3]
    assert lines[-1] == "`loading`, `seeking`: 2 cores of P; Python 3.11, numpy 2; commit abc."


def test_the_page_has_the_table_of_the_results():
    page = (harness.RESULTS.parents[1] / "README.md").read_text("utf-8").splitlines()
    assert [line for line in table.markdown(table.read(harness.RESULTS)).splitlines() if line not in page] == []


@pytest.mark.parametrize("fixed", [False, True])
def test_texts_have_the_lengths_and_ids_they_should(fixed):
    work = workload.make_work(workload.Spec(tiny=True, fixed=fixed))
    for row_set in (work.mentions, work.entities):
        rows, lengths_N = row_set.rows, row_set.rows.lengths_N
        assert (lengths_N.min() == workload.LONGEST) if fixed else (20 < lengths_N.mean() < 28)
        assert workload.SHORTEST <= lengths_N.min() and lengths_N.max() <= workload.LONGEST
        assert set(rows.tokens_T[rows.offsets_N1[:-1]]) == {workload.CLS}
        assert set(rows.tokens_T[rows.offsets_N1[1:] - 1]) == {workload.SEP}
        assert rows.tokens_T.max() < work.encoder.vocab_size and rows.tokens_T.min() > 0


def test_negatives_are_wrong_distinct_and_repeated_in_a_batch():
    work = workload.make_work(TINY)
    entities_NK = work.entities.entities_N[work.negatives_NK]
    assert (entities_NK != work.mentions.entities_N[:, None]).all()
    assert all(len(set(negatives)) == TINY.negatives for negatives in work.negatives_NK.tolist())
    assert np.array_equal(work.entities.entities_N[work.mentions.entity_rows_N], work.mentions.entities_N)
    assert workload.facts(TINY)["entities_distinct"] < 1


def test_a_workload_is_the_same_in_every_process():
    work, again = workload.make_work(TINY), workload.make_work(TINY)
    assert np.array_equal(work.negatives_NK, again.negatives_NK)
    assert np.array_equal(work.mentions.rows.tokens_T, again.mentions.rows.tokens_T)


@pytest.fixture
def two_mentions():
    """Mentions of 2 and 3 tokens; entities of 4, 5 and 6; each mention with its gold and one negative."""

    def rows(lengths):
        return TokenRows.from_rows([np.full(length, 9, np.int32) for length in lengths])

    mentions = RowSet(rows([2, 3]), np.array([7, 8]), np.zeros(2), np.array([0, 2]))
    entities = RowSet(rows([4, 5, 6]), np.array([7, 7, 8]), np.zeros(3), np.arange(3))
    return workload.Work(workload._lealla_small(10, True), mentions, entities, np.array([[2], [1]]))


def test_every_occurrence_of_a_text_counts(two_mentions):
    spec = workload.Spec(batch_size=2, negatives=1)
    assert workload.text_rows(two_mentions, np.array([1, 0])).tolist() == [[2, 1], [0, 2]]
    assert workload.real_tokens(two_mentions, spec, 0) == (2 + 3) + (4 + 6) + (6 + 5)


def test_repeated_entities_false_negatives_and_twins_are_left_out_of_the_naive_sum():
    # Two mentions of entities 7 and 8; columns: their golds, rows 0 and 2, then negatives; row 6 reads like row 0.
    rows_C = np.array([0, 2, 2, 1, 5, 5, 6])
    twin_C = np.array([0, 2, 2, 1, 5, 5, 0])
    left_out = gradients.left_out(np.array([7, 8]), np.array([7, 8, 8, 7, 9, 9, 4]), twin_C, rows_C)
    assert np.flatnonzero(left_out[0]).tolist() == [2, 3, 5, 6]
    assert np.flatnonzero(left_out[1]).tolist() == [2, 5]


def test_false_negatives_twins_and_padding_are_left_out_of_the_sum_of_a_batch():
    # Entities 7 and 8 with golds in columns 1 and 0; column 2 is 7 again, 3 reads like the gold of 8, 4 is padding.
    columns = {"gold_column_B": [1, 0], "gold_B": [7, 8], "entity_C": [8, 7, 7, 4, 0], "twin_C": [0, 1, 2, 0, -1]}
    others = {"tokens": (), "mention_row_B": None, "candidate_row_C": None, "log_q_C": None}
    batch = Batch(**others, **{name: np.array(values) for name, values in columns.items()})
    left_out = workload.left_out(batch)
    assert np.flatnonzero(left_out[0]).tolist() == [2, 4]
    assert np.flatnonzero(left_out[1]).tolist() == [3, 4]


def test_the_naive_loss_is_the_mean_cross_entropy():
    mention_BD, candidate_CD = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)
    candidate_CD = np.concatenate([candidate_CD, candidate_CD[:1]])
    left_out_BC = np.array([[False, False, True], [False, False, True]])
    loss = gradients.plain_loss(mention_BD, candidate_CD, np.arange(2), left_out_BC)
    assert float(loss) == pytest.approx(np.log1p(np.exp(-workload.LOGIT_SCALE)), abs=1e-7)
    loss = gradients.plain_loss(mention_BD, candidate_CD, np.arange(2), np.zeros((2, 3), bool))
    assert float(loss) == pytest.approx(np.log(2) / 2, rel=1e-6)


def test_the_error_is_relative_to_the_naive_norm():
    naive = {"a": np.array([3.0, 0.0]), "b": np.array([4.0])}
    assert gradients.relative_error({"a": np.array([3.0, 1.0]), "b": np.array([4.0])}, naive) == pytest.approx(0.2)


def test_padding_texts_are_left_out_unless_shapes_are_fixed():
    tokens = np.array([[1, 2], [3, 0], [0, 0]]), np.array([[4, 5, 6, 7], [0, 0, 0, 0]])
    chunks, place_N = training_rivals._chunks(tokens, chunk_tokens=2, keep_padding=False)
    assert [chunk.tolist() for chunk in chunks] == [[[1, 2]], [[3, 0]], [[4, 5, 6, 7]]]
    assert place_N[[0, 1, 3]].tolist() == [0, 1, 2]
    chunks, place_N = training_rivals._chunks(tokens, training_rivals.WHOLE, keep_padding=True)
    assert [len(chunk) for chunk in chunks] == [3, 2]
    assert place_N.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_what_it_measures(name, capsys):
    script = importlib.import_module(f"experiments.benchmarks.{name}")
    with pytest.raises(SystemExit) as end:
        script.main(["--help"])
    assert end.value.code == 0
    assert f"python -m experiments.benchmarks.{name}" in capsys.readouterr().out


def test_batches_that_are_told_and_not_told_of_are_measured(tmp_path):
    random_reads.make(tmp_path, 6_000)
    layouts = random_reads.source_in(tmp_path).plan()
    for from_disk in (True, False):
        found = random_reads.batches(tmp_path, layouts, 1, from_disk)
        assert set(found) == {
            f"{what}{how}" for what in ("seconds", "MB read", "ms of a core") for how in ("", ", in memory")
        }
        assert found["seconds"] > 0


def test_large_tables_are_sorted_and_every_step_is_measured(tmp_path):
    names = list(large_tables.named(500))
    assert names == sorted(set(names)) and len(names) == 500
    large_tables.make(tmp_path, 500)

    def stop(steps):
        raise StopIteration(steps)

    with pytest.raises(StopIteration) as stopped:
        large_tables.evaluate(stop, tmp_path, 500)
    assert len(stopped.value.value) == 9 and all(took.megabytes > 1 for took in stopped.value.value.values())


@pytest.mark.slow
def test_a_large_search_is_made_once_and_each_side_measured(tmp_path):
    for _ in range(2):
        large_search.main(["--quick", f"--folder={tmp_path}", f"--results={tmp_path}"])
    assert {path.name for path in tmp_path.iterdir()} == {"embeddings", "index"}  # of a smoke test nothing is written
    vectors_ND, queries_QD = large_search.opened(tmp_path)
    assert (vectors_ND.shape, queries_QD.shape) == ((3_000, 128), (large_search.QUERIES, 128))


@pytest.mark.slow
def test_a_large_bundle_links_and_is_made_once(tmp_path):
    for _ in range(2):
        result = large_linking.main(["--quick", f"--folder={tmp_path}"])
        assert result["details"]["anonymous memory, MB"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "tokenizer", "text.jsonl", "links.jsonl"}
    (line,) = (tmp_path / "links.jsonl").read_text().splitlines()
    names = itertools.islice(large_tables.named(3_000), 8)
    assert [link["surface_form"] for link in json.loads(line)["links"]] == list(names)


def test_a_corpus_is_made_larger_by_its_own_rows(untrained, tmp_path):
    few, many = Workdir(tmp_path / "few"), Workdir(tmp_path / "many")
    tokens = open_artifact(untrained.mention_tokens("train"), "tokens")
    count = tokens.facts["rows"]
    for work, wanted in ((few, count - 3), (many, 2 * count + 5)):
        assert mining_of_many.make(untrained, work, wanted) > 0
        made = open_artifact(work.mention_tokens("train"), "tokens", {"kb": open_artifact(work.kb, "kb")})
        rows = open_rows(made, work.cache(made))
        assert len(rows) == made.facts["rows"] == wanted
        whole = open_rows(tokens, tmp_path / "whole")
        np.testing.assert_array_equal(rows.entities_N, np.resize(whole.entities_N, wanted))
        assert rows.rows.tokens_T[-1] == whole.rows.take([(wanted - 1) % count]).tokens_T[-1]


@pytest.mark.slow
def test_mining_of_more_than_a_round_trains_on_is_measured(untrained):
    result = mining_of_many.main(["--quick", f"--workdir={untrained.path}"])
    assert list(result["sides"]) == ["of 5,000", "of 1,024"] and result["ratio"] > 0


@pytest.mark.slow
def test_the_memory_of_a_step_is_told_with_states_kept_and_without(capsys):
    result = step_memory.main(["--quick"])
    assert set(result["details"]) == {"MB at 4", "MB at 8", "MB at 4, states kept", "MB at 8, states kept", "layers"}
    small, large = (result["details"][f"MB at {size}"] for size in (4, 8))
    assert result["ratio"] == pytest.approx((large - small) / (large + small)) and result["ratio"] > 0
    assert capsys.readouterr().out.count("MB beside the gradients") == 4


def test_the_kernels_of_a_trace_are_told_by_their_time(tmp_path):
    names = [
        {"name": "process_name", "pid": 1, "args": {"name": "/device:GPU:0"}},
        {"name": "process_name", "pid": 2, "args": {"name": "/host:CPU"}},
        {"name": "thread_name", "pid": 1, "tid": 7, "args": {"name": "Stream #7(Compute)"}},
        {"name": "thread_name", "pid": 1, "tid": 8, "args": {"name": "XLA Ops"}},
    ]
    ran = [("gemm", 1, 7, 3000), ("norm", 1, 7, 500), ("gemm", 1, 7, 1000), ("gemm", 1, 8, 9000), ("norm", 2, 7, 9000)]
    events = [{"ph": "X", "name": name, "pid": pid, "tid": tid, "dur": dur} for name, pid, tid, dur in ran]
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "host.trace.json.gz").write_bytes(
        gzip.compress(json.dumps({"traceEvents": names + events}).encode())
    )
    kernels = step_profile.kernels_of(tmp_path)
    assert kernels == {"gemm": [4.0, 2], "norm": [0.5, 1]}
    assert [line.split() for line in step_profile.listed(kernels, 1)] == [
        ["4.5", "ms", "in", "3", "kernels:"], ["4.00", "ms", "2", "×", "gemm"],
    ]  # fmt: skip


@pytest.mark.slow
def test_ways_to_compute_a_step_are_compared_and_one_that_fails_is_left_out(capsys, monkeypatch):
    monkeypatch.setitem(step_profile.WAYS, "plain attention", (("attention", "a kernel that is not there"),))
    result = step_profile.main(["--quick", "--ways", "products kept", "plain attention"])
    assert set(result["details"]) == {step_profile.CHOSEN, "products kept"}
    assert result["ratio"] >= 1
    said = capsys.readouterr().out
    assert said.count("ms a step") == 2 and "Left out, plain attention" in said


@contextlib.contextmanager
def child_that_does_nothing(side, *_, **__):
    """Of `harness.child`; sentence-transformers fails."""

    def run():
        if side is gpu.sentence_side:
            raise RuntimeError("sentence_side ended with exit code 1 in its turn.")
        return harness.Run(1.0, 1.0, None)

    yield run


@pytest.fixture
def gpu_sides(monkeypatch):
    """The GPU's script, whose sides do nothing; one rival fails."""
    monkeypatch.setattr(gpu, "child", child_that_does_nothing)
    monkeypatch.setattr(gpu.Training, "_folder", lambda self, length: "")
    monkeypatch.setattr(gpu, "search", lambda chosen: iter(()))
    monkeypatch.setattr(gpu, "roofline", lambda *_: {"name": "gpu_roofline"})


@pytest.mark.usefixtures("gpu_sides")
def test_each_side_on_a_gpu_is_told_as_it_comes_and_one_that_fails_is_left_out(capsys):
    results = gpu.main(["--quick"])
    assert list(results) == ["gpu_roofline", "gpu_pytorch_loop"]
    said = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if not line.startswith("  ")]
    assert said == [
        "ours, variable", "Left out, sentence-transformers, plain, variable length",
        "PyTorch, one graph, layers compiled, variable", "gpu_pytorch_loop", "ours, fixed",
        "Left out, sentence-transformers, plain, 64 tokens",
    ]  # fmt: skip


@pytest.mark.usefixtures("gpu_sides")
def test_after_its_budget_no_side_is_begun(capsys):
    assert gpu.main(["--quick", "--budget=0"]) == {}
    assert capsys.readouterr().out.count("Not begun, for --budget=0 seconds have passed") == 6
