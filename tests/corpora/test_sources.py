"""What has changed of what was read, in words."""

import pytest

from mel.corpora.sources import Source, first_change, read_sources, write_sources
from mel.types import MelError

THEN = {"en/part-00007.xz": Source(100, "aa"), "en/docs.tsv": Source(5, "bb")}


@pytest.mark.parametrize(
    "now, words",
    [
        ({}, ""),
        ({"en/part-00007.xz": Source(112, "", "part-00007.xz of damuel_1.0_en.tar")},
         "part-00007.xz of damuel_1.0_en.tar has 12 bytes more than when kb was made"),
        ({"en/part-00007.xz": Source(99)}, "en/part-00007.xz has 1 byte fewer than when kb was made"),
        ({"en/docs.tsv": Source(5, "cc", "docs.tsv of t")}, "docs.tsv of t has another content than when kb was made"),
        ({"en/docs.tsv": Source(5, "bb")}, ""),
        ({"en/new": Source(5, "", "new of t")}, "new of t is new since kb was made"),
        ({"en/docs.tsv": None}, "en/docs.tsv is gone since kb was made"),
        ({"en/docs.tsv": None, "en/new": Source(1)}, "en/docs.tsv is gone since kb was made, and 1 more changed"),
    ],
)  # fmt: skip
def test_what_changed_is_named(now, words):
    there = {name: source._replace(sha256="") for name, source in THEN.items()} | now
    assert first_change(THEN, {name: source for name, source in there.items() if source}, "kb") == words


def test_a_list_is_read_as_it_was_written_and_a_damaged_one_refused(tmp_path):
    write_sources(tmp_path, {"ä": Source(3, "ff", "somewhere")})
    assert read_sources(tmp_path) == {"ä": Source(3, "ff")}
    (tmp_path / "sources.json").write_text("[1]")
    with pytest.raises(MelError, match="sources.json is missing or damaged: delete .* and run mel-prepare-data again"):
        read_sources(tmp_path)
