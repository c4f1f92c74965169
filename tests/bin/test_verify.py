"""Everything published is listed with what it was made from, and whatever is amiss is found and named."""

import json
import shutil
import subprocess
import sys

import pytest

from mel.artifacts import START, Workdir, discard, open_artifact, publish, read_manifest, remove_files
from mel.bin import verify
from mel.types import MelError
from mel.verification import verify as findings_in
from mel.workdir import PLACES


@pytest.fixture
def work(calibrated, tmp_path) -> Workdir:
    """A copy that a test may write to."""
    return Workdir(shutil.copytree(calibrated.path, tmp_path / "run"))


def found(folder):
    return {finding.path: finding for finding in findings_in(folder)}


def run(**config):
    verify.main(verify.Config(**config))


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_every_artefact_is_sound_and_its_chain_leads_to_the_archives(work, capsys):
    run(workdir=str(work.path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| artefact | kind | digest | MB | made from | state |"
    assert {line.split(" | ")[-1] for line in lines[2:]} == {"sound |"}
    listed = found(work.path)
    assert {"kb", "alias_table", "tokens/entities", "rounds/start/checkpoint", "bundle", "bundle/index"} < set(listed)
    assert listed["kb"].made_from == ()
    assert listed["tokens/entities"].made_from == ("kb: kb", "tokenizer: tokens/tokenizer")
    assert listed["rounds/start/checkpoint"].made_from == (
        "entity_tokens: tokens/entities", "mention_tokens: tokens/mentions/train",
    )  # fmt: skip
    assert "embeddings: rounds/start/embeddings/entities" in listed["bundle"].made_from
    kb = open_artifact(work.kb, "kb")
    megabytes = sum(file["bytes"] for file in kb.files.values()) / 1e6
    assert f"| kb | kb | {kb.digest[:12]} | {megabytes:.1f} | – | sound |" in lines


def test_what_is_damaged_missing_or_too_many_is_amiss(work, capsys):
    flip_a_bit(work.kb / "entities.jsonl")
    (work.alias_table / "names_lines.npy").unlink()
    (work.mentions("mewsli") / "fr.jsonl").write_text("")
    flip_a_bit(work.bundle / "index" / "embeddings.npy")
    flip_a_bit(work.tokenizer / "manifest.json")
    with pytest.raises(MelError) as refused:
        run(workdir=str(work.path))
    assert [finding.path for finding in findings_in(work.path) if finding.amiss] == [
        "alias_table", "bundle", "bundle/index", "kb", "mentions/mewsli", "tokens/tokenizer",
    ]  # fmt: skip
    said = str(refused.value)
    assert said.startswith("6 of ")
    assert f"kb: entities.jsonl is not as it was published: delete {work.kb} and run mel-prepare-data again." in said
    assert "alias_table: names_lines.npy is missing: " in said
    assert "mentions/mewsli: fr.jsonl was not published with it: " in said
    assert f"bundle/index: embeddings.npy is not as it was published: delete {work.bundle} and run mel-export" in said
    assert "tokens/tokenizer: " in said and "manifest.json is damaged: " in said
    assert "| entities.jsonl is not as it was published |" in capsys.readouterr().out


def test_what_was_made_from_something_else_than_stands_there_is_amiss_and_what_is_gone_is_not(work):
    discard(work.round(START).entity_embeddings)
    listed = found(work.path)
    assert not any(finding.amiss for finding in listed.values())
    assert any(name.endswith(", which is not here") for name in listed["bundle"].made_from)
    discard(work.kb)
    with publish(work.kb, "kb") as draft:
        (draft / "entities.jsonl").write_text("another")
    listed = found(work.path)
    assert listed["tokens/entities"].amiss == ("it was made from another kb than that in kb",)
    assert listed["kb"].amiss == () and listed["tokens/tokenizer"].amiss == ()


def test_of_what_was_removed_the_chain_is_whole(work, capsys):
    path = work.round(START).entity_embeddings
    before = found(work.path)["bundle"].made_from
    remove_files(path)
    run(workdir=str(work.path))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "| rounds/start/embeddings/entities |" in line]
    assert line.endswith("| removed |") and " | 0.0 | " in line
    assert found(work.path)["bundle"].made_from == before and "embeddings: rounds/start/embeddings/entities" in before
    (path / "embeddings.npy").write_bytes(b"left")
    (path / "stranger").write_bytes(b"")
    assert found(work.path)["rounds/start/embeddings/entities"].amiss == (
        "embeddings.npy was to be removed", "stranger was not published with it",
    )  # fmt: skip
    remove_files(path)
    assert not any(finding.amiss for finding in findings_in(work.path))


def test_a_bundle_alone_is_verified_wherever_it_is(work, tmp_path, capsys):
    shutil.move(work.bundle, tmp_path / "elsewhere")
    run(bundle=str(tmp_path / "elsewhere"))
    assert "| . | bundle | " in capsys.readouterr().out
    flip_a_bit(tmp_path / "elsewhere" / "encoder" / "model.safetensors")
    with pytest.raises(MelError, match=r"1 of 2 are amiss. \.: encoder/model.safetensors is not as it was published"):
        run(bundle=str(tmp_path / "elsewhere"))


def test_what_stands_beside_the_artefacts_of_a_round_is_read_too(work):
    training = work.round(0).training
    (training / "checkpoints" / "2").mkdir(parents=True)
    (training / "settings.json").write_text("[]")
    (training / "metrics.jsonl").write_text('{"step": 1}\n{"step": \n{"step": 3}\n{"ste')
    with pytest.raises(MelError) as refused:
        run(workdir=str(work.path))
    said = str(refused.value)
    assert "rounds/0/training/checkpoints/2: digests.json is missing: run the same command again" in said
    assert f"rounds/0/training/metrics.jsonl: {training}/metrics.jsonl:2 is damaged (Expecting value" in said
    assert "settings.json is damaged, it holds no JSON object" in said
    (training / "metrics.jsonl").write_text('{"step": 1}\n{"ste')  # a killed process leaves that
    with pytest.raises(MelError) as refused:
        run(workdir=str(work.path))
    assert "metrics.jsonl" not in str(refused.value)


def test_drafts_and_another_process_are_left_alone(work):
    before = sorted(work.path.rglob("*"))
    (work.path / ".draft-other" / "inner").mkdir(parents=True)
    (work.path / ".draft-other" / "manifest.json").write_text("{")
    with publish(work.path / "being-written", "thing"):
        assert "being-written" not in found(work.path)
    shutil.rmtree(work.path / ".draft-other", ignore_errors=True)
    shutil.rmtree(work.path / "being-written")
    assert sorted(work.path.rglob("*")) == before


def test_what_cannot_be_verified_is_a_sentence(tmp_path):
    for config, said in (
        ({}, "Either --workdir or --bundle has to be given"),
        ({"workdir": "a", "bundle": "b"}, "Either --workdir or --bundle has to be given"),
        ({"workdir": str(tmp_path / "no")}, "There is no folder"),
        ({"workdir": str(tmp_path)}, "holds nothing that was published"),
    ):
        with pytest.raises(MelError, match=said):
            run(**config)


def test_the_exit_status_tells(work):
    command = [sys.executable, "-m", "mel.bin.verify", f"--workdir={work.path}"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    manifest = json.loads((work.kb / "manifest.json").read_bytes())
    (work.kb / "manifest.json").write_text(json.dumps(manifest | {"digest": "0" * 64}))
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    last_line = ended.stderr.splitlines()[-1]
    assert last_line.endswith(f"manifest.json is damaged: delete {work.kb} and run the command that made it again.")


def test_checkpoints_by_step_of_a_round_that_is_published_are_nobodys_concern(work, capsys):
    steps = work.round(START).training / "checkpoints" / "2"  # a killed process did not come to deleting them
    steps.mkdir(parents=True)
    run(workdir=str(work.path))
    assert "checkpoints" not in capsys.readouterr().out


def test_what_stands_in_an_artefacts_place_without_a_manifest_is_amiss(work):
    (work.mentions("train") / "manifest.json").unlink()
    with pytest.raises(MelError) as said:
        run(workdir=str(work.path))
    path = work.mentions("train")
    told = f"manifest.json is missing, without which nobody reads it: delete {path} and run mel-prepare-data again."
    assert str(said.value).endswith(f"1 of {len(found(work.path)) + 1} are amiss. mentions/train: {told}")


def test_every_artefact_stands_in_a_place_that_has_a_name(work):
    known = {path for place in PLACES for path in work.path.glob(place)}
    published = {path.parent for path in work.path.rglob("manifest.json")}
    assert {path for path in published if not any((up / "manifest.json").exists() for up in path.parents)} <= known
    assert all(read_manifest(path, "").kind == kind for place, kind in PLACES.items() for path in work.path.glob(place))
