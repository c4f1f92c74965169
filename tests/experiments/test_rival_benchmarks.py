"""The benchmarks beside other libraries: both sides of a comparison are given the same rows, and the sums are right."""

import json
import pathlib
import sys

import numpy as np
import pytest

from experiments.benchmarks import (
    compile_cache,
    exact_search,
    exported_model,
    gpu,
    harness,
    linking,
    loader,
    mined_bytes,
    mining_call,
    mining_search,
    rivals,
    scann_shards,
)
from experiments.benchmarks import seek as seek_benchmark
from experiments.benchmarks.workload import Spec, make_work, source_of
from mel.artifacts import Workdir, publish
from mel.shards.datasets import RowSet
from mel.shards.negatives import Negatives, publish_negatives
from mel.shards.rows import TokenRows
from mel.text.foreign import read_tokenizer
from mel.text.tokenizer import Tokenizer
from mel.types import MarkedText, MelError, Span

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "sea", "##side", "by", "the", "shore"]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    read_tokenizer(folder).save(folder)
    return folder


def row_set(*rows: list[int]) -> RowSet:
    ids = np.arange(len(rows))
    return RowSet(TokenRows.from_rows([np.array(row) for row in rows]), ids + 1, np.zeros(len(rows), np.int32), ids)


def by_qid(batches) -> dict[int, list[int]]:
    """The tokens of each QID without padding; all batches have the full width."""
    found = {}
    for tokens_BL, qids_B in batches:
        assert tokens_BL.shape == (len(qids_B), loader.LONGEST) and tokens_BL.dtype == np.int32
        found |= {int(qid): tokens[tokens > 0].tolist() for qid, tokens in zip(qids_B, tokens_BL)}
    return found


def test_a_missing_rival_is_named_in_a_sentence():
    with pytest.raises(SystemExit, match=r"needs no_such_rival: pip install"):
        rivals.require("json", "no_such_rival")


def test_a_missing_run_is_named_in_a_sentence(tmp_path):
    with pytest.raises(MelError, match=f"There is no tokens at {tmp_path}"):
        rivals.open_workdir(tmp_path)


def test_texts_give_their_rows_again(tokenizer_folder):
    tokenizer = rivals.load_tokenizer(tokenizer_folder)
    rows = TokenRows.from_rows(
        Tokenizer.load(tokenizer_folder).rows([MarkedText("by the seaside shore", Span(7, 14))], 16)
    )
    texts = rivals.texts_of(rows, tokenizer)
    assert texts == ["by the [M] seaside [M] shore"]
    assert rivals.same_rows(texts, rows, tokenizer).all()
    assert not rivals.same_rows(["by the [M] sea [M] shore"], rows, tokenizer).any()


def test_a_piece_behind_a_marker_becomes_a_word(tokenizer_folder):
    tokenizer = rivals.load_tokenizer(tokenizer_folder)
    pieces = ["[CLS]", "##side", "[SEP]", "##side", "[M]", "sea", "##side", "[M]", "##side", "[SEP]"]
    rows = TokenRows.from_rows([np.array([tokenizer.token_to_id(piece) for piece in pieces])])
    assert rivals.texts_of(rows, tokenizer) == ["side [SEP] side [M] seaside [M] side"]


def test_our_tokenizer_is_given_what_the_rival_is(tokenizer_folder):
    text = "by the [M] seaside [M] shore"
    marked = rivals.marked(text)
    assert marked == MarkedText("by the seaside shore", Span(7, 14))
    ours = Tokenizer.load(tokenizer_folder).rows([marked], 16)[0]
    assert ours.tolist() == rivals.load_tokenizer(tokenizer_folder).encode(text).ids
    assert rivals.marked("[M] sea [M] shore") == MarkedText("sea shore", Span(0, 3))


def test_the_fastest_size_is_chosen(monkeypatch):
    clock = iter([0.0, 5.0, 5.0, 6.0, 6.0, 9.0])
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(clock))
    assert rivals.fastest(lambda size: None, [32, 64, 128]) == 64


@pytest.mark.slow
def test_all_loaders_deliver_the_same_rows(tmp_path):
    pytest.importorskip("grain", reason="the loaders that ours is compared with need the extra `bench`")
    pytest.importorskip("datasets", reason="the loaders that ours is compared with need the extra `bench`")
    rows = row_set([7], [8, 9, 10], [11, 12])
    expected = {1: [7], 2: [8, 9, 10], 3: [11, 12]}
    readers = loader.one_example_readers(tmp_path, rows)
    for side in readers:
        assert by_qid(readers[side]()) == expected, side


