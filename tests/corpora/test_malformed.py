import pickle

import pytest

from mel.corpora.malformed import LOGGED, Malformed, MalformedRecord
from mel.types import MelError


def test_up_to_the_limit_is_counted_and_one_more_is_refused_with_its_place():
    malformed = Malformed(limit=2)
    malformed.add("part-00000", 3, "it is not JSON")
    malformed.add("part-00000", 7, "it has no lang")
    assert malformed.records == [
        MalformedRecord("part-00000", 3, "it is not JSON"),
        MalformedRecord("part-00000", 7, "it has no lang"),
    ]
    with pytest.raises(MelError, match=r"More than 2 records .* part-00001:9 \(no\)"):
        malformed.add("part-00001", 9, "no")


def test_the_first_records_are_logged_with_file_and_line(caplog):
    malformed = Malformed(limit=100)
    with caplog.at_level("WARNING", logger="absl"):
        for line in range(1, LOGGED + 6):
            malformed.add("a.tar:part-00000.xz", line, "it is not JSON")
    assert len(malformed) == LOGGED + 5
    assert len(caplog.messages) == LOGGED
    assert caplog.messages[0] == "a.tar:part-00000.xz:1: skipped a malformed record: it is not JSON"
    assert caplog.messages[-1].endswith("only counted")


def test_what_workers_found_is_merged_in_order_and_logged_once(caplog):
    with caplog.at_level("WARNING", logger="absl"):
        workers = [Malformed(limit=3, log=False) for _ in range(2)]
        workers[0].add("part-00000", 5, "a")
        workers[1].add("part-00001", 1, "b")
        workers[1].dropped["record of another language"] += 4
        assert not caplog.messages
        parent = Malformed(limit=3)
        for worker in workers:
            parent.merge(pickle.loads(pickle.dumps(worker)))
    assert [(record.place, record.line) for record in parent.records] == [("part-00000", 5), ("part-00001", 1)]
    assert parent.dropped == {"record of another language": 4}
    assert len(caplog.messages) == 2


def test_the_limit_holds_over_all_workers():
    parent, worker = Malformed(limit=1), Malformed(limit=1, log=False)
    worker.add("part-00000", 1, "a")
    parent.merge(worker)
    with pytest.raises(MelError, match="More than 1 records"):
        parent.merge(worker)
