"""Published rows: complete, marked, and shown only beside the data they are about."""

import pytest

from mel.reports import published

LANGUAGES = "ar de en es fa ja sr ta tr".split()


def report(dataset="Mewsli-9", languages=LANGUAGES, limit=0):
    return {"dataset": dataset, "by_language": dict.fromkeys(languages), "limit": limit}


def test_every_row_has_all_languages_and_a_source():
    rows = published.published_beside(report())
    assert len({row["system"] for row in rows}) == len(rows) == 5
    for row in rows:
        assert list(row["r@1"]) == [*LANGUAGES, "micro", "macro"]
        assert all(0.7 < value < 1 for value in row["r@1"].values())
        assert row["source"].keys() == {"title", "arxiv", "year"}
        # The figures are rounded to a digit of a percent or to a percent.
        macro = sum(row["r@1"][language] for language in LANGUAGES) / len(LANGUAGES)
        assert row["r@1"]["macro"] == pytest.approx(macro, abs=0.006)


@pytest.mark.parametrize(
    "other",
    [{"dataset": "MDN"}, {"dataset": ""}, {"languages": LANGUAGES[1:]}, {"languages": ["en"]}, {"limit": 10}],
)
def test_no_rows_beside_other_data(other):
    assert published.published_beside(report(**other)) == []


def test_the_order_of_the_languages_does_not_matter():
    assert published.published_beside(report(languages=LANGUAGES[::-1]))


def test_a_row_is_marked_as_published_and_unverified_where_it_is():
    rows = {row["system"]: row for row in published.published_beside(report())}
    assert published.label(rows["OLPEAT"]) == "OLPEAT (published)"
    assert published.label(rows["Model F+"]) == "Model F+ (published, unverified)"
    assert {name for name, row in rows.items() if row["unverified"]} == {
        "Model F+", "mGENRE with candidates and marginalisation",
    }  # fmt: skip


def test_where_each_figure_comes_from_is_said_and_who_has_none_is_named():
    rows = published.published_beside(report())
    said = {note.split(":")[0]: note for note in published.notes(rows)}
    assert len(said) == len(rows) + 1
    later = "README of the later code of the author of Multilingual Entity Linking Using Dense Retrieval (2025)"
    assert said["OLPEAT"] == f"OLPEAT: {later}. Trained on DaMuEL 2.0-dev."
    assert said["alias table (53 languages)"].endswith(f"{later}. Trained on DaMuEL 2.0-dev.")
    assert said["bi-encoder, after the thesis"].endswith("Its author marks these figures preliminary.")
    for name in ("Model F+", "mGENRE with candidates and marginalisation"):
        assert "Quoted from memory" in said[name] and "found in the paper's own text" in said[name]
    assert "arXiv 2106.07352" in said["MOLEMAN"] and said["MOLEMAN"].endswith("no table of it could be read.")
    assert published.notes([]) == []