def test_our_loader_and_the_ceiling_deliver_the_same_rows(tmp_path):
    rows = row_set([7], [8, 9, 10], [11, 12])
    expected = {1: [7], 2: [8, 9, 10], 3: [11, 12]}
    decoded, _ = loader.our_rows(tmp_path, rows)
    assert by_qid(loader.ours(decoded, seed=0)) == expected
    assert by_qid(loader.ceiling(tmp_path / "padded.npy", rows)) == expected


def test_a_rate_counts_the_rows_that_are_read(monkeypatch):
    batches = [(np.zeros((30, 4)), None)] * 3
    for most, rate in ((None, 45.0), (60, 30.0), (40, 30.0)):
        clock = iter([10.0, 12.0])
        monkeypatch.setattr(loader.time, "perf_counter", lambda: next(clock))
        assert loader.rate_of(lambda: iter(batches), most)() == rate


def test_a_padded_record_is_decoded():
    tokens_L, qid = loader.decode_record(np.int64(42).tobytes() + np.array([7, 8], np.int32).tobytes())
    assert qid == 42 and tokens_L[:3].tolist() == [7, 8, 0] and len(tokens_L) == loader.LONGEST


def test_reading_up_to_a_batch_contains_every_batch_before(monkeypatch):
    spec = Spec(batch_size=4, tiny=True)
    source = source_of(make_work(spec), spec, chunk_tokens=64)
    made, clock = [], iter(range(100))
    monkeypatch.setattr(type(source), "batch_at", lambda self, n, layouts: made.append(n))
    monkeypatch.setattr(seek_benchmark.time, "perf_counter", lambda: next(clock))
    assert seek_benchmark.read_seconds(source, (), np.array([1, 3])) == [2, 4]
    assert made == [0, 1, 2, 3]


def test_bytes_of_padded_tokens():
    # 5 mentions, each with its own text, its gold's and 2 negatives', of 48 tokens of 4 bytes.
    assert mined_bytes.padded_bytes(np.zeros((5, 2), np.int32), 48) == 5 * 4 * 48 * 4


def test_shards_of_a_round_hold_mentions_golds_and_negatives():
    mentions, entities = row_set([5], [6]), row_set([7, 8], [9], [10])
    sets = list(mined_bytes.texts_of_round(mentions, entities, np.array([[2, 1], [0, 2]])))
    tokens = [row for rows in sets for row in rivals.pieces(rows.rows)]
    assert [row.tolist() for row in tokens] == [[5], [6], [7, 8], [10], [9], [9], [7, 8], [10]]


def test_only_mined_rounds_count(tmp_path):
    work = Workdir(tmp_path)
    with publish(tmp_path / "tokens", "tokens") as draft:
        draft.facts = {"rows": 1}
    for number, how in enumerate(("random", "hard", "hard")):
        facts = {"settings": {"negatives": how}}
        publish_negatives(work.round(number).negatives, Negatives(np.full((1, 2), number, np.int32)), {}, facts)
    found = mined_bytes.mined_rounds(work)
    assert [artifact.path for artifact in found] == [work.round(number).negatives for number in (1, 2)]
    assert mined_bytes.size(found[0]) > 128  # the header of the array and the manifest


def test_recall_is_the_share_of_true_neighbours():
    assert mining_search.recall_at(np.array([[1, 2, 3], [4, 5, 6], [0, 0, 0]]), np.array([[1, 2, 9], [4, 8, 9]])) == 0.5


def test_the_seconds_of_fewer_queries_are_scaled_up():
    assert mining_search.total_seconds({"build": 3.0, "search": 2.0, "queries": 10}, 50) == 13.0


def test_the_law_of_memory_is_the_line_through_the_peaks():
    a_row, fixed = scann_shards.law([1_000_000, 2_000_000, 4_000_000], [700, 1200, 2200])
    assert (a_row, fixed) == (pytest.approx(500), pytest.approx(200))


def test_vectors_are_of_unit_length_and_the_same_again(tmp_path):
    sizes = mining_search.Sizes(500, 20, 5)
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        mining_search.write_vectors(tmp_path / name, sizes, seed=0)
        written.append(mining_search.read_vectors(tmp_path / name))
    for one, other in zip(*written):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, rtol=1e-6)
    vectors_ND, queries_QD = written[0]
    assert ((queries_QD @ vectors_ND.T).max(axis=1) > 0.8).all()  # each has its origin among the vectors


