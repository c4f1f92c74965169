"""Files on disk: none is half written, none believed blindly, and of one that is in the way the user is told."""

import os

import pytest

from mel.files import read_json, read_json_lines
from mel.types import MelError


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"a": 1}}', "[" * 100_000, "\xff", '{"a": ' + "9" * 5000 + "}"]
)
def test_what_is_no_object_is_named(tmp_path, content):
    (tmp_path / "a").write_bytes(content.encode("latin-1"))
    with pytest.raises(MelError, match=f"^{tmp_path}/a is damaged.*: delete it and run the same command again.$"):
        read_json(tmp_path / "a")
    (tmp_path / "a").write_bytes(b'{"step": 1}\n' + content.encode("latin-1") + b"\n")
    with pytest.raises(MelError, match=f"^{tmp_path}/a:2 is damaged.*: do this.$"):
        read_json_lines(tmp_path / "a", "do this")


def test_an_absurd_size_is_not_read(tmp_path):
    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", 1 << 40)
    with pytest.raises(MelError, match="1,099,511,627,776 bytes are too many"):
        read_json(tmp_path / "a")


def test_what_is_right_is_read(tmp_path):
    (tmp_path / "a").write_text('{"a": [1, "é"]}')
    assert read_json(tmp_path / "a") == {"a": [1, "é"]}
    (tmp_path / "b").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_json_lines(tmp_path / "b", "") == [{"step": 1}, {"step": 2}]
    assert read_json_lines(tmp_path / "none", "") == []
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")
