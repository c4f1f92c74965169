import csv
import io

import pytest

from mel.corpora.malformed import Malformed
from mel.corpora.tables import MAX_RECORD_LINES, read_table
from mel.types import MelError

COLUMNS = ("docid", "title", "url")


def read(tmp_path, content, malformed=None):
    path = tmp_path / "docs.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    malformed = Malformed(0) if malformed is None else malformed
    return [(line, *row.values()) for line, row in read_table(path, COLUMNS, malformed)]


def as_data_frames_write_it(rows):
    """`DataFrame.to_csv(sep="\\t", index=False)` writes with this writer and these settings."""
    file = io.StringIO()
    csv.writer(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL, lineterminator="\n").writerows([COLUMNS, *rows])
    return file.getvalue()


def test_quoted_fields_by_hand(tmp_path):
    content = 'docid\ttitle\turl\nen-1\t"""Big"" news"\thttp://x\nen-2\t"5"" disk"\thttp://y\nen-3\tMoon\thttp://z\n'
    assert read(tmp_path, content) == [
        (2, "en-1", '"Big" news', "http://x"),
        (3, "en-2", '5" disk', "http://y"),
        (4, "en-3", "Moon", "http://z"),
    ]


HARD = (
    '"', '""', '"""', '"a"', 'a"b', '"a', 'a"', '" "', "a\tb", "\t", "a\nb", "\n", 'a\n"b"\n\tc', "a\r\nb", "\n\n", " ",
    "", "'a'", "ü\u2028x", 'x""y', "\\\"",
)  # fmt: skip


@pytest.mark.parametrize("title", HARD)
def test_whatever_a_data_frame_holds_is_read_back(tmp_path, title):
    rows = [("a", "plain", "u"), ("b", title, "v"), ("c", 'with "quotes"', "w")]
    assert [row[1:] for row in read(tmp_path, as_data_frames_write_it(rows))] == rows


def test_all_of_it_in_one_file_is_read_back_with_true_line_numbers(tmp_path):
    rows = [(f"d{number}", title, title) for number, title in enumerate(HARD)]
    found = read(tmp_path, as_data_frames_write_it(rows))
    assert [row[1:] for row in found] == rows
    lines, line = [], 2
    for row in rows:
        lines.append(line)
        line += as_data_frames_write_it([row]).count("\n") - 1
    assert [row[0] for row in found] == lines


@pytest.mark.parametrize("title", [title for title in HARD if not set(title) & set("\t\n\r")])
def test_a_file_that_was_never_quoted_is_read_as_it_is(tmp_path, title):
    content = f'docid\ttitle\turl\na\t{title}\tu\nb\t"Moon Song"\tv\nc\t"Zed\tw\n'
    expected = [(2, "a", title, "u"), (3, "b", '"Moon Song"', "v"), (4, "c", '"Zed', "w")]
    assert read(tmp_path, content) == expected


def test_a_lone_quote_does_not_swallow_the_lines_up_to_the_next_one(tmp_path):
    content = 'docid\ttitle\turl\na\t"Zed\tu\nb\tBand\tv\nc\tsong"\tw\n'
    assert read(tmp_path, content) == [(2, "a", '"Zed', "u"), (3, "b", "Band", "v"), (4, "c", 'song"', "w")]


def test_of_two_files_joined_each_field_is_read_as_it_was_written(tmp_path):
    content = 'docid\ttitle\turl\na\t"""Big"" news"\tu\nb\t5" disk\tv\nc\t"Zed\tw\nd\t"a\nb"\tx\n'
    assert [row[2] for row in read(tmp_path, content)] == ['"Big" news', '5" disk', '"Zed', "a\nb"]


def test_where_the_header_is_quoted_everything_is(tmp_path):
    content = '"docid"\t"title"\t"url"\n"a"\t"Moon"\t"u"\n"b"\t"5"" disk"\t"v"\n'
    assert read(tmp_path, content) == [(2, "a", "Moon", "u"), (3, "b", '5" disk', "v")]


def test_a_quoted_line_end_is_kept_as_it_stands_and_the_line_after_it_has_its_number(tmp_path):
    malformed = Malformed(1)
    found = read(tmp_path, b'docid\ttitle\turl\r\na\t"1\r\n2\n3"\tu\r\nbad\r\nb\tx\tv\r\n', malformed)
    assert found == [(2, "a", "1\r\n2\n3", "u"), (6, "b", "x", "v")]
    assert [(record.line, record.reason) for record in malformed.records] == [(5, "it has 1 columns, not 3")]


def test_a_record_that_is_never_closed_costs_one_line(tmp_path):
    malformed = Malformed(1)
    rest = "".join(f"{number}\tx\ty\n" for number in range(2 * MAX_RECORD_LINES))
    found = read(tmp_path, f'docid\ttitle\turl\na\t"never\n{rest}', malformed)
    assert len(found) == 2 * MAX_RECORD_LINES and found[0] == (3, "0", "x", "y")
    assert [record.line for record in malformed.records] == [2]


def test_lines_with_other_columns_or_other_bytes_are_malformed_and_blank_ones_nothing(tmp_path):
    malformed = Malformed(3)
    found = read(tmp_path, b"docid\ttitle\turl\na\tb\n\nc\td\te\tf\n\xff\tx\ty\ng\th\ti\n\n", malformed)
    assert found == [(6, "g", "h", "i")]
    assert [record.line for record in malformed.records] == [2, 4, 5]


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    assert read(tmp_path, "\ufeffdocid\ttitle\turl\na\tb\tc\n") == [(2, "a", "b", "c")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_named(tmp_path, encoding):
    with pytest.raises(MelError, match="docs.tsv is UTF-16: convert it to UTF-8"):
        read(tmp_path, "docid\ttitle\turl\n".encode(encoding))


def test_a_line_over_the_bound_is_malformed(tmp_path, monkeypatch):
    monkeypatch.setattr("mel.corpora.lines.MAX_LINE_BYTES", 1 << 16)
    malformed = Malformed(1)
    found = read(tmp_path, f"docid\ttitle\turl\na\t{'x' * (1 << 17)}\tu\nb\tc\td\n", malformed)
    assert found == [(3, "b", "c", "d")] and [record.line for record in malformed.records] == [2]


def test_a_missing_column_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(MelError, match="docs.tsv has no column title, url: its header must name docid, title, url"):
        read(tmp_path, "docid\tname\n")
    with pytest.raises(MelError, match="nowhere.tsv cannot be read: No such file"):
        list(read_table(tmp_path / "nowhere.tsv", COLUMNS, Malformed(0)))
