"""Chunks of mining: in the order of lengths, kept when a command ends, made again if they are not what is asked."""

import json

import numpy as np
import pytest

from mel.retrieval import chunks
from mel.retrieval.chunks import mine_chunks

MENTIONS_n = np.array([3, 5, 8, 13, 21, 34, 55])
LENGTHS_n = np.array([9, 2, 9, 2, 2, 5, 1])


class Stopped(Exception):
    """Stands for whatever ends a process."""


class Mining:
    """Stands for mining: the negatives of mention m are 10 m and 10 m + 1. Notes what it is asked; may stop."""

    def __init__(self, most=99):
        self.asked, self.most = [], most

    def __call__(self, mentions_c, count):
        if len(self.asked) == self.most:
            raise Stopped
        self.asked.append(mentions_c.tolist())
        count(len(mentions_c))
        return np.stack([10 * mentions_c, 10 * mentions_c + 1], axis=1).astype(np.int32)


@pytest.fixture
def inputs(publish_tokens, monkeypatch):
    monkeypatch.setattr(chunks, "MENTIONS_A_CHUNK", 3)
    return {"checkpoint": publish_tokens("checkpoint", "c", "checkpoint")}


def mined(folder, mining, inputs, mentions_n=MENTIONS_n, **settings):
    return mine_chunks(folder, mentions_n, LENGTHS_n, mining, inputs, settings)


def check(rows_nK):
    assert rows_nK.dtype == np.int32
    assert rows_nK.tolist() == [[10 * m, 10 * m + 1] for m in MENTIONS_n]


def test_mentions_are_mined_once_in_the_order_of_their_lengths(inputs, tmp_path):
    mining = Mining()
    check(mined(tmp_path / "mining", mining, inputs))
    assert mining.asked == [[55, 5, 13], [21, 34, 3], [8]]


def test_who_was_ended_goes_on_after_the_last_whole_chunk(inputs, tmp_path):
    first, second = Mining(most=2), Mining()
    with pytest.raises(Stopped):
        mined(tmp_path / "mining", first, inputs)
    assert sorted(path.name for path in (tmp_path / "mining").iterdir()) == ["00000", "00001"]
    check(mined(tmp_path / "mining", second, inputs))
    assert second.asked == [[8]]


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_damaged_chunk_and_what_is_left_of_one_are_mined_again(inputs, tmp_path, caplog):
    folder = tmp_path / "mining"
    mined(folder, Mining(), inputs)
    flip_a_bit(folder / "00001" / "negatives.npy")
    (folder / "00002" / "manifest.json").unlink()
    again = Mining()
    with caplog.at_level("WARNING", logger="absl"):
        check(mined(folder, again, inputs))
    assert again.asked == [[21, 34, 3], [8]]
    assert "00001/negatives.npy is damaged" in caplog.text


def test_chunks_of_another_checkpoint_or_setting_or_of_other_mentions_are_mined_again(inputs, publish_tokens, tmp_path):
    folder, other = tmp_path / "mining", {"checkpoint": publish_tokens("other", "o", "checkpoint")}
    mined(folder, Mining(), inputs, pool=4)
    for arguments in [{"pool": 5}, {"pool": 5, "inputs": other}, {"pool": 5, "mentions_n": MENTIONS_n + 1}]:
        again = Mining()
        mined(folder, again, **{"inputs": inputs} | arguments)
        assert len(again.asked) == 3
        inputs = arguments.get("inputs", inputs)


def test_a_chunk_is_an_artefact_that_says_what_it_is_made_from(inputs, tmp_path):
    mined(tmp_path / "mining", Mining(), inputs, pool=4)
    manifest = json.loads((tmp_path / "mining" / "00000" / "manifest.json").read_text())
    assert manifest["kind"] == "mined chunk" and manifest["facts"]["settings"] == {"pool": 4}
    assert manifest["inputs"] == {"checkpoint": inputs["checkpoint"].digest}
