import json

import pytest

from mel.corpora.redirects import Redirects
from mel.types import MelError


def test_chains_are_followed_to_their_end_in_whatever_order_they_stand():
    pairs = [(900, 901), (901, 100), (7, 8), (902, 901)]
    for order in (pairs, pairs[::-1], pairs[2:] + pairs[:2]):
        redirects = Redirects(dict(order))
        assert [redirects.resolve(qid) for qid in (900, 901, 902, 7, 8, 100, 5)] == [100, 100, 100, 8, 8, 100, 5]
        assert len(redirects) == 4 and 902 in redirects and 100 not in redirects


def test_a_qid_that_is_its_own_target_was_not_moved():
    redirects = Redirects({1: 1, 2: 1})
    assert redirects.resolve(2) == 1 and 1 not in redirects


@pytest.mark.parametrize("leading", [{}, {9: 1}, {9: 8, 8: 2}])
def test_a_cycle_is_refused_by_name(leading):
    with pytest.raises(MelError, match="cycle of 3 QIDs, Q(1 → Q2 → Q3 → Q1|2 → Q3 → Q1 → Q2|3 → Q1 → Q2 → Q3)"):
        Redirects(leading | {1: 2, 2: 3, 3: 1})


def test_a_long_chain_takes_one_pass():
    chain = {number: number + 1 for number in range(1, 100_000)}
    assert {Redirects(chain).resolve(qid) for qid in (1, 50_000, 99_999)} == {100_000}


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "redirects.json"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + b'{"Q900": "Q901", "Q901": "Q100"}')
        assert Redirects.read(path).resolve(900) == 100
    assert len(Redirects.read("")) == 0


@pytest.mark.parametrize(
    "content, message",
    [
        ("[1]", "no JSON object of QIDs"),
        ('{"Q1": 2}', "no JSON object of QIDs.*2 is not a QID"),
        ('{"Q1": "2"}', "'2' is not a QID"),
        ('{"Q1": "Q2", "Q1": "Q3"}', "it says two things of 'Q1'"),
        (json.dumps({"Q1": "Q" + "9" * 5000}), "no JSON object of QIDs"),
        ('{"Q1": "Q2", "Q2": "Q1"}', "Redirects lead in a cycle of 2 QIDs"),
        ('{"Q1"', "no JSON object of QIDs"),
        ("[" * 100_000, "no JSON object of QIDs"),
    ],
)
def test_what_is_no_map_is_refused(tmp_path, content, message):
    (tmp_path / "redirects.json").write_text(content)
    with pytest.raises(MelError, match=message):
        Redirects.read(tmp_path / "redirects.json")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(MelError, match="nowhere.json is no JSON object of QIDs.*No such file"):
        Redirects.read(tmp_path / "nowhere.json")


def test_the_digest_is_that_of_what_is_moved_where():
    assert Redirects({900: 901, 901: 100}).digest == Redirects({901: 100, 900: 100, 5: 5}).digest
    assert Redirects({900: 901}).digest != Redirects({901: 900}).digest
