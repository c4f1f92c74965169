"""The linker answers as the system that was evaluated, whoever asks, and needs little to do so."""

import concurrent.futures
import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tokenizers

import mel
from mel.artifacts import START, Workdir
from mel.bin import export
from mel.corpora import mewsli
from mel.corpora.malformed import Malformed
from mel.encoder import embed
from mel.evaluation.evaluation_set import read_prepared
from mel.linking.linker import Linker, Text
from mel.systems.system import SystemConfig, open_system
from mel.text.marking import mark_mention
from mel.types import NIL_ID, Entity, Link, MelError, Mention, Span

LANGUAGES = ("en", "ru", "ar")
TEXT = "The red mill stands by the old bridge."


@pytest.fixture(scope="module")
def calibrated_linker(calibrated) -> Linker:
    return Linker.load(calibrated.bundle)


@pytest.fixture(scope="module")
def linker(exported) -> Linker:
    return Linker.load(exported.bundle)


def texts_of(tiny_world):
    """The pages of the test mentions, in the order in which they were prepared."""
    return [
        Text(document.text, [mention.span for mention in document.mentions], language, document.title)
        for language in LANGUAGES
        for document in mewsli.read_documents(tiny_world / "mewsli", language, Malformed(0))
    ]


SYSTEMS = {
    "fused": ({"fusion_weight": 0.02}, {"model": "fusion", "fusion_weight": 0.02}),
    "alone": ({"fusion_weight": 0.0}, {"model": "checkpoint"}),
    "fused, with contexts": (
        {"fusion_weight": 0.05, "contexts": True, "context_weight": 0.3},
        {"model": "fusion", "fusion_weight": 0.05, "context_weight": 0.3},
    ),
}


@pytest.mark.parametrize("settings, evaluated", SYSTEMS.values(), ids=SYSTEMS.keys())
def test_it_answers_as_the_evaluated_system_mention_by_mention(untrained, tiny_world, tmp_path, settings, evaluated):
    work = Workdir(shutil.copytree(untrained.path, tmp_path / "run"))
    export.main(export.Config(workdir=str(work.path), round=START, **settings))
    linker = Linker.load(work.bundle)
    kb = linker.bundle.kb
    mentions = read_prepared(work, "mewsli", kb, LANGUAGES)
    system, _ = open_system(SystemConfig(round=START, **evaluated), work, kb)
    ranking, _ = system.rank(mentions)

    found = [link for links in linker.link_batch(texts_of(tiny_world), top_k=20) for link in links]
    assert [link.surface_form for link in found] == mentions.surface_forms
    names = [[candidate.id for candidate in link.candidates] for link in found]
    assert names == [[kb.ids[entity] for entity in entities_k] for entities_k in ranking.entities_QK[:, :20]]
    scores = [[candidate.score for candidate in link.candidates] for link in found]
    np.testing.assert_allclose(scores, ranking.scores_QK[:, :20], atol=1e-6)
    assert all((link.id, link.title, link.description, link.score) == link.candidates[0] for link in found)


def test_a_link(linker):
    first, second = linker.link(TEXT, spans=[(4, 12), Span(31, 37)], language="ru", top_k=3)
    assert isinstance(first, Link) and (first.start, first.end, first.surface_form) == (4, 12, "red mill")
    assert (second.surface_form, second.probability, second.is_nil) == ("bridge", None, False)
    assert len(first.candidates) == 3 and len({candidate.id for candidate in first.candidates}) == 3
    assert (first.id, first.title, first.description, first.score) == first.candidates[0]
    scores = [candidate.score for candidate in first.candidates]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("language", ["en", "ru", "ar", "tlh", None])
def test_titles_and_descriptions_are_in_the_language_of_the_text_where_the_kb_has_one(linker, language):
    kb, descriptions = linker.bundle.kb, linker.bundle.descriptions
    (link,) = linker.link(TEXT, [(4, 12)], language, top_k=50)
    there = 0
    for candidate in link.candidates:
        rows = np.flatnonzero(kb.entities_E == kb.numbers_of([candidate.id])[0])
        by_language = {kb.languages[kb.languages_E[row]]: (kb.titles[row], descriptions[row]) for row in rows}
        first = next(by_language[language] for language in kb.languages if language in by_language)
        assert (candidate.title, candidate.description) == by_language.get(language, first)
        assert candidate.description
        there += language in by_language
    assert bool(there) == (language in LANGUAGES)


