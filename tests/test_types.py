"""Every value is checked where it is made."""

import pytest

from mel.types import MarkedText, MelError, Mention, Span, id_order, parse_id, parse_qid


def test_qids_are_parsed_once_at_the_rim():
    assert parse_qid("Q42") == parse_qid("Q042") == "Q42"
    assert parse_qid("Q999999999999999999") == "Q999999999999999999"


def test_ids_are_ordered_by_their_number_and_others_after_them():
    names = ["Q10", "MESH:D1", "Q9", "Q1000000000000", "http://a/Q1", "Q"]
    assert sorted(names, key=id_order) == ["Q9", "Q10", "Q1000000000000", "MESH:D1", "Q", "http://a/Q1"]


@pytest.mark.parametrize(
    "text", ["", "Q", "42", "Q0", "q42", "Q-1", "Q4.2", "Q٤٢", "Q1" + 18 * "0", "Q1\n", "Q" + 5000 * "1", 42, None]
)
def test_what_is_no_qid_is_refused_by_value(text):
    with pytest.raises(MelError, match="is not a QID"):
        parse_qid(text)


def test_any_text_is_an_id_and_a_qid_is_one_kind():
    names = [" Q042 ", "MESH:D001", "http://x/Q042", "Q", "q042", "zwei Wörter", "🦊"]
    assert [parse_id(name) for name in names] == ["Q42", "MESH:D001", "http://x/Q042", "Q", "q042", "zwei Wörter", "🦊"]
    for name in ("", " ", "x" * 1001):
        with pytest.raises(MelError, match="is no id: 1 to 1000 are expected"):
            parse_id(name)


@pytest.mark.parametrize("bounds", [(3, 3), (3, 2), (-1, 2)])
def test_a_span_holds_something(bounds):
    with pytest.raises(MelError, match="0 <= start < end"):
        Span(*bounds)


def test_a_span_counts_code_points():
    assert Span(1, 3).of("a😀é") == "😀é"


def test_a_mention_lies_in_its_context():
    assert Mention("m", "ja", "東京タワー", Span(0, 2), "Q1490").surface_form == "東京"
    with pytest.raises(MelError, match="leaves its text of 5 characters"):
        Mention("m", "ja", "東京タワー", Span(3, 6), "Q1490")
    with pytest.raises(MelError, match="leaves its text"):
        MarkedText("abc", Span(0, 4))
