"""One bit that changes on disk is never believed: every file of every kind of artefact, by whoever reads it."""

import shutil

import pytest

from mel import checks
from mel.artifacts import MANIFEST, START, Workdir, open_artifact, read_manifest
from mel.bin import evaluate, link, mine_negatives, train
from mel.checks import CHECKS
from mel.systems.system import SystemConfig
from mel.types import MelError

TEXT = '{"id": "1", "language": "en", "text": "Anubis and Osiris", "spans": [[0, 6]]}\n'


def training(work):
    return train.Config(
        workdir=str(work.path), round=0, rounds=1, steps_per_round=2, batch_size=8, encoder="random:1x32x2"
    )


def evaluation(work, name, **system):
    return evaluate.Config(workdir=str(work.path), name=name, system=SystemConfig(**system))


def linking(work):
    (work.path / "texts.jsonl").write_text(TEXT)
    return link.Config(
        bundle=str(work.bundle), input=str(work.path / "texts.jsonl"), output=str(work.path / "links.jsonl")
    )


@pytest.fixture(scope="module")
def whole(calibrated, tmp_path_factory):
    """A working directory with an artefact of every kind."""
    work = Workdir(shutil.copytree(calibrated.path, tmp_path_factory.mktemp("whole") / "run"))
    mining = mine_negatives.Config(workdir=str(work.path), round=START, negatives_per_mention=2, pool=4, index="scann")
    mine_negatives.main(mining)
    train.main(training(work))
    evaluate.main(evaluation(work, "first", round=0))
    return work


def artefacts(work):
    return sorted(path.parent for path in work.path.rglob(MANIFEST))


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_every_kind_is_looked_at(whole):
    kinds = {read_manifest(path, "").kind for path in artefacts(whole)}
    assert kinds == {
        "kb", "alias table", "tokenizer", "mentions", "tokens", "row cache", "checkpoint", "embeddings", "index",
        "negatives", "report", "bundle", "twins",
    }  # fmt: skip


def test_a_flipped_bit_in_any_file_of_any_artefact_is_named(whole):
    looked_at = 0
    for path in artefacts(whole):
        artifact = read_manifest(path, "")
        for name in artifact.files:
            before = (path / name).read_bytes()
            if not before:
                continue
            flip_a_bit(path / name)
            with pytest.raises(MelError) as refused:
                open_artifact(path, artifact.kind).settle()
            assert str(refused.value).startswith(f"{path / name} is damaged, its content is not what was published: ")
            (path / name).write_bytes(before)
            looked_at += 1
        CHECKS.forget()
        open_artifact(path, artifact.kind).settle()
    assert looked_at > 100


# An artefact or a part of it, relative to a working directory, and a command that reads it.
READERS = {
    "kb": lambda work: evaluate.main(evaluation(work, "again", model="alias_table")),
    "alias_table": lambda work: evaluate.main(evaluation(work, "again", model="alias_table")),
    "mentions/mewsli": lambda work: evaluate.main(evaluation(work, "again", model="alias_table")),
    "tokens/mentions/mewsli": lambda work: evaluate.main(evaluation(work, "again", round=0)),
    "tokens/entities": lambda work: evaluate.main(evaluation(work, "again", round=START)),
    "tokens/tokenizer": lambda work: evaluate.main(evaluation(work, "again", model="olpeat", round=START)),
    "rounds/0/negatives": lambda work: train_again(work),
    "rounds/start/checkpoint/opt_state": lambda work: train_again(work),
    "rounds/start/checkpoint/params": lambda work: train_again(work),
    "rounds/0/checkpoint/params": lambda work: evaluate.main(evaluation(work, "again", round=0)),
    "rounds/0/embeddings/entities": lambda work: evaluate.main(evaluation(work, "again", round=0)),
    "rounds/start/index": lambda work: evaluate.main(evaluation(work, "again", round=START, index="scann")),
    "reports/first": lambda work: evaluate.main(evaluation(work, "first", round=0)),
    "bundle": lambda work: link.main(linking(work)),
    "bundle/index": lambda work: link.main(linking(work)),
}


def train_again(work):
    shutil.rmtree(work.round(0).checkpoint)
    shutil.rmtree(work.round(0).training)
    train.main(training(work))


@pytest.fixture
def work(whole, tmp_path):
    """A copy of it that a test may damage."""
    return Workdir(shutil.copytree(whole.path, tmp_path / "run"))


@pytest.mark.parametrize("when", ["when it is opened", "beside the work"])
@pytest.mark.parametrize("name", READERS)
def test_a_reader_refuses_what_is_damaged_names_it_and_publishes_nothing(work, name, when, monkeypatch):
    if when == "beside the work":  # as large files are
        monkeypatch.setattr(checks, "AT_ONCE", -1)
    path = work.path / name
    files = [file for file in path.rglob("*") if file.is_file() and file.name != MANIFEST]
    flip_a_bit(max(files, key=lambda file: file.stat().st_size))
    with pytest.raises(MelError) as refused:
        try:
            READERS[name](work)
        except Exception as error:  # a library has met nonsense
            assert isinstance(error, MelError) or when == "beside the work"
        CHECKS.settle()  # as a binary does in either case before it ends
    said = str(refused.value)
    assert f"{path}/" in said and "damaged" in said
    command = {"rounds/0/negatives": "mel-mine-negatives", "bundle/index": "mel-export or mel-update-bundle"}.get(name)
    assert command is None or f"run {command} again" in said
    assert not work.report("again").exists()
    assert not (work.path / "links.jsonl").exists()
    assert "train" not in READERS[name].__code__.co_names[0] or not work.round(0).checkpoint.exists()


@pytest.mark.parametrize("cache", ["mewsli", "entities", "train"])
def test_a_damaged_cache_changes_nothing(work, cache, caplog):
    checkpoint, report = (read_manifest(path, "") for path in (work.round(0).checkpoint, work.report("first")))
    (path,) = work.path.glob(f"cache/{cache}-*")
    flip_a_bit(path / "tokens.npy")
    shutil.rmtree(work.report("first"))
    shutil.rmtree(work.round(0).path / "embeddings")
    with caplog.at_level("WARNING", logger="absl"):
        train_again(work)
        evaluate.main(evaluation(work, "first", round=0))
    assert f"{path}/tokens.npy is damaged" in caplog.text
    assert read_manifest(work.round(0).checkpoint, "").digest == checkpoint.digest
    assert read_manifest(work.report("first"), "").digest == report.digest
