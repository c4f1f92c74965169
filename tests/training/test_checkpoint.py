"""Saved, restored and stepped on equals never saved; what does not fit is refused."""

import dataclasses
import shutil
import types

import jax
import numpy as np
import pytest

from mel.artifacts import open_artifact, publish
from mel.encoder.transformer import init_params
from mel.training.checkpoint import StepCheckpoints, open_checkpoint, publish_checkpoint
from mel.training.state import create_state, make_optimizer
from mel.training.step import make_mesh, put_batch
from mel.types import MelError
from tests.training.conftest import ENCODER, OPTIMIZER


def equal(one, other):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


@pytest.fixture
def trained(source, new_state, step):
    state, _ = step(new_state(), put_batch(source.batch_at(0, source.plan()), make_mesh()))
    return state


def test_a_step_from_a_published_checkpoint_is_the_step_from_the_state(trained, new_state, source, step, tmp_path):
    publish_checkpoint(tmp_path / "checkpoint", trained, ENCODER, {"settings": {}}, {}, None)
    restored = open_checkpoint(tmp_path / "checkpoint").train_state(new_state())
    assert equal(restored, trained) and int(restored.step) == 1
    batch = put_batch(source.batch_at(1, source.plan()), make_mesh())
    assert equal(step(restored, batch), step(trained, batch))


def test_a_checkpoint_states_its_encoder_and_its_digest(trained, new_state, tmp_path):
    for name in ("a", "b"):
        publish_checkpoint(tmp_path / name, trained, ENCODER, {"settings": {}}, {}, None)
    publish_checkpoint(tmp_path / "c", new_state(), ENCODER, {"settings": {}}, {}, None)
    a, b, c = (open_checkpoint(tmp_path / name) for name in "abc")
    assert a.encoder_config == ENCODER
    assert a.artifact.digest == b.artifact.digest != c.artifact.digest


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


def test_a_flipped_byte_is_refused(trained, tmp_path):
    publish_checkpoint(tmp_path / "checkpoint", trained, ENCODER, {"settings": {}}, {}, None)
    biggest = max(
        (tmp_path / "checkpoint" / "params").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0
    )
    data = bytearray(biggest.read_bytes())
    data[len(data) // 2] ^= 1
    biggest.write_bytes(data)
    with pytest.raises(MelError, match="damaged"):
        open_checkpoint(tmp_path / "checkpoint")


def test_a_checkpoint_of_another_shape_is_refused(trained, tmp_path):
    wider = dataclasses.replace(ENCODER, hidden_size=32)
    other = create_state(init_params(wider, 0), make_optimizer(OPTIMIZER), 20.0, False)
    publish_checkpoint(tmp_path / "checkpoint", trained, ENCODER, {"settings": {}}, {}, None)
    with pytest.raises(MelError, match="of another shape"):
        open_checkpoint(tmp_path / "checkpoint").train_state(other)
    checkpoints = StepCheckpoints(tmp_path / "checkpoints")
    checkpoints.save(1, trained)
    with pytest.raises(MelError, match="Checkpoint 1 in .* is of another shape"):
        checkpoints.restore(1, other)
    checkpoints.close()


def test_a_checkpoint_of_other_inputs_is_refused(trained, tmp_path):
    for name in ("one", "other"):
        with publish(tmp_path / name, "tokens") as draft:
            (draft / "file").write_text(name)
    one, other = (open_artifact(tmp_path / name, "tokens") for name in ("one", "other"))
    publish_checkpoint(tmp_path / "checkpoint", trained, ENCODER, {"settings": {}}, {"entity_tokens": one}, None)
    open_checkpoint(tmp_path / "checkpoint", {"entity_tokens": one})
    with pytest.raises(MelError, match="was not made from the entity_tokens"):
        open_checkpoint(tmp_path / "checkpoint", {"entity_tokens": other})
