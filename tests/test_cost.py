"""The cost record: what a line says, how runs of a stage add up, what a crash leaves."""

import json
import pathlib
import subprocess
import sys

import pytest

from mel import cost

ROOT = pathlib.Path(__file__).resolve().parents[1]


def written(folder, *lines):
    (folder / cost.FILE).write_bytes(b"".join(lines))


def line(stage, **values):
    return json.dumps({"stage": stage} | values).encode() + b"\n"


def test_a_finished_stage_leaves_one_line(tmp_path, monkeypatch):
    clock = iter([100.0, 102.5])
    monkeypatch.setattr(cost.time, "monotonic", lambda: next(clock))
    with cost.record_cost(tmp_path / "made", "train round 0", accelerator="1 x H100") as figures:
        figures["tokens"] = 50
    (text,) = (tmp_path / "made" / cost.FILE).read_text().splitlines()
    found = json.loads(text)
    assert found["stage"] == "train round 0"
    assert (found["seconds"], found["tokens"], found["accelerator"]) == (2.5, 50, "1 x H100")
    assert found["hardware"] == cost.hardware()
    assert cost.read_cost(tmp_path / "made") == [found | {"runs": 1, "tokens_seconds": 2.5}]


def test_a_failed_stage_leaves_nothing_and_an_interrupted_one_its_cost(tmp_path):
    with pytest.raises(ValueError), cost.record_cost(tmp_path, "failed"):
        raise ValueError
    assert cost.read_cost(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), cost.record_cost(tmp_path, "stopped") as figures:
        figures["tokens"] = 7
        raise KeyboardInterrupt
    (found,) = cost.read_cost(tmp_path)
    assert (found["stage"], found["tokens"]) == ("stopped", 7)


def test_runs_of_one_stage_add_up_in_the_order_of_the_first(tmp_path):
    written(
        tmp_path,
        line("train", seconds=2.5, tokens=10, peak_memory_mb=900, hardware="2 x A"),
        line("mine", seconds=1.0, peak_memory_mb=100, hardware="2 x A"),
        line("train", seconds=0.5, tokens=30, peak_memory_mb=400, hardware="4 x B", mentions=6),
        line("train", seconds=1.0, tokens=1, peak_memory_mb=400, hardware="2 x A"),
        line("train", seconds=8.0, peak_memory_mb=400, hardware="2 x A"),
    )
    train, mine = cost.read_cost(tmp_path)
    assert train == {
        "stage": "train", "seconds": 12.0, "tokens": 41, "tokens_seconds": 4.0, "peak_memory_mb": 900,
        "hardware": "2 x A; 4 x B", "mentions": 6, "runs": 4,
    }  # fmt: skip
    assert mine["runs"] == 1 and mine["seconds"] == 1.0


@pytest.mark.parametrize("torn", [b'{"stage": "mine", "sec', b"\xff\xfe", b"null", b'{"seconds": 1}', b""])
def test_a_torn_line_is_passed_over_and_does_not_swallow_the_next(tmp_path, torn):
    written(tmp_path, line("train", seconds=1.0), torn)
    assert [stage["stage"] for stage in cost.read_cost(tmp_path)] == ["train"]
    with cost.record_cost(tmp_path, "évaluer"):
        pass
    assert [stage["stage"] for stage in cost.read_cost(tmp_path)] == ["train", "évaluer"]


PARENT = """
import subprocess, sys
from mel.cost import peak_memory_mb
held = bytearray(b"x") * (500 * 10**6)
child = [sys.executable, "-c", "from mel.cost import peak_memory_mb; print(peak_memory_mb())"]
said = subprocess.run(child, capture_output=True, text=True, check=True).stdout
del held
print(peak_memory_mb(), said)
"""


def test_peak_memory_is_the_process_own_and_not_that_of_the_one_that_started_it():
    said = subprocess.run([sys.executable, "-c", PARENT], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    parent, child = map(int, said.split())
    assert parent >= 500 and 1 < child < 200


def test_where_no_status_file_tells_the_system_call_does(monkeypatch, tmp_path):
    told = cost.peak_memory_mb()
    for status in ("", "VmSize:\t 10 kB\n"):
        (tmp_path / "status").write_text(status)
        monkeypatch.setattr(cost, "STATUS", tmp_path / "status")
        assert cost.peak_memory_mb() >= told - 1 > 1
    monkeypatch.setattr(cost, "STATUS", tmp_path / "nowhere")
    assert cost.peak_memory_mb() >= told - 1


def test_nothing_recorded_is_no_cost(tmp_path):
    assert cost.read_cost(tmp_path) == []