def test_a_batch_answers_as_each_text_alone(linker, tiny_world):
    texts = texts_of(tiny_world)[::20]
    together = linker.link_batch([*texts, Text("nothing here", ())])
    assert together[-1] == []
    for text, links in zip(texts, together, strict=False):
        for one, other in zip(linker.link(*text), links, strict=True):
            assert (one.start, one.id) == (other.start, other.id)
            assert one.score == pytest.approx(other.score, abs=1e-5)


def test_threads_get_the_same_answers_and_each_width_is_compiled_once(linker, tiny_world):
    texts = texts_of(tiny_world)[::9]
    compiled_before = embed._embed._cache_size()
    one_by_one = [linker.link(*text) for text in texts]
    widths = embed._embed._cache_size() - compiled_before
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        at_once = list(threads.map(lambda text: linker.link(*text), [*texts, *texts]))
    assert at_once == one_by_one * 2
    assert widths <= linker.bundle.max_tokens // 8
    assert embed._embed._cache_size() == compiled_before + widths


def test_what_is_withheld(calibrated_linker):
    (given,) = calibrated_linker.link(TEXT, [(4, 12)])
    assert 0 < given.probability < 1 and not given.is_nil
    (kept,) = calibrated_linker.link(TEXT, [(4, 12)], min_probability=given.probability - 1e-4)
    assert kept == given
    (withheld,) = calibrated_linker.link(TEXT, [(4, 12)], min_probability=given.probability + 1e-4)
    assert withheld.is_nil and (withheld.id, withheld.title, withheld.description) == ("NIL", "", "")
    assert (withheld.candidates, withheld.score) == (given.candidates, given.score)
    curve = {"threshold": [1.0, 0.0], "precision": [0.9, 0.2], "coverage": [0.1, 1.0]}
    bundle = calibrated_linker.bundle
    other = Linker(dataclasses.replace(bundle, calibration=dict(bundle.calibration) | {"precision_curve": curve}))
    for precision, is_nil in ((0.9, True), (0.21, True), (0.2, False)):
        assert other.link(TEXT, [(4, 12)], nil_precision=precision)[0].is_nil == is_nil
    with pytest.raises(MelError, match="the most is 0.9, where 10.0% .* Ask for less nil_precision, or for"):
        other.link(TEXT, [(4, 12)], nil_precision=0.95)


REFUSALS = {
    "no spans": ({"spans": None}, "This bundle has no detector, .*: give spans"),
    "no text": ({"text": b"The old mill"}, "A text of the type bytes cannot be linked: give a str."),
    "half a character": ({"text": "a\ud800"}, r"half a character at 1, '.ud800': decode it with errors='replace'"),
    "no sequence": ({"spans": 5}, "Spans 5 are no sequence: give pairs"),
    "outside": ({"spans": [(0, 99)]}, "Span 0:99 leaves its text of 38 characters"),
    "no pair": ({"spans": [3]}, "Span 3 is no pair of whole numbers"),
    "no numbers": ({"spans": [("a", "b")]}, "is no pair of whole numbers"),
    "backwards": ({"spans": [(5, 3)]}, "Span 5:3 is empty or negative"),
    "no candidates": ({"top_k": 0}, "A top_k of 0 is not possible: 1 to 100"),
    "too many": ({"top_k": 101}, "A top_k of 101 is not possible"),
    "above 1": ({"nil_precision": 95}, "nil_precision 95 is no share"),
    "half a candidate": ({"top_k": 1.5}, "A top_k of 1.5 is not possible"),
    "a share in letters": ({"nil_precision": "a"}, "nil_precision a is no share"),
    "no title": ({"title": None}, "A title of the type NoneType is none: give a str"),
    "no language": ({"language": 3}, "A language of the type int is none: give a str"),
    "not calibrated": ({"min_probability": 0.5}, "min_probability 0.5 needs a calibrated bundle"),
}


