import pytest

from mel.corpora.names import MAX_NAME_BYTES, check_language, check_name
from mel.types import MelError


@pytest.mark.parametrize("name", ["en-1", "es-55686", "ж" * (MAX_NAME_BYTES // 2), "..a", "a b", "n:5"])
def test_a_name_of_one_file_passes(name):
    assert check_name(name, "docid") == name


@pytest.mark.parametrize(
    "name, fault",
    [
        ("../../secret", "it holds '/'"),
        ("a\\b", "it holds"),
        ("a\0", r"it holds '\\x00'"),
        ("a\nb", "it holds"),
        ("..", "it names no file"),
        (".", "it names no file"),
        (" ", "it names no file"),
        ("", "it names no file"),
        ("ж" * 101, "it is longer than 200 bytes"),
    ],
)
def test_other_names_are_refused_with_the_fault(name, fault):
    with pytest.raises(MelError, match=f"^The docid .* cannot be used as a name: {fault}"):
        check_name(name, "docid")


def test_a_long_name_is_not_repeated_in_full():
    with pytest.raises(MelError) as error:
        check_name("x" * 100_000, "docid")
    assert len(str(error.value)) < 200 and "(100000 characters)" in str(error.value)


@pytest.mark.parametrize("language", ["en", "zh-min-nan", "be_tarask", "simple", "x1"])
def test_languages(language):
    assert check_language(language) == language


@pytest.mark.parametrize("language", ["../x", "", "-en", "e/n", "en\n", "en.tar", "ж", "x" * 300])
def test_no_languages(language):
    with pytest.raises(MelError, match="is not a language"):
        check_language(language)
