import itertools
import pathlib
import random
from collections import Counter

import numpy as np
import pytest

from mel.corpora import alias_table
from mel.corpora.alias_table import AliasTable, Counts, count_aliases, count_lemmas
from mel.corpora.archives import find_archive, list_parts
from mel.corpora.damuel import read_pages
from mel.corpora.malformed import Malformed
from mel.corpora.mewsli import list_languages, read_documents
from mel.corpora.strings import hash_of
from mel.types import MelError, Mention, Span, id_order
from tests.evaluation.hand_made import kb_of

MDN = pathlib.Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mdn"

COUNTS = Counter(
    {
        ("Paris", "en", 90): 6,
        ("Paris", "en", 167): 2,
        ("Paris", "fr", 90): 1,
        ("Paris", "fr", 167): 3,
        ("paris", "fr", 300): 4,
        ("PARIS", "en", 90): 1,
        ("Łódź", "pl", 580): 2,
        ("tie", "de", 9): 1,
        ("tie", "en", 8): 1,
        ("tie", "en", 7): 1,
    }
)


def write(folder, counts):
    """Entities stand for their numbers."""
    return alias_table.write(folder, counts, {entity: entity for each in counts for _, _, entity in each})


def counted(links, lemmas=(), names=()):
    return Counts(Counter(links), Counter(lemmas), Counter(names))


@pytest.fixture
def table(tmp_path):
    assert write(tmp_path, counted(COUNTS)) == 7
    return AliasTable.read(tmp_path)


def test_mentions_are_counted_by_surface_form_language_and_gold():
    def mention(language, start, end, gold):
        return Mention("id", language, "Rio, rio", Span(start, end), gold)

    counts = count_aliases([mention("es", 0, 3, 1), mention("es", 0, 3, 1), mention("es", 5, 8, 2)])
    counts.update(count_aliases([mention("pt", 0, 3, 1), mention("es", 0, 3, 2)]))
    assert counts == {("Rio", "es", 1): 2, ("rio", "es", 2): 1, ("Rio", "pt", 1): 1, ("Rio", "es", 2): 1}


def test_lemmas_are_counted_where_there_are_any():
    def mention(lemma):
        return Mention("id", "es", "los ríos", Span(0, 8), 4, lemma=lemma)

    assert count_lemmas([mention("el río"), mention(""), mention("el río")]) == {("el río", "es", 4): 2}


def test_a_lemma_is_asked_for_last(tmp_path):
    write(tmp_path, counted({("ríos", "es", 1): 1}, {("Río", "es", 2): 3, ("río", "pt", 3): 1}))
    table = AliasTable.read(tmp_path)
    assert table.candidates("RÍOS", lemma="río") == ((1, 1.0),)
    assert table.candidates("riachos", lemma="río") == ((2, 0.75), (3, 0.25))
    assert table.candidates("riachos", "pt", lemma="río") == ((3, 1.0),)
    assert table.candidates("riachos") == table.candidates("riachos", lemma="lago") == ()


def test_a_prior_by_hand(tmp_path):
    links = {("Mond", "de", 1): 3, ("Mond", "en", 2): 6, ("mond", "nl", 3): 1}
    write(tmp_path, counted(links, names={("Mond", "de", 4): 1, ("mond", "de", 5): 1}))
    table = AliasTable.read(tmp_path)
    prior, outside = table.prior("Mond", "de", outside=0.5)
    # Names 4: (1 + .5) / 2; lower-cased 3 + 6 + 1 links; as it is 3 + 6; in German 3.
    assert prior[4] == pytest.approx(0.75 / 11 / 10 / 4)
    assert prior[3] == pytest.approx((1 + 0.25) / 11 / 10 / 4)
    assert prior[2] == pytest.approx((6 + (6 + 0.25) / 11) / 10 / 4)
    assert prior[1] == pytest.approx((3 + (3 + (3 + 0.25) / 11) / 10) / 4)
    assert outside == pytest.approx(0.5 / 2 / 11 / 10 / 4)
    assert 5 not in prior  # a name as it is comes before the same lower-cased
    assert table.prior("Mond", "de", with_names=False)[0].keys() == {1, 2, 3}
    assert table.prior("Sonne", "de", outside=0.5) == ({}, 0.5)


