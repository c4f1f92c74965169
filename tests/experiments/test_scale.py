"""Made archives are like genuine ones, laws are lines, and the day on paper is their sum."""

import json
import lzma
import statistics
import time
from collections import Counter

import numpy as np
import pytest

from experiments.benchmarks import day, harness, made_archives, memory_watch, preparing, scale
from experiments.benchmarks.made_archives import Making, Measures
from experiments.programs import parse
from mel.corpora.archives import find_archive, list_parts
from mel.corpora.damuel import read_pages
from mel.corpora.malformed import Malformed
from mel.text.foreign import read_tokenizer
from mel.types import MarkedText, Span

MAKING = Making("es", pages=12, thin=5, parts=2, seed=3)


@pytest.fixture(scope="module")
def records():
    """Those of both parts."""
    return [[json.loads(line) for line in made_archives.records(number, MAKING)] for number in range(2)]


def test_made_pages_are_like_genuine_ones(capsys):
    if not (scale.SAMPLES / "part-00000").is_file():
        pytest.skip(f"{scale.SAMPLES} has no genuine records")
    assert scale.compare(scale.SAMPLES, pages=40) == []
    assert "| bytes |" in capsys.readouterr().out


def test_what_is_out_is_named():
    genuine = Measures(100.0, 10.0, 4.0, 2.0, 10.0)
    assert genuine._replace(bytes=119.0, ratio=8.1).out(genuine, 0.2) == []
    assert genuine._replace(bytes=121.0, ratio=7.9).out(genuine, 0.2) == ["bytes", "ratio"]


def test_measures_are_of_pages_alone():
    page = {"wiki": {"tokens": [{}, {}], "links": [{"origin": "wiki", "qid": "Q1"}, {"origin": "wiki"}]}}
    line = json.dumps(page).encode() + b"\n"
    measured, size = made_archives.measure([line, b'{"qid": "Q2"}\n'])
    assert measured[:4] == (len(line), 2.0, 2.0, 1.0)
    assert size == len(line)


def test_records_are_the_same_for_the_same_seed(records):
    again = [json.loads(line) for line in made_archives.records(1, MAKING)]
    other = [json.loads(line) for line in made_archives.records(1, MAKING._replace(seed=4))]
    assert again == records[1] != other


def test_parts_share_the_records_out(records):
    assert [len(part) for part in records] == [6 + 2, 6 + 3]
    qids = [record["qid"] for part in records for record in part]
    assert len(set(qids)) == len(qids)
    assert Counter(tuple(record) for part in records for record in part if "wiki" not in record) == {
        ("qid", "lang", "label", "description"): 5
    }


def test_pages_have_the_fields_of_genuine_ones_and_spans_that_fit(records):
    for page in (record for part in records for record in part if "wiki" in record):
        assert list(page) == ["qid", "lang", "label", "aliases", "description", "wiki"]
        wiki = page["wiki"]
        assert " ".join(wiki) == (
            "title text links removed_links removed_text_before tokens sentences paragraphs redirects anchors"
        )
        words = [wiki["text"][token["start"] : token["end"]] for token in wiki["tokens"]]
        assert all(word and word == word.strip() for word in words)
        assert {stretch["end"] for stretch in wiki["sentences"]} >= {len(words)}
        for link in wiki["links"]:
            assert 0 <= link["start"] < link["end"] <= len(words)
            if link["origin"] == "wiki":
                assert " ".join(words[link["start"] : link["end"]]).strip(",. ")


def test_lengths_have_the_mean_of_genuine_pages_even_of_few():
    assert statistics.mean(made_archives._lengths(30)) == pytest.approx(made_archives.PAGE_TOKENS, rel=0.05)


def test_an_archive_is_read_as_a_genuine_one(tmp_path):
    path = made_archives.write_archive(tmp_path, MAKING, workers=1)
    assert path == tmp_path / "damuel_1.0_es.tar" and list(tmp_path.iterdir()) == [path]
    parts, malformed = list_parts(path), Malformed(0)
    assert [part.name for part in parts] == ["part-00000.xz", "part-00001.xz"]
    pages = [page for part in parts for page in read_pages(part, "es", malformed)]
    assert len(pages) == 17 and not malformed.dropped
    assert sum(len(page.mentions) for page in pages) > 50
    assert set(sum((page.dropped for page in pages), Counter())) == {"origin is not wiki", "no qid"}


def test_a_low_preset_packs_the_same_records_into_more_bytes():
    parts = {preset: made_archives._part(0, MAKING._replace(preset=preset)) for preset in (1, 6)}
    assert lzma.decompress(parts[1]) == lzma.decompress(parts[6]) and len(parts[1]) > len(parts[6])