@pytest.mark.parametrize("options, message", REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(linker, options, message):
    with pytest.raises(MelError, match=message):
        linker.link(**{"text": TEXT, "spans": [(4, 12)]} | options)


def test_spans_may_be_an_array(linker):
    assert linker.link(TEXT, np.array([[4, 12], [31, 37]])) == linker.link(TEXT, [(4, 12), (31, 37)])
    assert linker.link(TEXT, np.zeros((0, 2), int)) == []


def test_one_text_is_no_batch_of_its_characters(linker):
    for one in (TEXT, Text(TEXT, [(4, 12)])):
        with pytest.raises(MelError, match="link_batch takes several texts: give a list of them, or call link."):
            linker.link_batch(one)


def test_a_precision_that_there_is_none_of_is_refused(exported):
    with pytest.raises(MelError, match="There is no precision 'float8': choose one of auto, float32, bfloat16"):
        Linker.load(exported.bundle, precision="float8")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(MelError, match="There is no bundle at"):
        Linker.load(tmp_path)


def test_entities_are_embedded_as_the_kb_was(linker):
    bundle, kb = linker.bundle, linker.bundle.kb
    rows = [0, 7, len(kb) - 1]
    entities = [
        Entity(kb.ids[kb.entities_E[row]], kb.languages[kb.languages_E[row]], kb.titles[row], bundle.descriptions[row])
        for row in rows
    ]
    np.testing.assert_allclose(linker.embed_entities(entities), bundle.evidence.embeddings_ED[rows], atol=1e-6)


def test_mentions_are_embedded_as_they_are_searched(linker):
    found_ND = linker.embed_mentions([Text(TEXT, [(4, 12), (31, 37)]), Text("Миль", [(0, 4)], "ru")])
    assert found_ND.shape == (3, linker.bundle.encoder.config.hidden_size)
    assert np.linalg.norm(found_ND, axis=1) == pytest.approx(1, abs=1e-5)
    evidence = linker.bundle.evidence
    alone = Linker(dataclasses.replace(linker.bundle, evidence=dataclasses.replace(evidence, table=None)))
    (link,) = alone.link(TEXT, [(31, 37)], top_k=1)
    assert link.score == pytest.approx((evidence.embeddings_ED @ found_ND[1]).max(), abs=1e-5)


def test_what_is_rendered_is_what_is_embedded(linker, exported, tiny_world):
    bundle = linker.bundle
    others = tokenizers.Tokenizer.from_file(str(exported.bundle / "encoder" / "tokenizer.json"))
    text = next(text for text in texts_of(tiny_world) if len(text.text) > 300)
    for span in text.spans:
        mention = Mention("", "", text.text, span, NIL_ID, title=text.title)
        (row,) = bundle.tokenizer.rows([mark_mention(mention, bundle.title_in_window)], bundle.max_tokens)
        rendered = linker.render(text.text, span, text.title)
        assert others.encode(rendered).ids == row.tolist() and rendered.startswith(f"{text.title}[SEP]")
    assert linker.render_entity("Mill", "It grinds.").startswith("[M]Mill[M]")


WITHOUT = (
    "tensorflow_datasets", "orbax", "optax", "matplotlib", "rdflib", "transformers", "tensorstore", "pyarrow", "scann",
    "requests", "jinja2", "torch", "scipy",
)  # fmt: skip


def test_linking_loads_nothing_that_trains_or_draws(exported):
    program = f"""
import sys
import mel
assert "jax" not in sys.modules and "numpy" not in sys.modules
linker = mel.Linker.load({str(exported.bundle)!r})
(link,) = linker.link({TEXT!r}, spans=[(4, 12)], language="en")
assert link.id.startswith("Q")
print(*[name for name in {WITHOUT!r} if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_the_first_lines_of_the_readme_run(exported, capsys):
    readme = (pathlib.Path(mel.__file__).parents[1] / "README.md").read_text("utf-8")
    program = re.search(r"```python\n(import mel\n.+?)```", readme, re.DOTALL)[1]
    assert len([line for line in program.splitlines() if line]) <= 5
    exec(program.replace('"run/bundle"', repr(str(exported.bundle))), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["Paris", "Seine"]


def test_the_package_names_what_programs_use():
    assert mel.Linker is Linker and mel.Text is Text and mel.MelError is MelError
    assert {"Linker", "Text", "Link"} <= set(dir(mel))
    with pytest.raises(AttributeError, match="module 'mel' has no attribute 'linker_of_dreams'"):
        mel.linker_of_dreams  # noqa: B018
