"""Groups of mentions, each told by hand."""

import pytest

from mel.corpora import alias_table
from mel.corpora.alias_table import AliasTable
from mel.evaluation import breakdowns
from tests.evaluation.hand_made import KB, kb_of, mentions_of


@pytest.fixture
def table(tmp_path) -> AliasTable:
    links = {("Mond", "de", "Q1"): 3, ("Mond", "de", "Q2"): 1, ("Луна", "ru", "Q1"): 2}
    counts = alias_table.Counts(links, lemmas={}, names={("月", "ja", "Q7"): 1})
    alias_table.write(tmp_path, counts, {f"Q{n}": n for n in range(9)})
    return AliasTable.read(tmp_path)


def test_every_heading_by_hand(table):
    mentions = mentions_of(
        [1, 1, 7],
        surface_form=["mond", "Луна", "月"],
        frequency_bin=[0, 5, -1],
        in_references=[True, False, None],
        language=["de", "ru", "ja"],
    )
    kb = kb_of((1, "de", "Mond"), (7, "en", "Month"), (8, "ja", "月"))
    groups = breakdowns.group_mentions(mentions, table, kb, trained_on=("de", "ja"))
    assert groups == {
        "surface form in training": ["ambiguous", "unambiguous", "unseen"],
        "frequency bin": ["0", "10k+", "unknown"],
        "gold in references": ["yes", "no", "unknown"],
        "script": ["Latin", "Cyrillic", "Han"],
        "gold linked in training": ["linked", "linked", "never"],
        "surface form is the title": ["same", "other", "other"],
        "language in training": ["trained on", "not trained on", "trained on"],
    }
    assert list(groups) == list(breakdowns.GROUPS)
    for heading, names in groups.items():
        assert set(names) <= set(breakdowns.GROUPS[heading])


def test_a_heading_that_the_corpus_cannot_tell_is_left_out(table):
    groups = breakdowns.group_mentions(mentions_of([1]), table, KB)
    assert "frequency bin" not in groups and "gold in references" not in groups
    assert groups["script"] == ["Latin"]


def test_a_title_counts_in_any_language(table):
    kb = kb_of((1, "de", "Mond"), (1, "en", "MOON"), (2, "en", "Sun"))
    mentions = mentions_of([1, 1, 2, 3], surface_form=["moon", "MOND", "Mond", "Sun"])
    same = breakdowns.group_mentions(mentions, table, kb)["surface form is the title"]
    assert same == ["same", "same", "other", "other"]


@pytest.mark.parametrize(
    "text, script",
    [
        ("Straße 9", "Latin"), ("Ｗｅｂ", "Latin"), ("Београд", "Cyrillic"), ("東京", "Han"), ("佐々木", "Han"),
        ("スクーター", "Kana"), ("ﾃｽﾄ", "Kana"), ("ひらがな", "Kana"), ("東京タワー", "Kana"), ("東タ", "Han"),
        ("서울", "Hangul"), ("تهران", "Arabic"), ("दिल्ली", "Devanagari"), ("சென்னை", "Tamil"), ("Αθήνα", "other"),
        ("ABCДЕ", "Latin"), ("2022", "other"), ("🙂", "other"), ("", "other"),
    ],
)  # fmt: skip
def test_the_script_is_that_of_most_letters(text, script):
    assert breakdowns.script(text) == script


def test_groups_are_shown_in_the_order_of_their_frequencies():
    shown = breakdowns.in_order("frequency bin", ["10k+", "1k-9,999", "0", "10k+", "unknown", "1-9"])
    assert shown == ["0", "1-9", "1k-9,999", "10k+", "unknown"]
