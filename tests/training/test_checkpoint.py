"""Saved, restored and stepped on equals never saved; what does not fit is refused."""

import contextlib
import dataclasses
import functools
import json
import shutil
import types

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mel.artifacts import START, Workdir, open_artifact, publish
from mel.encoder.transformer import init_params
from mel.encoder.vocabulary import Vocabulary
from mel.training import checkpoint
from mel.training.checkpoint import StepCheckpoints, open_checkpoint, publish_checkpoint, publish_start
from mel.training.state import create_state, make_optimizer
from mel.training.step import make_mesh, put_batch
from mel.training.step_digests import UNREAD, damage_of
from mel.types import MelError
from tests.training.conftest import ENCODER, OPTIMIZER, TOTAL_STEPS


def equal(one, other):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


@pytest.fixture
def work(new_state, tmp_path):
    """A working directory with the encoder before training, whose token table is trained whole."""
    work, state = Workdir(tmp_path), new_state()
    vocabulary = Vocabulary.of([np.arange(ENCODER.vocab_size)], state.params)
    publish_start(work.round(START).checkpoint, state, ENCODER, vocabulary, {"settings": {}}, {}, None)
    return work


def publish_round(work, number, state, **inputs):
    inputs = {"start": open_artifact(work.round(START).checkpoint, "checkpoint"), **inputs}
    publish_checkpoint(work.round(number).checkpoint, state, ENCODER, {"settings": {}}, inputs, None)


@pytest.fixture
def trained(source, new_state, step):
    state, _ = step(new_state(), put_batch(source.batch_at(0, source.plan()), make_mesh()))
    return state


def test_a_step_from_a_published_checkpoint_is_the_step_from_the_state(trained, new_state, source, step, work):
    publish_round(work, 0, trained)
    restored = open_checkpoint(work, 0).train_state(new_state())
    assert equal(restored, trained) and int(restored.step) == 1
    batch = put_batch(source.batch_at(1, source.plan()), make_mesh())
    assert equal(step(restored, batch), step(trained, batch))


def test_a_checkpoint_states_its_encoder_and_its_digest(trained, new_state, work):
    for number, state in enumerate((trained, trained, new_state())):
        publish_round(work, number, state)
    first, same, other = (open_checkpoint(work, number) for number in range(3))
    assert first.encoder_config == ENCODER
    assert first.artifact.digest == same.artifact.digest != other.artifact.digest


def test_the_digest_covers_parameters_and_optimiser_state(new_state, work):
    state = new_state()
    moved = {name: jax.tree.map(lambda leaf: leaf + 1, getattr(state, name)) for name in ("params", "opt_state")}
    states = [state, state._replace(params=moved["params"]), state._replace(opt_state=moved["opt_state"])]
    for number, state in enumerate(states):
        publish_round(work, number, state)
    digests = [open_checkpoint(work, number).artifact.digest for number in range(3)]
    assert len(set(digests)) == 3


def test_a_damaged_optimiser_state_is_refused(trained, new_state, work):
    publish_round(work, 0, trained)
    published, path = open_checkpoint(work, 0), work.round(0).checkpoint / "opt_state"
    shutil.rmtree(path)
    other = jax.tree.map(lambda leaf: leaf + 1, trained.opt_state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), other)
    with pytest.raises(MelError, match="opt_state/.* is damaged"):
        published.train_state(new_state())


def test_only_the_rows_in_use_are_kept_and_reading_gives_all(new_state, tmp_path):
    work, params = Workdir(tmp_path), init_params(ENCODER, 0)
    vocabulary = Vocabulary.of([np.array([5, 9])], params)
    state = create_state(vocabulary.compact(params), make_optimizer(OPTIMIZER, TOTAL_STEPS))
    assert state.params["embeddings"]["word"]["embedding"].shape == (3, ENCODER.hidden_size)
    publish_start(work.round(START).checkpoint, state, ENCODER, vocabulary, {"settings": {}}, {}, None)
    moved = jax.tree.map(lambda leaf: leaf + 1, state)
    publish_round(work, 0, moved)
    assert equal(open_checkpoint(work, START).params, params)
    table_VD = open_checkpoint(work, 0).params["embeddings"]["word"]["embedding"]
    expected_VD = np.array(params["embeddings"]["word"]["embedding"])
    expected_VD[[0, 5, 9]] += 1
    np.testing.assert_array_equal(table_VD, expected_VD)


