import json

import pytest

from mel.corpora.redirects import Redirects
from mel.types import MelError


def test_chains_are_followed_to_their_end_in_whatever_order_they_stand():
    pairs = [("Q900", "Q901"), ("Q901", "Q100"), ("Q7", "Q8"), ("Q902", "Q901")]
    for order in (pairs, pairs[::-1], pairs[2:] + pairs[:2]):
        redirects = Redirects(dict(order))
        ends = [redirects.resolve(qid) for qid in ("Q900", "Q901", "Q902", "Q7", "Q8", "Q100", "Q5")]
        assert ends == ["Q100", "Q100", "Q100", "Q8", "Q8", "Q100", "Q5"]
        assert len(redirects) == 4 and "Q902" in redirects and "Q100" not in redirects


def test_a_qid_that_is_its_own_target_was_not_moved():
    redirects = Redirects({"Q1": "Q1", "Q2": "Q1"})
    assert redirects.resolve("Q2") == "Q1" and "Q1" not in redirects


@pytest.mark.parametrize("leading", [{}, {"Q9": "Q1"}, {"Q9": "Q8", "Q8": "Q2"}])
def test_a_cycle_is_refused_by_name(leading):
    with pytest.raises(MelError, match="cycle of 3 QIDs, Q(1 → Q2 → Q3 → Q1|2 → Q3 → Q1 → Q2|3 → Q1 → Q2 → Q3):"):
        Redirects(leading | {"Q1": "Q2", "Q2": "Q3", "Q3": "Q1"})


def test_a_long_chain_ends_where_it_ends():
    redirects = Redirects({f"Q{number}": f"Q{number + 1}" for number in range(1, 20_000)})
    assert {redirects.resolve(f"Q{number}") for number in (1, 10_000, 19_999)} == {"Q20000"}


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "redirects.json"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + b'{"Q900": "Q901", "Q901": "Q100"}')
        assert Redirects.read(path).resolve("Q900") == "Q100"
    assert len(Redirects.read("")) == 0


@pytest.mark.parametrize(
    "content, message",
    [
        ("[1]", "no JSON object of QIDs"),
        ('{"Q1": 2}', "no JSON object of QIDs.*: 2 is not a QID"),
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
    step_by_step = Redirects({"Q900": "Q901", "Q901": "Q100"})
    assert step_by_step.digest == Redirects({"Q901": "Q100", "Q900": "Q100", "Q5": "Q5"}).digest
    assert Redirects({"Q900": "Q901"}).digest != Redirects({"Q901": "Q900"}).digest