def test_a_prior_sums_to_one(table):
    prior, outside = table.prior("PARIS", "fr", outside=0.01)
    assert set(prior) == {90, 167, 300}
    assert sum(prior.values()) + 97 * outside == pytest.approx(1)


def test_one_link_in_the_own_language_outweighs_all_links_in_others(tmp_path):
    write(tmp_path, counted({("a", "de", 9): 1, ("a", "en", 1): 1000, ("a", "en", 9): 1, ("A", "en", 1): 1000}))
    prior = AliasTable.read(tmp_path).prior("a", "de")[0]
    assert prior[9] > prior[1] > 0


def test_titles_join_the_names(tmp_path):
    write(tmp_path, counted(COUNTS))
    table = AliasTable.read(tmp_path)
    table.add_titles(kb_of((5, "de", "Mond"), (5, "nl", "Mond"), (6, "en", "Mond")))
    assert table.prior("MOND", "de")[0] == {5: pytest.approx(2 / 4), 6: pytest.approx(1 / 4)}
    assert table.candidates("Mond") == () and table.ambiguity("Mond") == "unseen"
    assert "Mond" in table.surface_forms(with_names=True) and "Mond" not in table.surface_forms()


def test_the_exact_surface_form_comes_first_over_all_languages(table):
    assert table.candidates("Paris") == ((90, 7 / 12), (167, 5 / 12))
    assert table.candidates("paris") == ((300, 1.0),)


def test_a_language_has_its_own_counts(table):
    assert table.candidates("Paris", "fr") == ((167, 0.75), (90, 0.25))
    assert table.candidates("Łódź", "en") == ()


def test_a_surface_form_never_linked_is_looked_up_lower_cased(table):
    assert table.candidates("pARIS") == ((90, 8 / 17), (167, 5 / 17), (300, 4 / 17))
    assert table.candidates("PARIS", "fr") == ((300, 0.5), (167, 0.375), (90, 0.125))
    assert table.candidates("ŁÓDŹ") == ((580, 1.0),)


def test_the_smaller_number_wins_a_tie(table):
    assert [candidate.entity for candidate in table.candidates("tie")] == [7, 8, 9]


def test_ambiguity_is_that_of_the_lower_cased_form(table):
    assert table.ambiguity("paris") == table.ambiguity("PARIS") == "ambiguous"
    assert table.ambiguity("łódź") == "unambiguous"
    assert (table.ambiguity("Lodz"), table.candidates("Lodz")) == ("unseen", ())


def columns(folder, name="links"):
    """All lines of `links.npy` and its neighbours, and what the hashes find, as other programs would read them."""
    arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    strings, ends = arrays[name].tobytes(), arrays[f"{name}_ends"].tolist()
    strings = [strings[start:end].decode() for start, end in itertools.pairwise([0, *ends])]
    languages = arrays["alias_languages"].tobytes().decode()
    lines, line_ends = arrays[f"{name}_lines"].tolist(), arrays[f"{name}_line_ends"].tolist()
    found = {}
    for string, (start, end) in zip(strings, itertools.pairwise([0, *line_ends]), strict=True):
        found[string] = [(languages[2 * number : 2 * number + 2], *rest) for number, *rest in lines[start:end]]
    hashes = arrays[f"{name}_hashes"].tolist()
    assert hashes == sorted(hashes)
    assert [hash_of(strings[row].lower()) for row in arrays[f"{name}_rows"]] == hashes
    return found


