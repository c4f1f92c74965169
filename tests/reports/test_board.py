"""Figures of a round stand in its TensorBoard, at its last step."""

import struct

from mel.artifacts import Workdir
from mel.reports import board


def test_the_figures_of_a_round_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(
        board, "open_report", lambda path: {"micro": {"r@1": 0.5, "r@10": 0.6, "r@100": 0.7, "mrr": 0.55}}
    )
    work = Workdir(tmp_path)
    board.write_round(work, 2, 450)
    (file,) = (work.round(2).training / "tensorboard").iterdir()
    written = file.read_bytes()
    for name, value in (("r_at_1", 0.5), ("r_at_10", 0.6), ("r_at_100", 0.7), ("mrr", 0.55)):
        assert f"evaluation/{name}".encode() in written and struct.pack("<f", value) in written
    assert b"\x10\xc2\x03" in written  # field 2 of an event, its step: 450 as a varint