def test_pages_take_the_megabytes_that_are_asked_for():
    making = Making.of("es", megabytes=0.12, part_megabytes=0.12)
    assert making == Making("es", pages=20, thin=0, parts=1)
    assert len(made_archives._part(0, making)) == pytest.approx(0.12e6, rel=0.35)  # few pages pack less


def test_an_archive_is_made_with_the_command_that_prepares_it(tmp_path, capsys):
    scale.main(["--records", "30", f"--make={tmp_path}", "--seed=5"])
    said = capsys.readouterr().out.split()
    assert said[0] == "mel-prepare-data" and f"--damuel={tmp_path}" in said
    config = parse("prepare_data", said[1:])
    assert read_tokenizer(config.windows.tokenizer).facts()["vocab_size"] > 20_000
    parts = list_parts(find_archive(config.archives.damuel, "es"))
    assert sum(1 for part in parts for _ in read_pages(part, "es", Malformed(0))) == 31


def test_the_made_vocabulary_knows_every_word_in_a_few_pieces(tmp_path):
    tokenizer = read_tokenizer(made_archives.write_vocabulary(tmp_path))
    text = made_archives._said(range(2, 60_000, 600))
    row = tokenizer.rows([MarkedText(text, Span(0, len(text)))], 512)[0]
    assert tokenizer.count_unknown([row])[0] == 0
    assert 100 < len(row) < 400


def test_a_law_is_a_line():
    assert scale.Law.of([1.0, 2.0, 4.0], [5.0, 7.0, 11.0]) == pytest.approx((3.0, 2.0))
    assert scale.Law.of([2.0, 2.0], [5.0, 7.0]) == (6.0, 0.0)
    assert scale.Law(3.0, 2.0).at(10.0) == 23.0


def wait_until(reached):
    for _ in range(200):
        if reached():
            return
        time.sleep(memory_watch.SAMPLE_SECONDS)


def holding_side(turn, megabytes):
    held = np.ones(megabytes << 17)
    turn(float(held.sum()))


def test_the_memory_of_a_child_is_watched():
    with memory_watch.MemoryWatch() as watch, harness.child(holding_side, 150) as run:
        assert run().value == 150 << 17
        wait_until(lambda: watch.parent > 150)  # it is stopped, and holds all of it still
    assert 150 < watch.parent < 300 and watch.worker == 0 and watch.all >= watch.parent


def test_a_preparation_tells_what_each_stage_took(tmp_path):
    archive = made_archives.write_archive(tmp_path, MAKING._replace(parts=1), workers=1)
    tokenizer, told = made_archives.write_vocabulary(tmp_path / "tokenizer"), []
    settings = {"languages": ("es",), "workers": 1}
    preparing.prepare_side(told.append, str(tmp_path), str(tmp_path / "run"), str(tokenizer), settings)
    scale.open_side(told.append, str(tmp_path / "run"))
    (took, opened) = told
    assert took["rows"] == 17 and took["mentions"] > 50 and took["workers"] == 0
    assert 0 < took["megabytes"] < archive.stat().st_size / 1e6
    assert list(took["stages"]) == ["reading", "merging", "entity rows", "mentions"]
    assert 0 < sum(stage[1] for stage in took["stages"].values()) <= took["parent"]
    assert 0 < sum(stage[0] for stage in took["stages"].values()) <= took["seconds"]
    assert took["units_mb"] > 0 and set(took["disk_mb"]) == {"kb", "alias_table", "mentions", "tokens"}
    assert opened["opening"] > 0


@pytest.mark.slow
def test_a_smoke_test_measures_every_stage_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    result = scale.main(["--quick", "--workers=1", f"--samples={tmp_path}"])
    laws, sizes = result["details"]["laws"], result["details"]["sizes"]
    assert [took["parts"] for took in sizes] == [1, 2]
    assert all(set(took["stages"]) == set(STAGES) for took in sizes)
    assert sizes[1]["rows"] > sizes[0]["rows"] > 0 and sizes[0]["mentions"] > 0
    assert laws["rows"].at(sizes[0]["megabytes"]) == pytest.approx(sizes[0]["rows"])
    assert sum(took[1] for took in sizes[0]["stages"].values()) <= sizes[0]["parent"]
    assert not list(tmp_path.iterdir()) and "| reading, parent |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_memory_of_two_sizes_is_compared_alone(tmp_path):
    arguments = ["--flat", "--quick", "--preset=1", "--workers=1", f"--samples={tmp_path}"]
    result = scale.main(arguments)
    small, large = result["details"]["sizes"]
    assert result["sides"]["ours"]["median"] == large["all_mb"] / small["all_mb"] and large["rows"] > small["rows"]
    thin = scale.main([*arguments, "--thin"])
    assert thin["name"] == "scale_flat_thin" and thin["unit"] == "GiB"
    assert thin["sides"]["ours"]["median"] == thin["details"]["sizes"][-1]["all_mb"] / 1024


