import bz2
import csv
import gzip
import io
import json
import lzma

import pytest

from mel.corpora.malformed import Malformed
from mel.corpora.records import read_records
from mel.types import MelError

COLUMNS = {"id": str, "size": int, "names": list, "counts": dict}


def read(path, malformed=None, required=("id",)):
    malformed = Malformed(0) if malformed is None else malformed
    return [(line, *record.values()) for line, record in read_records(path, COLUMNS, required, malformed)]


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_the_same_records_by_hand_in_both_formats(tmp_path):
    lines = '{"id": "a", "size": 3, "names": ["x", "y z"], "counts": {"x": 2}}\n\n{"id": 7, "names": null}\n'
    table = 'id,size,names,counts\na,3,x|y z,"{""x"": 2}"\n\n7,,,\n'
    expected = [("a", 3, ["x", "y z"], {"x": 2}), ("7", 0, [], {})]
    for name, content in (("r.jsonl", lines), ("r.csv", table)):
        found = read(written(tmp_path, name, content))
        assert [line for line, *_ in found] == ([1, 3] if name == "r.jsonl" else [2, 4])
        assert [tuple(values) for _, *values in found] == expected


@pytest.mark.parametrize("suffix, compress", [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)])
def test_what_is_compressed_is_read_and_what_is_cut_or_misnamed_is_refused(tmp_path, suffix, compress):
    data = compress(b"id,size\na,3\n")
    assert read(written(tmp_path, f"r.csv{suffix}", data)) == [(2, "a", 3, [], {})]
    with pytest.raises(MelError, match="is truncated: write it again|cannot be read"):
        read(written(tmp_path, f"r.csv{suffix}", data[:-5]))
    with pytest.raises(MelError, match="its name says that it is not compressed"):
        read(written(tmp_path, "r.csv", data))


def test_hard_fields_of_csv_are_read_back(tmp_path):
    hard = ['"', "a,b", 'a"b', "a\nb", "a\r\nb", " ", "ü\u2028x", "'a'", '""', "a\tb"]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([["id", "size"], *([f"<{each}>", 1] for each in hard)])
    found = read(written(tmp_path, "r.csv", file.getvalue()))
    assert [record[1] for record in found] == [f"<{each}>" for each in hard]
    assert [record[0] for record in found] == [2, 3, 4, 5, 7, 9, 10, 11, 12, 13]


def test_columns_that_nobody_reads_are_named_once_for_each_file(tmp_path, caplog):
    read(written(tmp_path, "r.jsonl", '{"id": "a", "x": 1}\n{"id": "b", "x": 2, "y": 3}\n'))
    read(written(tmp_path, "r.csv", "id,colour\na,red\nb,blue\n"))
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "not read: 'x', 'y'. What is read: id, size, names, counts.",
        "not read: 'colour'. What is read: id, size, names, counts.",
    ]


@pytest.mark.parametrize(
    "record, reason",
    [
        ("[1]", "it is no JSON object"),
        ("{", "unexpected end of data"),
        ("{}", "it has no id"),
        ('{"id": " "}', "it has no id"),
        ('{"id": true}', "id is 'True', no text"),
        ('{"id": "a", "size": 1.5}', "size is '1.5', no whole number"),
        ('{"id": "a", "size": true}', "size is 'True', no whole number"),
        ('{"id": "a", "names": [1]}', "names is '[1]', no list of texts"),
        ('{"id": "a", "counts": {"x": -1}}', "no object of whole numbers"),
    ],
)
def test_json_lines_that_cannot_be_used(tmp_path, record, reason):
    malformed = Malformed(1)
    found = read(written(tmp_path, "r.jsonl", f'{{"id": "good"}}\n{record}\n{{"id": "last"}}\n'), malformed)
    assert [values[1] for values in found] == ["good", "last"]
    (only,) = malformed.records
    assert only.line == 2 and reason in only.reason


@pytest.mark.parametrize(
    "row, reason",
    [
        ("a", "it has 1 columns, not 4"),
        ("a,b,c,d,e", "it has 5 columns, not 4"),
        ("a,3.5,,", "size is '3.5', no whole number"),
        ("a,,,x", "counts is 'x', no object of whole numbers"),
        ('"a"b,1,,', "expected after"),
        (b"\xff,1,,", "it is not UTF-8"),
    ],
)
def test_rows_of_csv_that_cannot_be_used(tmp_path, row, reason):
    malformed, row = Malformed(1), row if isinstance(row, bytes) else row.encode()
    found = read(written(tmp_path, "r.csv", b"id,size,names,counts\ngood,3.0,,\n" + row + b"\nlast,,,\n"), malformed)
    assert [values[1:3] for values in found] == [("good", 3), ("last", 0)]
    (only,) = malformed.records
    assert only.line == 3 and reason in only.reason


def test_lines_that_a_lone_quote_took_along_are_named(tmp_path):
    malformed = Malformed(1)
    found = read(written(tmp_path, "r.csv", 'id,size\n"a,1\nb,2\n"c",3\nd,4\n'), malformed)
    assert [values[1] for values in found] == ["d"]
    assert "with the lines up to 4" in malformed.records[0].reason and malformed.records[0].line == 2


def test_a_quote_that_is_never_closed_is_refused_for_it_would_take_the_rest_along(tmp_path):
    with pytest.raises(MelError, match="r.csv:3 opens a quote that is never closed: close it, or double it."):
        read(written(tmp_path, "r.csv", 'id,size\na,1\n"b,2\nc,3\n'), Malformed(9))


def test_a_mark_in_front_is_nothing_and_utf16_is_named(tmp_path):
    for name, content in (("r.csv", "id\na\n"), ("r.jsonl", '{"id": "a"}\n')):
        assert read(written(tmp_path, name, b"\xef\xbb\xbf" + content.encode()))[0][1] == "a"
        with pytest.raises(MelError, match=f"{name} is UTF-16: convert it to UTF-8"):
            read(written(tmp_path, name, content.encode("utf-16")))


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        (
            "r.csv",
            "id;size\na;1\n",
            "r.csv has no column id, its header is 'id;size': it must name id, with commas between.",
        ),
        ("r.csv", "", "has no column id, its header is ''"),
        ("r.csv", "id,id\n", "has the column 'id' twice: name each once"),
        (
            "r.tsv",
            "id\n",
            "is named neither .jsonl nor .csv, with or without .xz, .zst, .bz2, .gz: rename or convert it.",
        ),
        ("r.json.gz", "", "is named neither .jsonl nor .csv"),
    ],
)
def test_files_that_are_refused(tmp_path, name, content, sentence):
    with pytest.raises(MelError, match=sentence):
        read(written(tmp_path, name, content))
    with pytest.raises(MelError, match="nowhere.csv cannot be read: No such file"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(MelError, match="is a folder, not a file"):
        (tmp_path / "folder.csv").mkdir(exist_ok=True)
        read(tmp_path / "folder.csv")


def test_json_numbers_that_are_texts_and_texts_that_are_lists(tmp_path):
    records = [{"id": 42, "names": "x|y"}, {"id": "Q42", "size": "7"}]
    found = read(written(tmp_path, "r.jsonl", "".join(json.dumps(record) + "\n" for record in records)))
    assert [values[1:4] for values in found] == [("42", 0, ["x", "y"]), ("Q42", 7, [])]
