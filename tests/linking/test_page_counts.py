"""What pages say of surface forms, and the detector that comes of it."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from mel.artifacts import Workdir, open_artifact
from mel.bin import prepare_data
from mel.linking.detection import Detector
from mel.linking.page_counts import THRESHOLDS, LinkedPage, count_pages, learn
from mel.types import MelError, Span
from tests.configs import config_of, with_flags
from tests.linking.test_forms import forms_of, trie_of

TRIE = trie_of("Paris", "New York", "York", "the")


def page(text, *links):
    return LinkedPage(text, frozenset(Span(text.index(link), text.index(link) + len(link)) for link in links))


def counted(*pages, held_out=()):
    everything = [*((each, False) for each in pages), *((each, True) for each in held_out)]
    return count_pages(everything, forms_of(TRIE), held_out_pages=2)


def counts_of(found):
    names = {TRIE.number(name): name for name in ("paris", "new york", "york", "the")}
    return {names[form]: pages.ravel().tolist() for form, pages in zip(found.forms.tolist(), found.pages, strict=True)}


def test_a_page_counts_once_and_what_is_inside_of_a_link_not_at_all():
    found = counted(
        page("Paris, Paris and the paris of the New York", "Paris", "New York"), page("New York. York", "York")
    )
    assert counts_of(found.counts) == {  # linked without and with a capital, found without and with one
        "paris": [0, 1, 1, 1], "the": [0, 0, 1, 0], "new york": [0, 1, 0, 1],
        "york": [0, 1, 0, 1],
    }  # fmt: skip


def test_inside_a_longer_link():
    assert counts_of(counted(page("the New York Times", "New York Times")).counts) == {"the": [0, 0, 1, 0]}


def test_held_out_pages_are_not_counted_and_only_so_many_are_kept():
    pages = [page("Paris the", "Paris"), page("York", "York"), page("the")]
    found = counted(held_out=pages)
    assert counts_of(found.counts) == {} and (found.held_out, found.links) == (2, 2)
    rows = zip(*(column.tolist() for column in found.occurrences), strict=True)
    paris, the, york = (TRIE.number(name) for name in ("paris", "the", "york"))
    assert list(rows) == [
        (0, 0, 5, paris, True, True), (0, 6, 9, the, False, False), (1, 0, 4, york, True, True),
    ]  # fmt: skip


def test_a_detector_worked_by_hand():
    pages = [page("Paris the", "Paris")] * 3 + [page("York the")] * 3
    held_out = [page("Paris the New York", "Paris"), page("Paris York", "York")]
    detector = learn(TRIE, np.array([True] * len(TRIE)), [("en", counted(*pages, held_out=held_out))])
    # "New York" was on no page: it is found on one and not linked there.
    assert detector.prior == (0.5, 0.25)
    # From .95 on there is Paris (linked on one page of two), from .25 on New York, too (not linked); it covers York
    # there. York (linked on the other page) was linked on none of three pages, "the" on none of six.
    both = zip(detector.measured["precision"], detector.measured["recall"], strict=True)
    at = dict(zip(THRESHOLDS, both, strict=True))
    assert at[0.9] == (1 / 2, 1 / 2) and at[0.2] == at[0.01] == (1 / 3, 1 / 2) and at[0.99] == at[0.9]
    assert detector.threshold == 0.7  # in the middle of .3 to .99, which are equally good
    assert detector.measured["pages"] == 2 and detector.measured["links"] == 2
    assert [span.of("the York, Paris") for span, _ in detector.spans("the York, Paris", "en")] == ["Paris"]


def test_without_held_out_pages_everything_is_detected():
    detector = learn(TRIE, np.array([True] * len(TRIE)), [("en", counted(page("the Paris", "Paris")))])
    assert detector.measured is None and detector.threshold == 0
    assert len(detector.spans("the Paris", "en")) == 2


@pytest.fixture(scope="module")
def prepared(tiny_world, tmp_path_factory):
    config = config_of(
        prepare_data.Config,
        workdir=str(tmp_path_factory.mktemp("detecting") / "run"), damuel=str(tiny_world / "damuel"),
        languages=("en", "ja"), tokenizer=str(tiny_world / "tokenizer"), mention_tokens=32, workers=1, held_out=0.2,
        detector=True,
    )  # fmt: skip
    prepare_data.main(config)
    return config


def test_a_prepared_detector_finds_what_pages_link(prepared):
    work = Workdir(prepared.workdir)
    artifact = open_artifact(work.detector, "detector", {"kb": open_artifact(work.kb, "kb")})
    detector = Detector.read(artifact.path)
    assert artifact.facts["forms"] == len(detector.forms.trie)
    for language in ("en", "ja"):
        lines = (work.mentions("train") / f"{language}.jsonl").read_text().splitlines()
        forms = {line["surface_form"] for line in map(json.loads, lines)}
        texts = [f"... {form}" for form in sorted(forms)]
        hits = [any(span.of(text) == text[4:] for span, _ in detector.spans(text, language, 0.0)) for text in texts]
        assert np.mean(hits) > 0.95
    assert max(detector.measured["precision"]) > 0.9


def test_a_detector_is_made_once_and_again_when_the_kb_is(prepared, tmp_path):
    work = Workdir(shutil.copytree(prepared.workdir, tmp_path / "run"))
    config = dataclasses.replace(prepared, workdir=str(work.path))
    before = open_artifact(work.detector, "detector")
    prepare_data.main(config)
    assert open_artifact(work.detector, "detector") == before
    other = with_flags(config, held_out=0.1, redo=True)
    prepare_data.main(dataclasses.replace(other, detector=False))
    with pytest.raises(MelError, match="detector was not made from the kb that is there: give --redo"):
        prepare_data.main(dataclasses.replace(other, redo=False))
    prepare_data.main(other)
    assert open_artifact(work.detector, "detector").inputs["kb"] == open_artifact(work.kb, "kb").digest


def test_own_documents_are_pages(tiny_world, tmp_path):
    text = "Hollin met Quince. The hollin is a tree."
    mentions = [
        {"id": f"{n}:{start}", "language": "en", "text": text, "start": start, "end": end, "entity": f"own:{entity}",
         "document": f"document {n}"}
        for n in range(40) for start, end, entity in ((0, 6, 1), (11, 17, 2))
    ]  # fmt: skip
    entities = [{"id": f"own:{n}", "language": "en", "title": name} for n, name in ((1, "Hollin"), (2, "Quince"))]
    for name, records in (("mentions", mentions), ("entities", entities)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    config = config_of(
        prepare_data.Config,
        workdir=str(tmp_path / "run"), entities=(str(tmp_path / "entities.jsonl"),),
        mentions=(str(tmp_path / "mentions.jsonl"),), tokenizer=str(tiny_world / "tokenizer"), mention_tokens=32,
        held_out=0.3, detector=True,
    )  # fmt: skip
    prepare_data.main(config)
    detector = Detector.read(Workdir(config.workdir).detector)
    assert 1 < detector.measured["pages"] < 39 and detector.measured["links"] == 2 * detector.measured["pages"]
    counts = detector.forms.counts(np.array([detector.forms.trie.number("hollin")]), "en")[0]
    pages = 40 - detector.measured["pages"]
    assert counts.tolist() == [[0, pages], [pages, pages]]  # linked with a capital only
    assert [span.of(text) for span, _ in detector.spans(text, "en")] == ["Hollin", "Quince"]