def test_the_columns_are_sorted_and_do_not_depend_on_the_order_of_counting(tmp_path):
    for name, counts in [("a", COUNTS), ("b", dict(reversed(COUNTS.items())))]:
        (tmp_path / name).mkdir()
        write(tmp_path / name, counted(counts))
    assert list(columns(tmp_path / "a").items()) == [
        ("PARIS", [("en", 90, 1)]),
        ("Paris", [("en", 90, 6), ("en", 167, 2), ("fr", 167, 3), ("fr", 90, 1)]),
        ("paris", [("fr", 300, 4)]),
        ("tie", [("de", 9, 1), ("en", 7, 1), ("en", 8, 1)]),
        ("Łódź", [("pl", 580, 2)]),
    ]
    assert np.load(tmp_path / "a" / "linked.npy").tolist() == [7, 8, 9, 90, 167, 300, 580]
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_missing_or_damaged_file_is_refused(tmp_path):
    with pytest.raises(MelError, match=r"The alias table .* cannot be read: No such file"):
        AliasTable.read(tmp_path)
    write(tmp_path, counted(COUNTS))
    (tmp_path / "links_lines.npy").write_bytes(b"x")
    with pytest.raises(MelError, match=f"{tmp_path} is damaged"):
        AliasTable.read(tmp_path)
    np.save(tmp_path / "links_lines.npy", np.zeros(7))
    with pytest.raises(MelError, match=f"{tmp_path} is damaged .the columns do not belong together"):
        AliasTable.read(tmp_path)


def test_an_empty_table_knows_nothing(tmp_path):
    write(tmp_path, counted({}))
    table = AliasTable.read(tmp_path)
    assert table.candidates("a") == () and table.prior("a", "de") == ({}, 0.0) and table.ambiguity("a") == "unseen"
    assert table.surface_forms(with_names=True) == [] and table.aliases_in("de") == [] == table.called("a", "de")
    assert table.is_linked([0, 3]).tolist() == [False, False]


def test_which_entities_were_linked(table):
    assert table.is_linked(np.array([90, 91, 580, 581, 0, 7])).tolist() == [True, False, True, False, False, True]


def test_nothing_but_what_is_asked_for_is_read(tmp_path):
    """The strings of forms that nobody asked for are never decoded, whatever they hold."""
    write(tmp_path, counted(COUNTS))
    table = AliasTable.read(tmp_path)
    strings = np.load(tmp_path / "links.npy")
    start = strings.tobytes().index("Łódź".encode())
    strings[start:] = 0xFF  # no UTF-8
    np.save(tmp_path / "links.npy", strings)
    table = AliasTable.read(tmp_path)
    assert table.candidates("Paris")[0].entity == 90 and table.ambiguity("nobody") == "unseen"
    with pytest.raises(UnicodeDecodeError):
        table.candidates("Łódź")


class Dictionaries:
    """What the table answered when it stood in dictionaries: the answers that the columns have to give."""

    def __init__(self, counts, titles):
        self.links, self.lemmas, self.names = ({} for _ in range(3))
        for rows, count in zip((self.links, self.lemmas, self.names), counts, strict=True):
            for (string, language, entity), n in sorted(
                count.items(), key=lambda item: (*item[0][:2], -item[1], item[0])
            ):
                rows.setdefault(string, []).append((language, entity, n))
        for entity, language, title in titles:
            self.names.setdefault(title, []).append((language, entity, 1))

    @staticmethod
    def exact(rows, string, language=None):
        counts = Counter()
        for of_row, entity, n in rows.get(string, []):
            counts.update({entity: n} if language in (None, of_row) else {})
        return counts

    def lower(self, rows, string, language=None):
        strings = [each for each in rows if each.lower() == string.lower()]
        return sum((self.exact(rows, each, language) for each in strings), Counter())

    def candidates(self, string, language, lemma):
        counts = self.exact(self.links, string, language) or self.lower(self.links, string, language)
        counts = counts or self.lower(self.lemmas, lemma, language)
        best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple((entity, count / counts.total()) for entity, count in best)

    def prior(self, string, language, lemma, with_names, outside):
        names = self.exact(self.names, string) or self.lower(self.names, string) if with_names else Counter()
        levels = [names, self.lower(self.lemmas, lemma), self.lower(self.links, string), self.exact(self.links, string)]
        prior = {}
        for counts in (*levels, self.exact(self.links, string, language)):
            prior = {e: (counts[e] + prior.get(e, outside)) / (counts.total() + 1) for e in prior | counts}
            outside /= counts.total() + 1
        return prior, outside

    def aliases_in(self, language):
        found = {}
        for string in sorted({*self.links, *self.names}):
            links, names = (self.exact(rows, string, language) for rows in (self.links, self.names))
            if links or names:
                found[string] = sorted(links | names, key=lambda entity: (-links[entity], entity))
        return found