def test_least_cosine():
    a_ND, b_ND = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0], [3.0, 4.0]])
    assert exported_model.least_cosine(a_ND, b_ND) == pytest.approx(0.8)


def test_both_sides_of_the_mining_call_have_golds_among_their_entities(monkeypatch):
    mentions, entities = row_set([5], [6], [7], [8]), row_set([9], [10, 11], [12])
    mentions.entity_rows_N[:] = [0, -1, 2, 1]
    monkeypatch.setattr(rivals, "open_workdir", Workdir)
    opened = iter([mentions, entities] * 2)
    monkeypatch.setattr(rivals, "open_tokens", lambda work, path: next(opened))
    task = mining_call.Task(pathlib.Path("."), mentions=10, entities=2, batch_sizes=())
    (_, ids_Q, kept), (_, again_Q, _) = task.rows(), task.rows()
    assert sorted(ids_Q) == [0, 3] and ids_Q.tolist() == again_Q.tolist()
    assert [row.tolist() for row in rivals.pieces(kept.rows)] == [[9], [10, 11]]


def test_the_clock_of_a_start_runs_to_its_first_step(tmp_path, monkeypatch):
    says = "import sys, time\nprint('starting', file=sys.stderr)\nprint('step 1/1 · loss', file=sys.stderr, flush=True)"
    monkeypatch.setattr(compile_cache, "command", lambda *_: [sys.executable, "-c", says])
    assert compile_cache.seconds_to_step_1(Workdir(tmp_path), ()) > 0
    monkeypatch.setattr(compile_cache, "command", lambda *_: [sys.executable, "-c", "exit(3)"])
    with pytest.raises(MelError, match="ended before step 1"):
        compile_cache.seconds_to_step_1(Workdir(tmp_path), ())


@pytest.mark.slow
def test_exact_search_finds_what_faiss_finds(capsys):
    pytest.importorskip("faiss", reason="what exact search is compared with needs the extra `bench`")
    result = exact_search.main(["--quick"])
    assert result["details"]["neighbours alike"] >= exact_search.LEAST_ALIKE
    assert list(result["sides"]) == ["ours", "faiss Flat"]


@pytest.mark.slow
def test_rivals_search_at_our_recall():
    pytest.importorskip("faiss", reason="what ScaNN is compared with needs the extra `bench`")
    results = mining_search.main(["--quick"])
    assert [list(result["sides"]) for result in results] == [["ours", "faiss Flat"], ["ours", "faiss IVF,Flat"]]
    details = results[0]["details"]
    for side in ("faiss IVF,Flat", "faiss IVF,PQ,refined"):
        assert details[f"recall@100, {side}"] >= details["recall@100, ours"]
        assert details["lists probed"][side] in mining_search.LISTS


@pytest.mark.slow
def test_everything_asked_of_a_gpu_runs_on_a_cpu_too(capsys):
    for package in ("torch", "datasets", "sentence_transformers"):
        pytest.importorskip(package, reason="what training is compared with needs the extra `bench`")
    results = gpu.main(["--quick"])
    assert list(results) == [
        "gpu_roofline", "gpu_search", "gpu_sentence_transformers", "gpu_pytorch_loop", "gpu_fixed_length",
    ]  # fmt: skip
    assert "Left out" not in capsys.readouterr().out


def test_pages_to_be_linked_are_of_each_language_in_turn(tiny_world, tmp_path):
    assert linking.write_pages(tiny_world / "mewsli", tmp_path / "pages.jsonl", 10) == 10
    records = [json.loads(line) for line in (tmp_path / "pages.jsonl").read_text().splitlines()]
    assert sum(len(record["spans"]) for record in records) == 10
    assert records[0]["language"] != records[1]["language"]
    assert all(record["text"][start:end].strip() for record in records for start, end in record["spans"])


def test_the_first_entities_of_both_files_are_compared(tmp_path):
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    ours.write_text('{"links": [{"id": "Q1"}, {"id": "Q2"}]}\n{"links": []}\n{"links": [{"id": "Q3"}]}\n')
    theirs.write_text(
        "".join(f'{{"candidates": [{{"id": "{name}"}}, {{"id": "Q9"}}]}}\n' for name in ("Q1", "Q9", "Q3"))
    )
    assert linking.same_first(ours, theirs) == 2 / 3
