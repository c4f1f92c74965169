"""The scripts that compare a bundle with what was evaluated, and with other programs."""

import pytest

from experiments.benchmarks import raw_documents
from experiments.benchmarks.raw_documents import Agreement
from experiments.mdn import linker as mdn_linker
from mel.linking.linker import Text
from mel.types import MelError, Span


def test_the_linker_answers_as_the_fusion_does(calibrated, tiny_world, capsys):
    mdn_linker.main([f"--workdir={calibrated.path}", f"--mewsli={tiny_world / 'mewsli'}"])
    lines = dict(line.rsplit(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    first, same = (lines[name].split(" of ") for name in ("same first answer", "same first 10 in the same order"))
    assert first[0] == first[1] == same[0] == same[1] and int(first[1]) > 100
    assert lines["R@1 of mel.Linker"] == lines["R@1 of the evaluated system"]
    assert float(lines["greatest difference of scores"]) < 1e-5


def test_other_mentions_than_those_that_were_prepared_are_refused(calibrated, tiny_world, monkeypatch):
    monkeypatch.setattr(mdn_linker, "texts_of", lambda *_: [Text("The old mill.", [(4, 7)])])
    with pytest.raises(MelError, match="The tree holds other mentions"):
        mdn_linker.main([f"--workdir={calibrated.path}", f"--mewsli={tiny_world / 'mewsli'}"])


def test_the_table_of_four_programs():
    found = {"ru": (2, {name: Agreement(2e-7, 2) for name in (*raw_documents.PROGRAMS, raw_documents.UNRENDERED)})}
    assert raw_documents.tabulated(found)[2] == "| ru | 2 |" + " 2.0e-07, 2 same |" * 4


def test_an_unrendered_text_has_the_markers_only():
    assert raw_documents.marked(Text("the old mill", [Span(4, 7)])) == "the [M] old[M] mill"