@pytest.mark.parametrize("seed", range(8))
def test_the_columns_answer_as_dictionaries_do(tmp_path, seed):
    draw = random.Random(seed)
    letters = ["a", "A", "ß", "SS", "İ", "i̇", "ﬁ", "FI", "🦊", "Σ", "ς", ""]
    strings = ["".join(draw.choices(letters, k=2)) for _ in range(25)]
    languages = ["de", "en", "zh", "tr"]

    def drawn(how_many):
        keys = [(draw.choice(strings), draw.choice(languages), draw.randrange(1, 9)) for _ in range(how_many)]
        return Counter({key: draw.randrange(1, 5) for key in keys})

    counts = Counts(drawn(60), drawn(20), drawn(20))
    titles = [(draw.randrange(1, 9), language, draw.choice(strings)) for language in languages[:2] for _ in range(9)]
    titles = list({title[:2]: title for title in titles}.values())
    write(tmp_path, counts)
    table, expected = AliasTable.read(tmp_path), Dictionaries(counts, titles)
    table.add_titles(kb_of(*titles))
    for string in [*strings, "aa", "nobody"]:
        for language in (*languages, "xx"):
            lemma, outside = draw.choice(strings), draw.choice([0.0, 0.01])
            assert table.candidates(string, language, lemma) == expected.candidates(string, language, lemma)
            assert table.candidates(string, None, lemma) == expected.candidates(string, None, lemma)
            for with_names in (False, True):
                asked = string, language, lemma, with_names, outside
                found, other = table.prior(*asked)
                assert (list(found.items()), other) == (
                    list(expected.prior(*asked)[0].items()),
                    expected.prior(*asked)[1],
                )
        seen = len(expected.lower(expected.links, string))
        assert table.ambiguity(string) == ("unseen", "unambiguous", "ambiguous")[min(seen, 2)]
    for language in (*languages, "xx"):
        found = {alias: table.called(alias, language) for alias in table.aliases_in(language)}
        assert list(found.items()) == list(expected.aliases_in(language).items())
    assert table.surface_forms() == sorted(expected.links)
    assert table.surface_forms(with_names=True) == sorted({*expected.links, *expected.names})
    linked = {entity for _, _, entity in counts.links}
    assert [n for n in range(20) if table.is_linked([n])[0]] == sorted(linked)


@pytest.mark.slow
@pytest.mark.skipif(not MDN.exists(), reason=f"there is no MDN collection at {MDN}")
def test_recall_on_the_dev_mentions_of_mdn(tmp_path):
    counts, malformed = Counter(), Malformed(0)
    languages = list_languages(MDN / "mewsli" / "dev")
    for language in languages:
        for part in list_parts(find_archive(MDN / "damuel", language)):
            for page in read_pages(part, language, malformed):
                counts.update(count_aliases(page.mentions))
    ids = sorted({name for _, _, name in counts}, key=id_order)
    alias_table.write(tmp_path, counted(counts), {name: number for number, name in enumerate(ids)})
    table = AliasTable.read(tmp_path)

    mentions, right = Counter(), Counter()
    for language in languages:
        for document in read_documents(MDN / "mewsli" / "dev", language, malformed):
            for mention in document.mentions:
                ambiguity = table.ambiguity(mention.surface_form)
                candidates = table.candidates(mention.surface_form)
                assert (ambiguity == "unseen") == (not candidates)
                mentions[ambiguity] += 1
                right[ambiguity] += bool(candidates) and ids[candidates[0].entity] == mention.gold
    # The same computed directly from the archives, by a script that shares no code with this package.
    assert mentions.total() == 23754
    assert right.total() / mentions.total() == pytest.approx(0.82037, abs=1e-5)
    assert mentions["unseen"] / mentions.total() == pytest.approx(0.10356, abs=1e-5)
    assert mentions["ambiguous"] / mentions.total() == pytest.approx(0.29515, abs=1e-5)
    assert right["ambiguous"] / mentions["ambiguous"] == pytest.approx(0.77678, abs=1e-5)
