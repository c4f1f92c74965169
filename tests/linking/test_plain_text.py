"""Plain texts to links: the spans are the detector's, and of two that overlap the better link stays."""

import json
import shutil

import pytest

import mel
from mel.artifacts import START, Workdir
from mel.bin import export, link, prepare_data, update_bundle
from mel.linking.detection import surest
from mel.types import Link, MelError, NamedCandidate, Span
from tests.configs import config_of


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
    with pytest.raises(MelError, match="has no detector, .*: give spans, or export a bundle after mel-prepare-data"):
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