def test_a_checkpoint_of_another_start_is_refused(trained, new_state, work, tmp_path):
    publish_round(work, 0, trained)
    shutil.rmtree(work.round(START).checkpoint)
    vocabulary = Vocabulary.of([np.arange(9)], new_state().params)
    publish_start(work.round(START).checkpoint, new_state(), ENCODER, vocabulary, {"settings": {}}, {}, None)
    with pytest.raises(MelError, match="was not made from the start"):
        open_checkpoint(work, 0)


def test_saving_by_step_goes_on_in_the_background_and_survives_donation(trained, new_state, source, step, tmp_path):
    copy = jax.device_get(trained)
    checkpoints = StepCheckpoints(tmp_path / "checkpoints")
    checkpoints.save(1, trained)
    step(trained, put_batch(source.batch_at(1, source.plan()), make_mesh()))
    checkpoints.close()
    again = StepCheckpoints(tmp_path / "checkpoints")
    assert again.latest_step == 1
    assert equal(again.restore(1, new_state()), copy)
    again.close()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=1000))
    with pytest.raises(MelError, match="The disk is full: a checkpoint in .* free some space"):
        publish_checkpoint(tmp_path / "rounds" / "checkpoint", trained, ENCODER, {"settings": {}}, {}, None)
    checkpoints = StepCheckpoints(tmp_path / "checkpoints")
    with pytest.raises(MelError, match="The disk is full"):
        checkpoints.save(1, trained)
    assert checkpoints.latest_step is None
    checkpoints.close()
    assert not (tmp_path / "rounds").exists()


def test_a_flipped_byte_is_refused(trained, work):
    publish_round(work, 0, trained)
    files = (work.round(0).checkpoint / "params").rglob("*")
    flip_a_byte(max(files, key=lambda path: path.stat().st_size if path.is_file() else 0))
    with pytest.raises(MelError, match="damaged"):
        open_checkpoint(work, 0)


def test_a_flipped_byte_of_the_full_token_table_is_refused(trained, work):
    publish_round(work, 0, trained)
    flip_a_byte(work.round(START).checkpoint / "token_table.npy")
    checkpoint = open_checkpoint(work, 0)  # training goes on without it
    with pytest.raises(MelError, match="token_table is damaged"):
        checkpoint.params


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_checkpoint_of_another_shape_is_refused(trained, work, tmp_path):
    wider = dataclasses.replace(ENCODER, hidden_size=32)
    other = create_state(init_params(wider, 0), make_optimizer(OPTIMIZER, TOTAL_STEPS))
    publish_round(work, 0, trained)
    with pytest.raises(MelError, match="of another shape"):
        open_checkpoint(work, 0).train_state(other)
    checkpoints = StepCheckpoints(tmp_path / "checkpoints")
    checkpoints.save(1, trained)
    with pytest.raises(MelError, match="Checkpoint 1 in .* is of another shape"):
        checkpoints.restore(1, other)
    checkpoints.close()


def test_a_checkpoint_of_other_inputs_is_refused(trained, work, tmp_path):
    for name in ("one", "other"):
        with publish(tmp_path / name, "tokens") as draft:
            (draft / "file").write_text(name)
    one, other = (open_artifact(tmp_path / name, "tokens") for name in ("one", "other"))
    publish_round(work, 0, trained, entity_tokens=one)
    open_checkpoint(work, 0, {"entity_tokens": one})
    with pytest.raises(MelError, match="was not made from the entity_tokens"):
        open_checkpoint(work, 0, {"entity_tokens": other})


def save_steps(folder, state, *steps):
    checkpoints = StepCheckpoints(folder)
    for step in steps:
        checkpoints.save(step, state)
    checkpoints.close()


def test_a_step_is_never_without_the_digests_of_its_files(trained, tmp_path):
    save_steps(tmp_path / "steps", trained, 1, 2)
    for step in ("1", "2"):
        listed = json.loads((tmp_path / "steps" / step / "digests.json").read_bytes())
        assert any(name.startswith("default/d/") for name in listed)
        assert all((tmp_path / "steps" / step / name).is_file() for name in listed.keys() - {"seal"})
        assert not damage_of(tmp_path / "steps" / step)


