"""The page: self-contained, well-formed, escaped, right to left where that is right; and which errors it shows."""

import html.parser
import json
import re

import pytest

from mel.artifacts import Workdir
from mel.reports import page as pages
from mel.reports.comparison import Difference
from mel.reports.page import Other, choose_examples, page

VOID = {"meta", "br"}
OPTIONAL_END = {"p", "dt", "dd", "li", "tr", "th", "td", "thead", "tbody"}  # HTML closes these itself
EVIL = "<script>alert('1')</script>\"&"


def scores(mentions, first, interval=0.01):
    values = {"mentions": mentions, "r@1": first, "r@10": 0.96, "r@100": 0.98, "mrr": 0.9}
    return values | {"r@1_interval": [first - interval, first + interval]}


def without_mentions(values):
    return {name: value for name, value in values.items() if name != "mentions"}


def report(**changes):
    return {
        "name": "round-1", "model": "checkpoint", "round": 1, "search": "exact", "seed": 7, "dataset": "MDN, dev",
        "split": "mewsli", "languages": [], "limit": 0, "command": "mel-evaluate --workdir=W --name=round-1",
        "inputs": {}, "dropped": {"span outside its text": 4}, "mentions": 23754, "kb_coverage": 0.9876,
        "micro": without_mentions(scores(0, 0.881)), "macro": without_mentions(scores(0, 0.874)),
        "by_language": {"ar": scores(20000, 0.9), "fa": scores(3754, 0.8)},
        "breakdowns": {
            "surface form in training": {"ambiguous": scores(7000, 0.823), "unseen": scores(2000, 0.624)},
            "frequency bin": {"0": scores(100, 0.5), "10k+": scores(0, 0.0)},
        },
    } | changes  # fmt: skip


CALIBRATION = {
    "temperature": 1.25, "how": "two-fold over documents", "ece": 0.0123, "threshold": None,
    "risk_coverage": {"coverage": [0.01, 0.5, 1.0], "risk": [0.0, 0.025, 0.119]},
    "reliability": {"confidence": [0.2, 0.9], "accuracy": [0.25, 0.85], "mentions": [10, 90]},
    "thresholds": [{"precision": 0.9, "threshold": 0.44, "reached": 0.903, "coverage": 0.951}],
    "held_out": {"share": 0.1, "nil_mentions": 2311},
}  # fmt: skip
COSTS = [
    {"stage": "prepare", "seconds": 65.0, "runs": 1, "peak_memory_mb": 1893, "hardware": "2 x A"},
    {
        "stage": "train round 0", "seconds": 4000.0, "runs": 2, "peak_memory_mb": 900, "hardware": "2 x A",
        "tokens": 6000, "tokens_seconds": 3.0, "device": "1 x H100",
    },
]  # fmt: skip
CURVES = {0: [{"step": 1, "loss": 4.0, "accuracy": 0.25}, {"step": 2, "loss": 2.0, "accuracy": 0.5}]}


def prediction(number, rank=1, language="ar", group="unseen", surface_form=None, candidates=None):
    return {
        "id": f"m{number}", "language": language, "document": "d", "surface_form": surface_form or f"form {number}",
        "gold": "Q1", "rank": rank, "groups": {"surface form in training": group},
        "candidates": candidates or [["Q2", 0.9], ["Q1", 0.8], ["Q3", 0.7], ["Q4", 0.6]],
    }  # fmt: skip


def full_page():
    return page(
        report(calibration=CALIBRATION, tuned={"fusion_weight": 0.3}),
        others=[Other(report(name="round-0", round=0), Difference(5, 0.05, (0.04, 0.06))), Other(report(name="x"))],
        curves=CURVES,
        examples=[prediction(1), prediction(2, rank=-1, language="en")],
        contexts={"m1": ("NATO: وصل إلى ", "باريس", " يوم")},
        titles={"Q1": "باريس", "Q2": "Paris (mythology)"},
        costs=COSTS,
        origin={"on": "2026-02-03 04:05 UTC", "mel": "9.8.7"},
        settings={"seed": 7, "train_languages": ["ar", "en"], "bidirectional": True},
    )


