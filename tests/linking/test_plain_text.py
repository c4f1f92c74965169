"""Plain texts to links: the spans are the detector's, and of two that overlap the better link stays."""

import json
import shutil

import numpy as np
import pytest

import mel
from mel.artifacts import START, Workdir
from mel.bin import export, link, prepare_data, update_bundle
from mel.corpora.layers import LaterRows
from mel.corpora.strings import Strings
from mel.linking.detection import surest
from mel.linking.layers import Later, lost_names
from mel.types import Link, MelError, NamedCandidate, Span
from tests.configs import config_of
from tests.evaluation.hand_made import kb_of


@pytest.fixture(scope="module")
def detecting(tiny_world, untrained, tmp_path_factory) -> Workdir:
    """A working directory with a bundle that detects; no page was held out."""
    work = Workdir(shutil.copytree(untrained.path, tmp_path_factory.mktemp("detecting") / "run"))
    prepare_data.main(
        config_of(
            prepare_data.Config,
            workdir=str(work.path),
            damuel=str(tiny_world / "damuel"),
            mewsli=str(tiny_world / "mewsli"),
            languages=("en", "ru", "ar"),
            tokenizer=str(tiny_world / "tokenizer"),
            mention_tokens=32,
            title_in_window=True,
            workers=1,
            detector=True,
        )  # fmt: skip
    )
    export.main(export.Config(workdir=str(work.path), round=str(START)))
    return work


@pytest.fixture(scope="module")
def linker(detecting):
    return mel.Linker.load(detecting.bundle)


def text_of(work: Workdir, tiny_world) -> str:
    return (sorted((tiny_world / "mewsli" / "en" / "text").iterdir())[0]).read_text("utf-8")


def test_a_plain_text_is_linked_as_with_the_detected_spans(linker, detecting, tiny_world):
    text = text_of(detecting, tiny_world)
    spans = [span for span, _ in linker.bundle.detector.spans(text, "en")]
    assert len(spans) > 3
    assert linker.link(text, language="en") == linker.link(text, spans, "en")
    (plain, given) = linker.link_batch([mel.Text(text, None, "en"), mel.Text(text, spans[:2], "en")])
    assert plain[:2] == given and len(plain) == len(spans)
    assert len(linker.embed_mentions([mel.Text(text, spans, "en")])) == len(spans)


def test_a_text_without_mentions_has_no_links(linker):
    assert linker.link("") == [] and linker.link("xyzzy plugh", language="en") == []