def test_a_flipped_bit_in_any_file_of_a_step_is_found_and_the_step_before_is_used(trained, new_state, tmp_path, caplog):
    save_steps(tmp_path / "steps", trained, 1, 2)
    files = [path for path in (tmp_path / "steps" / "2").rglob("*") if path.is_file() and path.name not in UNREAD]
    assert len(files) >= 5
    for file in files:
        folder = shutil.copytree(tmp_path / "steps", tmp_path / "copy")
        name = file.relative_to(tmp_path / "steps" / "2")
        flip_a_byte(folder / "2" / name)
        with caplog.at_level("WARNING", logger="absl"):
            checkpoints = StepCheckpoints(folder)
        assert f"Checkpoint {folder}/2 is damaged (" in caplog.text and f"{name} is" in caplog.text
        assert "going on from step 1" in caplog.text
        assert checkpoints.latest_step == 1
        assert equal(checkpoints.restore(1, new_state()), trained)
        checkpoints.save(2, trained)  # and the step can be saved again
        checkpoints.close()
        assert not damage_of(folder / "2")
        shutil.rmtree(folder)
        caplog.clear()


def test_notes_of_the_library_on_the_saving_change_no_value(trained, new_state, tmp_path):
    save_steps(tmp_path / "steps", trained, 1)
    for name in UNREAD:
        flip_a_byte(tmp_path / "steps" / "1" / name)
    checkpoints = StepCheckpoints(tmp_path / "steps")
    assert equal(checkpoints.restore(1, new_state()), trained)
    checkpoints.close()


def test_a_file_that_is_missing_or_too_many_is_damage_and_so_is_no_list(trained, tmp_path):
    save_steps(tmp_path / "steps", trained, 1)
    step = tmp_path / "steps" / "1"
    (step / "default" / "another").write_text("")
    assert damage_of(step) == "default/another is not as it was saved"
    (step / "default" / "another").unlink()
    (step / "default" / "_METADATA").unlink()
    assert damage_of(step) == "default/_METADATA is not as it was saved"
    (step / "digests.json").unlink()
    assert damage_of(step) == "digests.json is missing"
    StepCheckpoints(tmp_path / "steps").close()
    assert not step.exists()


def test_nothing_is_saved_that_was_made_from_a_damaged_file(trained, tmp_path):
    with publish(tmp_path / "a", "tokens") as draft:
        (draft / "file").write_bytes(bytes(3 << 20))
    flip_a_byte(tmp_path / "a" / "file")
    open_artifact(tmp_path / "a", "tokens")
    checkpoints = StepCheckpoints(tmp_path / "steps")
    with pytest.raises(MelError, match="a/file is damaged"):
        checkpoints.save(1, trained)
    checkpoints.close()
    assert checkpoints.latest_step is None


def test_the_values_of_an_optimiser_state_are_compared_and_not_its_files_alone(trained, new_state, work):
    moved = trained._replace(opt_state=jax.tree.map(lambda leaf: leaf + 1, trained.opt_state))
    for number, state in enumerate((trained, moved)):
        publish_round(work, number, state)
    published, other = open_checkpoint(work, 0), open_artifact(work.round(1).checkpoint, "checkpoint")
    digest = {"opt_state_digest": other.facts["opt_state_digest"]}
    said = dataclasses.replace(published.artifact, facts={**published.artifact.facts, **digest})
    with pytest.raises(MelError, match="opt_state is damaged: its values are not those that were published"):
        dataclasses.replace(published, artifact=said).train_state(new_state())


def test_a_signal_waits_until_orbax_is_done(trained, new_state, work, monkeypatch):
    """Its threads would print tracebacks of their own."""
    depth, seen = [], []

    @contextlib.contextmanager
    def deferred():
        depth.append(1)
        yield
        depth.pop()

    monkeypatch.setattr(checkpoint, "deferred", deferred)
    for name in ("save", "restore"):
        real = getattr(ocp.StandardCheckpointer, name)
        told = functools.partialmethod(lambda self, real, *rest: seen.append(len(depth)) or real(self, *rest), real)
        monkeypatch.setattr(ocp.StandardCheckpointer, name, told)
    publish_round(work, 0, trained)
    open_checkpoint(work, 0).train_state(new_state())
    assert len(seen) >= 4 and set(seen) == {1} and not depth
