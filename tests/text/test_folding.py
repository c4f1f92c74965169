"""Folded texts lead back to what they were made from; where something that is looked for may begin and end."""

import pytest

from mel.text.folding import fold, folded
from mel.types import Span


@pytest.mark.parametrize(
    "text, form",
    [
        ("PARIS", "paris"),
        ("Straße", "strasse"),
        ("STRASSE", "strasse"),
        ("ΟΔΟΣ οδός", "οδοσ οδόσ"),
        ("ＮＡＳＡ", "nasa"),
        ("cafe\u0301", "café"),
        ("ﾊﾟﾝ", "パン"),
        ("\u1112\u1161\u11ab", "한"),
        ("New\u00a0York\nCity", "new york city"),
        ("na\u00adme", "name"),
        ("می\u200cخواهم", "میخواهم"),
        ("\u200fعمان", "عمان"),
        ("x\ud800y", "x\ufffdy"),
        ("", ""),
    ],
)
def test_a_folded_text(text, form):
    assert fold(text) == form


@pytest.mark.parametrize("before", ["", "Straße ", "e\u0301\u00ad ", "ﬁ ㎏ ", "مر\u200cحبا ", "İ", "\U0001f600 "])
@pytest.mark.parametrize("form", ["New York", "STRASSE", "東京", "cafe\u0301", "ﬁsh", "ＡＢ", "한국", "\U0001f600x"])
def test_what_is_found_in_a_folded_text_leads_back_to_the_original(before, form):
    text = f"{before}{form} end"
    found = folded(text)
    start = found.text.rindex(fold(form))
    span = found.span(start, start + len(fold(form)))
    assert span == Span(len(before), len(before) + len(form)) and span.of(text) == form


def test_part_of_a_character_that_became_two_is_the_whole_character():
    found = folded("Straße")
    assert found.text[:5] == "stras" and found.span(0, 5).of("Straße") == "Straß"
    assert found.span(5, 6).of("Straße") == "ß"


@pytest.mark.parametrize(
    "text, starts",
    [
        ("a new-born x_y", ["a new", "new-b", "-born", "born ", "x_y"]),
        ("C++ .NET", ["c++ .", "++ .n", "+ .ne", ".net", "net"]),
        ("東京A都", ["東京a都", "京a都", "a都", "都"]),
        ("한국어 Web은", ["한국어 w", "web은", "은"]),
        ("हिन्दी में", ["हिन्दी"[:5], "में"]),
        ("ภาษา", ["ภาษา", "าษา", "ษา", "า"]),
    ],
)
def test_where_a_form_may_begin(text, starts):
    found = folded(text)
    assert [found.text[place : place + 5] for place in found.starts()] == starts


@pytest.mark.parametrize(
    "text, form, ends",
    [
        ("new york", "new", True),
        ("newest", "new", False),
        ("new_x", "new", False),
        ("new", "new", True),
        ("new,", "new", True),
        ("हिन्दी", "हिन्द", False),
        ("웹은", "웹", True),
        ("webは", "web", True),
        ("web3", "web", False),
        ("京都府", "京都", True),
    ],
)
def test_where_a_form_may_end(text, form, ends):
    assert folded(text).ends_at(len(form)) is ends
