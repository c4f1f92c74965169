"""A step read from disk is the step that was compiled; anything else on disk is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mel.training import kept_step
from mel.training.kept_step import keep_step
from mel.types import Batch, TrainState


class Counted:
    """A small step of the shape of a real one, which counts how often it is compiled."""

    def __init__(self):
        def step(state, batch):
            moved = jnp.tanh(state.params["x"] + jnp.sin(batch.log_q_C).sum())
            return TrainState(state.step + 1, {"x": moved}, state.opt_state), {"loss": moved.mean()}

        self.step, self.compilations = jax.jit(step, donate_argnums=0), 0

    def lower(self, *arguments):
        self.compilations += 1
        return self.step.lower(*arguments)


def new_state():
    return TrainState(jnp.zeros((), jnp.int32), {"x": jnp.linspace(-1, 1, 7)}, (jnp.zeros(3),))


def batch(n, columns=5):
    ids = np.zeros(2, np.int32)
    log_q_C = np.linspace(-n, 0, columns, dtype=np.float32)
    return jax.device_put(Batch((np.zeros((2, 8), np.int32),), ids, ids, ids, ids, ids, log_q_C))


@pytest.fixture
def run(tmp_path):
    """Two steps of a new process, as it were: the leaves of the last state, and how often it compiled."""

    def run(made_with="as it is", columns=5):
        counted = Counted()
        step, state = keep_step(counted, tmp_path / "steps", made_with), new_state()
        for n in range(2):
            state, _ = step(state, batch(n, columns))
        return jax.tree.map(np.asarray, jax.tree.leaves(state)), counted.compilations

    return run


def files(tmp_path):
    return sorted((tmp_path / "steps").iterdir())


def assert_same(leaves, others):
    for leaf, other in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(leaf, other)


def test_a_second_start_compiles_nothing_and_computes_what_the_plain_step_does(run):
    plain, state = Counted().step, new_state()
    for n in range(2):
        state, _ = plain(state, batch(n))
    first, compilations = run()
    assert compilations == 1
    second, compilations = run()
    assert compilations == 0
    assert_same(first, jax.tree.leaves(state))
    assert_same(second, first)


def test_a_step_read_from_disk_consumes_its_state(run, tmp_path):
    run()
    state = new_state()
    keep_step(Counted(), tmp_path / "steps", "as it is")(state, batch(0))
    assert state.params["x"].is_deleted()


def test_another_layout_is_another_program(run, tmp_path):
    run()
    assert run(columns=6)[1] == 1
    assert len(files(tmp_path)) == 2


def test_settings_versions_and_code_are_part_of_its_name(run, monkeypatch, tmp_path):
    run()
    assert run(made_with="otherwise")[1] == 1
    assert run()[1] == 0
    monkeypatch.setattr(kept_step.importlib.metadata, "version", lambda name: "0.0")
    assert run()[1] == 1
    package = tmp_path / "code"
    package.mkdir()
    (package / "__init__.py").write_text("# other code\n")
    monkeypatch.setattr(kept_step.mel, "__file__", str(package / "__init__.py"))
    assert run()[1] == 1


@pytest.mark.parametrize("content", [b"", b"no pickle", b"torn"])
def test_a_broken_file_is_compiled_again_and_replaced(run, tmp_path, content):
    first, _ = run()
    file = files(tmp_path)[0]
    file.write_bytes(file.read_bytes()[:1000] if content == b"torn" else content)
    again, compilations = run()
    assert compilations == 1
    assert_same(first, again)
    assert run()[1] == 0


def test_a_folder_that_cannot_be_written_stops_no_training(run, tmp_path):
    (tmp_path / "steps").write_text("in the way")
    leaves, compilations = run()
    assert compilations == 1 and leaves