def test_lines_without_spans_are_detected(detecting, tiny_world, tmp_path):
    text = text_of(detecting, tiny_world)
    lines = [{"id": 1, "language": "en", "text": text}, {"id": 2, "language": "en", "text": text, "spans": None}]
    lines.append({"id": 3, "language": "en", "text": text, "spans": []})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    link.main(link.Config(str(detecting.bundle), str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")))
    first, second, third = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert first["links"] == second["links"] != [] and third["links"] == []
    starts = [found["start"] for found in first["links"]]
    assert starts == sorted(starts)


def test_without_a_detector_plain_texts_are_refused(exported, tmp_path):
    linker = mel.Linker.load(exported.bundle)
    with pytest.raises(MelError, match="has no detector, .*: give spans, or make the bundle anew after mel"):
        linker.link("The red mill")
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": 1, "language": "en", "text": "The red mill"}\n')
    with pytest.raises(MelError, match="spans is missing, and the bundle has no detector"):
        link.main(link.Config(str(exported.bundle), str(source), str(tmp_path / "out.jsonl"), max_malformed=0))


def test_a_bundle_from_before_the_detector_is_not_taken_for_one_that_detects(detecting, exported, tmp_path):
    work = Workdir(shutil.copytree(detecting.path, tmp_path / "run"))
    export.main(export.Config(workdir=str(work.path), round=str(START)))  # as it is
    shutil.rmtree(work.bundle)
    shutil.copytree(exported.bundle, work.bundle)
    with pytest.raises(MelError, match="was made without the detector at .*: move it away or delete it"):
        export.main(export.Config(workdir=str(work.path), round=str(START)))


def test_names_of_entities_that_came_later_are_detected(detecting, tmp_path):
    entity = {
        "id": "own:1",
        "language": "en",
        "title": "Quince Bay",
        "description": "A bay.",
        "aliases": ["Quincehaven"],
    }
    (tmp_path / "new.jsonl").write_text(json.dumps(entity) + "\n")
    text = "They met at Quince Bay, called Quincehaven."

    def detected(bundle):
        return [link.surface_form for link in mel.Linker.load(bundle).link(text, language="en")]

    once, compact = str(tmp_path / "once"), str(tmp_path / "compact")
    update_bundle.main(
        config_of(update_bundle.Config, bundle=str(detecting.bundle), output=once, add=(str(tmp_path / "new.jsonl"),))
    )
    update_bundle.main(config_of(update_bundle.Config, bundle=once, output=compact, compact=True))
    assert "Quince Bay" not in detected(detecting.bundle)
    assert {"Quince Bay", "Quincehaven"} <= set(detected(once)) and detected(compact) == detected(once)


def entity_of(entity_id, title, *aliases):
    return {"id": entity_id, "language": "en", "title": title, "description": "A thing.", "aliases": list(aliases)}


def write(path, *records):
    path.write_text("".join(json.dumps(each) + "\n" if isinstance(each, dict) else each + "\n" for each in records))
    return (str(path),)


def update(bundle, output, **flags):
    update_bundle.main(config_of(update_bundle.Config, bundle=str(bundle), output=str(output), **flags))
    return output


def detected(bundle, text):
    return [span.of(text) for span, _ in mel.Linker.load(bundle).bundle.detector.spans(text, "en")]


def test_names_of_entities_that_were_removed_are_detected_no_more(detecting, tmp_path):
    text = "Quince Bay, the Quincehaven, lies at Vorlin Cape."
    new = entity_of("own:1", "Quince Bay", "Quincehaven"), entity_of("own:2", "Vorlin Cape", "QUINCEHAVEN")
    once = update(detecting.bundle, tmp_path / "once", add=write(tmp_path / "new.jsonl", *new))
    whole = update(once, tmp_path / "whole", compact=True)
    assert detected(whole, text) == ["Quince Bay", "Quincehaven", "Vorlin Cape"]
    gone = write(tmp_path / "gone.txt", "own:1")
    for number, bundle in enumerate((once, whole)):  # what came later, and what stands in the one layer
        fewer = update(bundle, tmp_path / f"fewer-{number}", remove=gone)
        assert detected(fewer, text) == ["Quincehaven", "Vorlin Cape"]  # the alias is another entity's, too
    compacted = update(fewer, tmp_path / "compacted", compact=True)
    assert detected(compacted, text) == ["Quincehaven", "Vorlin Cape"]
    other = write(tmp_path / "other.jsonl", entity_of("own:3", "Quince Bay"), entity_of("own:2", "Cape Vorlin"))
    again = detected(update(compacted, tmp_path / "again", add=other), text + " Cape Vorlin")
    assert again == ["Quince Bay", "Cape Vorlin"]  # what one is called no longer is not looked for either


def test_without_an_alias_table_titles_are_all_that_is_known():
    kb = kb_of((1, "en", "Mill"), (2, "de", "MILL"), (3, "en", "Storm"), (4, "de", "Straße"), (5, "de", "STRASSE"))
    hidden = LaterRows.none(kb)._replace(hidden_H=np.array([0, 2, 3], np.int32))
    assert lost_names(kb, Later(hidden, Strings.of([]), np.zeros((0, 2), np.float32)), None) == ["Storm"]


def test_what_pages_linked_to_removed_entities_alone_is_detected_no_more(detecting, tiny_world, tmp_path):
    linker, text = mel.Linker.load(detecting.bundle), text_of(detecting, tiny_world)
    before, table = detected(detecting.bundle, text), linker.bundle.evidence.table
    gone = table.meant_by(before[0])
    fewer = update(
        detecting.bundle, tmp_path / "fewer", remove=write(tmp_path / "gone", *(linker.bundle.kb.ids[n] for n in gone))
    )
    lost = {form for form in before if table.meant_by(form) <= gone}
    after = detected(fewer, text)
    assert before[0] in lost and lost.isdisjoint(after)
    assert [form for form in before if form not in lost] == [form for form in after if form in before]
    assert after == detected(update(fewer, tmp_path / "compact", compact=True), text)


def test_another_knowledge_base_has_a_detector_of_its_own_names(detecting, tiny_world, tmp_path):
    text = text_of(detecting, tiny_world)
    known = detected(detecting.bundle, text)[0]
    records = entity_of("own:1", "Quince Bay", "Quincehaven"), entity_of("own:2", known)
    other = update(detecting.bundle, tmp_path / "other", kb=write(tmp_path / "kb.jsonl", *records))
    text = f"{known} and Quince Bay, or Quincehaven"
    old, new = (mel.Linker.load(bundle).bundle.detector for bundle in (detecting.bundle, other))
    assert [span.of(text) for span, _ in new.spans(text, "en")] == [known, "Quince Bay", "Quincehaven"]
    probabilities = {span.of(text): probability for span, probability in new.candidates(text, "en")}
    assert probabilities[known] == {s.of(text): p for s, p in old.candidates(text, "en")}[known] != new.prior[1]
    assert probabilities["Quincehaven"] == new.prior[1]
    assert {link.id for link in mel.Linker.load(other).link(text, language="en")} <= {"own:1", "own:2"}


def test_a_precision_that_nobody_measured_is_refused(linker, detecting, tmp_path):
    with pytest.raises(MelError, match="no page was held out to measure it"):
        linker.link("The red mill", detection_precision=0.5)
    source = tmp_path / "in.jsonl"
    source.write_text("")
    config = link.Config(str(detecting.bundle), str(source), str(tmp_path / "out"), detection_precision=1.5)
    with pytest.raises(MelError, match="1.5 is no share"):
        link.main(config)


def test_of_overlapping_links_the_better_one_stays():
    def found(start, end, probability):
        return Link.of(Span(start, end), "x", (NamedCandidate("Q1", "", "", 0.5),), probability)

    links = [found(0, 8, 0.3), found(4, 8, 0.9), found(9, 12, None)]
    assert surest(links, None) == links
    assert surest(links, [0.8, 0.7, 0.1]) == links[1:]  # 8 x .24 and 4 x .63 characters
    assert surest(links, [0.8, 0.5, 0.1]) == [links[0], links[2]]  # 8 x .24 and 4 x .45
