"""What was made from something else is refused with what changed, or made again: it and what was made from it."""

import json
import re
import shutil
import tarfile

import pytest

from mel.artifacts import Workdir
from mel.bin import prepare_data
from mel.types import MelError
from tests.configs import config_of, with_flags

ALL = ["tokens/tokenizer", "kb", "alias_table", "tokens/entities", "mentions/train", "tokens/mentions/train",
       "mentions/mewsli", "tokens/mentions/mewsli"]  # fmt: skip
FROM_KB = ALL[1:]
FROM_TOKENIZER = [ALL[0], *ALL[3:]]
TRAIN, MEWSLI = ALL[4:6], ALL[6:]


@pytest.fixture(scope="module")
def world(tiny_world, tmp_path_factory):
    """A folder of input that was prepared once, into `run`; to be copied."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "damuel" / "damuel_1.0_ar").mkdir(parents=True)
    with tarfile.open(tiny_world / "damuel" / "damuel_1.0_ar.tar") as tar:
        for member in (member for member in tar if "part-" in member.name):
            data = tar.extractfile(member).read()
            (folder / "damuel" / "damuel_1.0_ar" / member.name.split("/")[-1]).write_bytes(data)
    shutil.copytree(tiny_world / "mewsli" / "ar", folder / "mewsli" / "ar")
    shutil.copytree(tiny_world / "tokenizer", folder / "tokenizer")
    prepare_data.main(config_in(folder))
    return folder


@pytest.fixture
def folder(world, tmp_path):
    return shutil.copytree(world, tmp_path / "copy")


def config_in(folder, **flags):
    defaults = dict(
        workdir=str(folder / "run"), damuel=str(folder / "damuel"), mewsli=str(folder / "mewsli"), languages=("ar",),
        tokenizer=str(folder / "tokenizer"), mention_tokens=16, entity_tokens=16, workers=1,
    )  # fmt: skip
    return config_of(prepare_data.Config, **defaults | flags)


def made_again(folder):
    """The artefacts that are other folders than those of the copy."""
    return [name for name in ALL if not (folder / "run" / name / "old").exists()]


def mark(folder):
    for name in ALL:
        (folder / "run" / name / "old").touch()


def longer_part(folder):
    part = folder / "damuel" / "damuel_1.0_ar" / "part-00001"
    part.write_bytes(part.read_bytes() + b"\n" * 12)


def new_part(folder):
    parts = folder / "damuel" / "damuel_1.0_ar"
    shutil.copy(parts / "part-00000", parts / "part-00003")


def lost_part(folder):
    (folder / "damuel" / "damuel_1.0_ar" / "part-00002").unlink()


def other_row(folder):
    """Another gold, written with as many digits."""
    path = folder / "mewsli" / "ar" / "mentions.tsv"
    text = path.read_text("utf-8")
    last = re.search(r"\tQ\d*(\d)\t", text).start(1)
    path.write_text(f"{text[:last]}{(int(text[last]) + 1) % 10}{text[last + 1 :]}", "utf-8")


def longer_text(folder):
    path = sorted((folder / "mewsli" / "ar" / "text").iterdir())[0]
    path.write_text(path.read_text("utf-8") + " .", "utf-8")
    docs = folder / "mewsli" / "ar" / "docs.tsv"
    docs.unlink(missing_ok=True)


def other_tokenizer(folder):
    path = folder / "tokenizer" / "vocab.txt"
    *rest, last, other = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([*rest, other, last]) + "\n", "utf-8")


@pytest.mark.parametrize(
    "change, flags, words, again",
    [
        (longer_part, {}, "part-00001 of damuel_1.0_ar has 12 bytes more than when kb was made", FROM_KB),
        (new_part, {}, "part-00003 of damuel_1.0_ar is new since kb was made", FROM_KB),
        (lost_part, {}, "ar/part-00002 is gone since kb was made", FROM_KB),
        (other_row, {}, "ar/mentions.tsv of mewsli has another content than when mentions/mewsli was made", MEWSLI),
        (longer_text, {}, "ar/docs.tsv is gone since mentions/mewsli was made, and 1 more changed", MEWSLI),
        (other_tokenizer, {}, "tokens/tokenizer is another tokenizer than the one of --tokenizer", FROM_TOKENIZER),
        (None, {"kb_rows_by": "most_linked"}, "kb was made with --kb_rows_by=language, not most_linked", FROM_KB),
        (None, {"limit": 2}, "kb was made with --limit=0, not 2", FROM_KB),
        (None, {"entity_tokens": 24}, "tokens/entities was made with --entity_tokens=16, not 24", ["tokens/entities"]),
        (None, {"mention_tokens": 24}, "mentions/train was made with --mention_tokens=16, not 24", TRAIN + MEWSLI),
        (None, {"redirects": {"Q1": "Q2"}}, "kb was made with other --redirects", FROM_KB),
    ],
)  # fmt: skip
def test_a_change_is_refused_by_name_and_redo_makes_again_what_it_reaches(folder, change, flags, words, again, caplog):
    mark(folder)
    if change:
        change(folder)
    if "redirects" in flags:
        (folder / "redirects.json").write_text(json.dumps(flags["redirects"]))
        flags = {"redirects": str(folder / "redirects.json")}
    config = config_in(folder, **flags)
    with pytest.raises(MelError) as refusal:
        prepare_data.main(config)
    run = folder / "run"
    assert str(refusal.value) == (
        f"{words}: use another --workdir, or give --redo, which deletes {', '.join(again)} in {run} "
        "and makes again what is asked for."
    )
    assert made_again(folder) == []
    prepare_data.main(with_flags(config, redo=True))
    assert made_again(folder) == again
    assert words in caplog.text and all(name in caplog.text for name in again)
    mark(folder)
    prepare_data.main(config)
    assert made_again(folder) == []


def test_deleting_by_hand_what_the_refusal_lists_does_the_same(folder):
    mark(folder)
    with pytest.raises(MelError) as refusal:
        prepare_data.main(config_in(folder, mention_tokens=24))
    listed = re.search("deletes (.*) in ", str(refusal.value))[1].split(", ")
    for name in listed:
        shutil.rmtree(folder / "run" / name)
    prepare_data.main(config_in(folder, mention_tokens=24))
    assert made_again(folder) == listed == TRAIN + MEWSLI


def test_another_content_of_the_same_size_is_found_when_it_is_read(folder):
    part = folder / "damuel" / "damuel_1.0_ar" / "part-00001"
    data = part.read_bytes()
    qid = re.search(rb'"qid": ?"Q(\d+)"', data)
    part.write_bytes(
        data[: qid.start(1)] + (b"9" if data[qid.start(1)] != ord("9") else b"8") + data[qid.start(1) + 1 :]
    )
    prepare_data.main(config_in(folder))  # nothing is read
    for name in TRAIN:
        shutil.rmtree(folder / "run" / name)
    message = (
        "part-00001 of damuel_1.0_ar has another content than when kb was made: delete kb and run again with --redo"
    )
    with pytest.raises(MelError, match=message):
        prepare_data.main(config_in(folder))
    shutil.rmtree(folder / "run" / "kb")
    prepare_data.main(config_in(folder, redo=True))


def test_a_kb_that_was_deleted_by_hand_comes_back_as_it_was(folder):
    mark(folder)
    shutil.rmtree(folder / "run" / "kb")
    prepare_data.main(config_in(folder))
    assert made_again(folder) == ["kb", "alias_table"]


def test_an_unpacked_archive_is_the_same_and_a_split_that_is_not_asked_for_stays(folder):
    mark(folder)
    with tarfile.open(folder / "damuel" / "damuel_1.0_ar.tar", "w") as tar:
        tar.add(folder / "damuel" / "damuel_1.0_ar", "damuel_1.0_ar")
    shutil.rmtree(folder / "damuel" / "damuel_1.0_ar")
    prepare_data.main(config_in(folder, mewsli=""))
    assert made_again(folder) == []


def test_redo_deletes_a_split_that_nobody_asks_for_and_says_so_of_rounds_too(folder, caplog):
    new_part(folder)
    (folder / "run" / "rounds").mkdir()
    prepare_data.main(config_in(folder, mewsli="", redo=True))
    assert not Workdir(folder / "run").mentions("mewsli").exists()
    assert "mentions/mewsli, tokens/mentions/mewsli will be deleted, and not made again" in caplog.text
    assert "were made from what is made again: delete them" in caplog.text