STAGES = "reading", "merging", "entity rows", "mentions"
ZERO = dict.fromkeys([
    *(f"{stage}, {who}" for stage in STAGES for who in ("parent", "workers")),
    "mentions", "mentions_mb", "units_mb", "kb_mb", "alias_table_mb", "tokens_mb", "worker_mb",
], (0.0, 0.0))  # fmt: skip


def test_a_day_is_the_laws_applied_to_the_sizes():
    pages = ZERO | {"reading, parent": (9.0, 0.01), "reading, workers": (9.0, 0.32), "worker_mb": (40.0, 2.0)}
    pages |= {"mentions": (0.0, 2000.0), "mentions, parent": (1.0, 0.02), "kb_mb": (0.0, 0.5)}
    thin = ZERO | {"reading, workers": (5.0, 16e-6), "kb_mb": (0.0, 1e-3), "reading, parent": (1.0, -1.0)}
    thin |= {"parent_mb": (100.0, 2e-5)}
    laws = day.Preparation({"details": {"laws": pages}}, {"details": {"laws": thin, "merge_memory": 0.5}})
    corpus = day.Corpus(6_040, 1e6, 36e6, 30)  # pages alone
    assert corpus.pages == pytest.approx(1e6)
    assert laws.hours("reading", corpus) == pytest.approx(6_040 * (0.01 + 0.32 / 16) / 3600)
    assert laws.mention_hours(corpus) == pytest.approx(0.1)  # 10 µs each
    assert laws.worker_gb(30) == pytest.approx(0.1)
    assert laws.merging_gb(corpus) == pytest.approx(0.1 + 0.02 + 1.5 * 1.073741824)
    corpus = day.Corpus(6_040 + 17.3, 2e6, 36e6, 30)  # and a million thin records
    assert corpus.pages == pytest.approx(1e6)
    assert laws.of("kb_mb", corpus) == pytest.approx(3_020 + 1_000)
    assert laws.hours("reading", corpus) == pytest.approx((6_040 * (0.01 + 0.32 / 16) + 1) / 3600)


def test_what_nobody_measured_has_no_figure():
    lines = day.markdown({}).splitlines()
    assert "| building ScaNN in shards, on 16 cores | not measured | – | – | – | – | – | – | `scann_shards` |" in lines
    assert lines[3].startswith("| training, one pass over all mentions | 3,150 mentions/s")
    assert "| 15 | 34 |" in lines[3]  # 175 and 380 million by 3,150 a second


def test_asking_scann_takes_the_seconds_and_the_memory_of_its_rows():
    details = {"rows": 2 * 10**7, "searched, seconds to open": 18.0, "searched, seconds": 2.0, "searched, MB": 1e4}
    stage = day.asking({"large_search": {"details": details, "ratio": 20.0}})
    corpus = day.CORPORA[0]._replace(records=40e6)
    assert stage.hours(corpus) == pytest.approx(3 * 40 / 3600) and stage.memory(corpus) == pytest.approx(60)


def test_starting_to_link_takes_the_seconds_and_the_disk_of_its_rows_and_no_more_memory():
    details = {"rows": 2 * 10**7, "anonymous memory, MB": 200.0, "GB of the bundle": 15.0}
    stage = day.starting({"large_linking": {"details": details, "ratio": 10.0}})
    corpus = day.CORPORA[0]._replace(records=40e6)
    assert stage.hours(corpus) == pytest.approx(3 * 20 / 3600) and stage.memory(corpus) == pytest.approx(0.2)
    assert stage.disk(corpus) == pytest.approx(90)


def test_entities_are_encoded_once_and_mentions_of_a_round():
    corpus = day.CORPORA[0]._replace(records=71_000 * 3600.0)
    assert day.encoding_hours(corpus) == pytest.approx(1 + 2_688 * 10_000 / 63_000 / 3600)


def test_scann_takes_the_seconds_of_its_rows_and_half_of_the_memory_at_most():
    details = {"rows": [100_000, 400_000], "in shards": [{}, {"build s": 24.0}], "bytes a row, one tree": 2_000}
    stage = day.building({"scann_shards": {"details": details, "machine": {"cores": 2}}})
    corpus = day.CORPORA[0]._replace(records=10e6)
    assert stage.hours(corpus) == pytest.approx(60e-6 * 3 * 10e6 * 2 / 16 / 3600)  # three times as wide, 16 cores
    assert stage.memory(corpus) == pytest.approx(60) and stage.memory(day.CORPORA[0]) == 64
    assert stage.law == "60 µs and 2,000 B a row of 128, on 2 cores"


def test_build_md_has_the_day_of_the_results():
    page = (scale.ROOT / "BUILD.md").read_text("utf-8").splitlines()
    assert [line for line in day.markdown(day.read(harness.RESULTS)).splitlines() if line not in page] == []
