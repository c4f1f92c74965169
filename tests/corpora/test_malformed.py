import pickle

import pytest

from mel.corpora.malformed import FEW, LOGGED, Malformed, MalformedRecord
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


def read(malformed, well_formed, faults, source="a.tsv"):
    malformed.well_formed += well_formed
    for line in range(1, faults + 1):
        malformed.add(source, line, f"fault {line}")
    malformed.finish(source)


def test_both_bounds_and_the_first_reasons_are_named():
    malformed = Malformed(limit=3, share=0.4)
    with pytest.raises(MelError) as error:
        read(malformed, 0, 4)
    assert str(error.value) == (
        "More than 3 records are malformed, the last one at a.tsv:4 (fault 4), the first: a.tsv:1 (fault 1), "
        "a.tsv:2 (fault 2), a.tsv:3 (fault 3): repair the input, or allow more with --max_malformed (now 3) "
        "and --max_malformed_share (now 0.4)."
    )


def test_a_share_over_the_bound_is_refused_when_its_source_ends():
    read(Malformed(100), 8, 2)
    with pytest.raises(
        MelError, match=r"^3 of 11 records of a.tsv were malformed, more than a share of 0.2, the first"
    ):
        read(Malformed(100), 8, 3)
    read(Malformed(100, share=0.3), 8, 3)


def test_few_records_have_no_share():
    read(Malformed(100), FEW - 5, 4)
    with pytest.raises(MelError, match="5 of 10 records"):
        read(Malformed(100), FEW - 5, 5)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_source_of_which_nothing_can_be_used_is_always_refused(count):
    message = rf"{count} of {count} records of a.tsv were malformed, all of them, the first: a.tsv:1 \(fault 1\)"
    with pytest.raises(MelError, match=message):
        read(Malformed(100, share=1), 0, count)


def test_each_source_is_judged_by_itself():
    malformed = Malformed(100)
    read(malformed, 1000, 0, "large.tsv")
    with pytest.raises(MelError, match="9 of 12 records of small.tsv .* small.tsv:1"):
        read(malformed, 3, 9, "small.tsv")
    read(malformed, 3, 0, "next.tsv")


def test_what_workers_read_counts_for_the_share():
    parent = Malformed(100)
    for well_formed, faults in ((90, 0), (0, 9)):
        worker = Malformed(100, log=False)
        worker.well_formed = well_formed
        for line in range(faults):
            worker.add("part", line, "fault")
        parent.merge(worker)
    parent.finish("es")
    assert (parent.well_formed, len(parent)) == (90, 9)


def test_a_tally_says_what_was_read():
    malformed = Malformed(100)
    assert malformed.tally() == "0 records were read"
    malformed.well_formed += 3
    malformed.dropped["record of another language"] += 2
    malformed.add("a.tsv", 7, "no")
    assert malformed.tally() == (
        "1 of 4 records were malformed, the first: a.tsv:7 (no); 2 of 4 were dropped: record of another language"
    )


def test_a_long_reason_is_cut():
    malformed = Malformed(1)
    malformed.add("a.tsv", 1, "x" * 10_000)
    assert len(malformed.records[0].reason) == 300
