"""Every value is checked where it is made."""

import pytest

from mel.types import NIL, MarkedText, MelError, Mention, Span, document_of, format_qid, parse_qid


def test_qids_are_parsed_once_at_the_rim():
    assert parse_qid("Q42") == 42
    assert format_qid(parse_qid("Q2147483647")) == "Q2147483647"
    assert format_qid(NIL) == "NIL"


@pytest.mark.parametrize("text", ["", "Q", "42", "Q0", "q42", "Q-1", "Q4.2", "Q٤٢", "Q2147483648", 42, None])
def test_what_is_no_qid_is_refused_by_value(text):
    with pytest.raises(MelError, match="is not a QID"):
        parse_qid(text)


@pytest.mark.parametrize("bounds", [(3, 3), (3, 2), (-1, 2)])
def test_a_span_holds_something(bounds):
    with pytest.raises(MelError, match="0 <= start < end"):
        Span(*bounds)


def test_a_span_counts_code_points():
    assert Span(1, 3).of("a😀é") == "😀é"


def test_a_mention_lies_in_its_context():
    assert Mention("m", "ja", "東京タワー", Span(0, 2), 1490).surface_form == "東京"
    with pytest.raises(MelError, match="leaves its text of 5 characters"):
        Mention("m", "ja", "東京タワー", Span(3, 6), 1490)
    with pytest.raises(MelError, match="leaves its text"):
        MarkedText("abc", Span(0, 4))


@pytest.mark.parametrize(
    "mention_id, document",
    [("es-Q42-0", "es-Q42"), ("sr-1:15:1", "sr-1"), ("a:b-2:0:7", "a:b-2"), ("no place", "no place")],
)
def test_an_id_names_its_document(mention_id, document):
    assert document_of(mention_id) == document