class Outline(html.parser.HTMLParser):
    """Checks that elements nest; gathers elements with their attributes, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID | OPTIONAL_END:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert tag in OPTIONAL_END or self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def words(text):
    """What a reader sees, in one line."""
    return " ".join(" ".join(Outline(text[text.index("<header>") : text.index("</body>")]).texts).split())


def test_the_full_page_is_well_formed_self_contained_and_the_same_every_time():
    text = full_page()
    outline = Outline(text)
    assert text.startswith("<!DOCTYPE html>") and text == full_page()
    outside = re.findall(r"\S*//\S*", text)  # links that a reader may follow, and nothing that is loaded
    assert outside and all(re.fullmatch(r'href="https://www\.wikidata\.org/wiki/Q[123]"', one) for one in outside)
    assert "@import" not in text and "url(http" not in text
    assert not {tag for tag, _ in outline.elements} & {"script", "link", "img", "iframe", "object", "base"}
    addresses = [a[name] for tag, a in outline.elements if tag != "a" for name in ("href", "src") if name in a]
    assert addresses and all(address.startswith("#") for address in addresses)
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [svg["aria-label"] for svg in outline.named("svg")] == [
        "R@k by language", "R@k by frequency bin", "Loss and in-batch accuracy by step", "R@1 by round",
        "Risk by coverage", "Share of right answers by probability",
    ]  # fmt: skip


def test_it_says_what_it_is_about():
    said = words(full_page())
    assert "MDN, dev, split mewsli" in said and "checkpoint, round 1, exact search, seed 7" in said
    assert "(23,754 in all)" in said and "98.76%" in said and "4 span outside its text" in said
    assert "mel-evaluate --workdir=W --name=round-1" in said and "fusion weight: 0.3" in said
    assert "Made on 2026-02-03 04:05 UTC, mel 9.8.7" in said
    assert "--seed=7 --train_languages=ar,en --bidirectional=True" in said
    assert "R@1, micro 0.881 0.871–0.891" in said and "R@1, macro 0.874 0.864–0.884" in said
    assert "ar 20,000 0.900 0.890–0.910 0.960 0.980 0.900" in said
    assert "10k+ 0 – – – –" in said


def test_other_systems_stand_beside_it_with_their_differences():
    said = words(full_page())
    row = "0.881 0.871–0.891 0.823 0.624 0.960 0.980 0.900"
    assert f"round-1 this report {row} round-0 {row} +0.050 +0.040 to +0.060 x {row} By language" in said


def test_training_confidence_and_cost():
    said = words(full_page())
    assert "round last step loss there in-batch accuracy there 0 2 2.000 0.500" in said
    assert "ece 0.012" in said and "100.0% 11.9% 50.0% 2.5%" in said
    assert "90% 0.440 90.3% 95.1%" in said and "nil mentions 2311" in said
    assert "Hardware 2 x A Wall time 1:07:45 in all" in said
    assert "train round 0 1:06:40 2 900 MB 2,000 tokens 6000, device 1 x H100" in said
    assert "prepare 1:05 1 1,893 MB –" in said


def test_what_is_missing_is_left_out():
    said = words(page(report(breakdowns={}, round=None, seed=None, model="alias_table")))
    for heading in ("Systems", "published", "By kind", "Training", "Confidence", "Errors", "Cost"):
        assert heading not in said
    assert "alias_table, exact search Denominator" in said


def test_published_rows_stand_beside_all_of_mewsli9_only_and_are_marked():
    languages = "ar de en es fa ja sr ta tr".split()
    whole = report(dataset="Mewsli-9", by_language={language: scores(9, 0.5) for language in languages})
    said = words(page(whole))
    assert "OLPEAT (published) 0.901 0.891" in said and "Model F+ (published, unverified) 0.920" in said
    assert "arXiv 2011.02690" in said and "MOLEMAN" in said
    assert "published" not in words(page(whole | {"limit": 10}))


def test_everything_a_user_can_write_is_escaped():
    evil = report(
        name=EVIL, dataset=EVIL, command=EVIL, split=EVIL, dropped={EVIL: 1}, tuned={EVIL: EVIL},
        by_language={EVIL: scores(5, 0.5), "en": scores(5, 0.6)}, breakdowns={EVIL: {EVIL: scores(1, 0.5)}},
        calibration=CALIBRATION | {EVIL: EVIL},
    )  # fmt: skip
    example = prediction(EVIL, language=EVIL, group=EVIL, candidates=[[EVIL, 0.5]]) | {"document": EVIL}
    text = page(
        evil, others=[Other(evil)], examples=[example], contexts={example["id"]: (EVIL, EVIL, EVIL)},
        titles={EVIL: EVIL, "Q1": EVIL}, costs=[COSTS[0] | {"stage": EVIL, "hardware": EVIL, EVIL: EVIL}],
        origin={EVIL: EVIL}, settings={EVIL: EVIL},
    )  # fmt: skip
    assert "script" not in {tag for tag, _ in Outline(text).elements}
    assert "<script" not in text
    assert words(text).count(EVIL) > 15


def test_an_example_shows_context_gold_and_candidates():
    said = words(full_page())
    assert "NATO: وصل إلى باريس يوم" in said
    assert "1 Paris (mythology) Q2 0.900 2 باريس Q1 gold 0.800 3 Q3 0.700" in said and "Q4" not in said


@pytest.mark.parametrize(
    "rank, candidates, line",
    [
        (3, [["Q2", 0.9], ["Q3", 0.8], ["Q4", 0.7], ["Q1", 0.6]], "4 Q1 gold 0.600"),
        (40, [["Q2", 0.9], ["Q3", 0.8], ["Q4", 0.7], ["Q5", 0.6]], "41 Q1 gold –"),
        (-1, [["Q2", 0.9]], "– Q1 gold –"),
    ],
)
def test_the_gold_is_shown_wherever_it_is_ranked(rank, candidates, line):
    assert line in words(page(report(), examples=[prediction(1, rank, candidates=candidates)]))


@pytest.mark.parametrize("entity_id", ["Q1", "Q42", "Q899999999"])
def test_ids_of_wikidata_are_links(entity_id):
    text = page(report(), examples=[prediction(1, candidates=[[entity_id, 0.5]])])
    assert f'<a href="https://www.wikidata.org/wiki/{entity_id}" rel="noreferrer">{entity_id}</a>' in text


@pytest.mark.parametrize("entity_id", ["Q900000000", "Q9000000001", "MESH:D001", "Q0", "Q١", "Q1/../x", "http://a.b"])
def test_ids_of_others_are_not(entity_id):
    assert pages.wikidata_url(entity_id) == ""
    text = page(report(), examples=[prediction(1, candidates=[[entity_id, 0.5]])])
    assert f"<bdi>{entity_id}</bdi>" in text


@pytest.mark.parametrize(
    "left, right, whole",
    [
        ("alf a tree by the ", " of the riv", ("… a tree by the ", " of the …")),
        ("", "", ("", "")),
        ("東京都の", "にある", ("…東京都の", "にある…")),
        ("x" * 30 + " a ", " b " + "x" * 30, ("…" + "x" * 30 + " a ", " b " + "x" * 30 + "…")),
    ],
)
def test_excerpts_end_in_whole_words(left, right, whole):
    assert pages.whole_words(left, right) == whole


def test_language_and_direction_of_a_context_are_said():
    contexts = [attributes for attributes in Outline(full_page()).named("p") if attributes.get("class") == "context"]
    assert [(context["lang"], context["dir"]) for context in contexts] == [("ar", "rtl"), ("en", "auto")]


def test_examples_are_errors_spread_over_languages_and_groups():
    cells = [(language, group) for language in ("ar", "de", "en") for group in ("ambiguous", "unseen")]
    predictions = [
        prediction(f"{language}-{group}-{number}", number % 3, language, group)
        for language, group in cells
        for number in range(30)
    ]
    chosen = choose_examples(predictions, seed=0, count=6)
    assert [(error["language"], error["groups"]["surface form in training"]) for error in chosen] == cells
    three = choose_examples(predictions, seed=0, count=3)
    assert [error["language"] for error in three] == ["ar", "de", "en"]
    assert {error["groups"]["surface form in training"] for error in three} == {"ambiguous", "unseen"}
    assert all(error["rank"] != 0 for error in chosen)
    assert chosen == choose_examples(predictions, seed=0, count=6) != choose_examples(predictions, seed=1, count=6)


def test_a_language_without_more_errors_leaves_its_place_to_others():
    predictions = [prediction(0, language="ar"), *(prediction(number, language="en") for number in range(1, 9))]
    languages = [error["language"] for error in choose_examples(predictions, seed=0, count=5)]
    assert languages == ["ar", "en", "en", "en", "en"]
    assert len(choose_examples(predictions, seed=0, count=50)) == 9


def test_the_same_error_is_shown_once_and_no_error_is_no_example():
    assert len(choose_examples([prediction(n, surface_form="same") for n in range(5)], seed=0, count=5)) == 1
    assert choose_examples([prediction(1, rank=0)], seed=0, count=5) == []


def test_curves_are_read_by_round_without_a_line_that_is_being_written(tmp_path):
    work = Workdir(tmp_path)
    for number in (0, 1):
        work.round(number).training.mkdir(parents=True)
        lines = [json.dumps({"step": step + 2 * number, "loss": 1.0, "accuracy": 0.5}) + "\n" for step in (1, 2)]
        (work.round(number).training / "metrics.jsonl").write_text("".join(lines) + '{"step": 9')
    curves = pages.read_curves(work)
    assert {number: [line["step"] for line in lines] for number, lines in curves.items()} == {0: [1, 2], 1: [3, 4]}
    assert pages.read_curves(Workdir(tmp_path / "none")) == {}
