"""Console scripts start their binary, find flagfiles, and say in one sentence which extra they lack."""

import importlib
import pathlib
import signal
import subprocess
import sys
import types

import pytest

import mel
from mel.bin import console
from mel.bin.console import PLACES, with_recipes

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "experiments/mdn/run_rounds.flags"


@pytest.fixture(autouse=True)
def heard():
    """A script that is started hears Ctrl-C otherwise than the tests do."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_script_starts_its_binary(monkeypatch):
    called = []
    monkeypatch.setitem(sys.modules, "mel.bin.made_up", types.SimpleNamespace(console=lambda: called.append(1)))
    console.made_up()
    assert called == [1]


@pytest.mark.parametrize("name", ["optax", "tensorflow_datasets.core"])
def test_what_is_not_installed_is_named_with_the_way_to_get_it(name, monkeypatch):
    def missing():
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "argv", ["/usr/bin/mel-train"])
    monkeypatch.setitem(sys.modules, "mel.bin.train", types.SimpleNamespace(console=missing))
    with pytest.raises(SystemExit) as stopped:
        console.train()
    assert stopped.value.code == (
        f"mel-train: the package {name.partition('.')[0]} is not installed: "
        'pip install "mel-linker[train]" brings what preparing, training and evaluating need.'
    )


def test_what_serving_needs_comes_with_another_extra(monkeypatch):
    def missing():
        raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")

    monkeypatch.setattr(sys, "argv", ["/usr/bin/mel-serve"])
    monkeypatch.setitem(sys.modules, "mel.bin.serve", types.SimpleNamespace(console=missing))
    with pytest.raises(SystemExit, match=r"uvicorn is not installed: .*mel-linker\[serve\]. brings what serving needs"):
        console.serve()


def test_every_installation_says_its_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mel-train", "--version"])
    console.no_such()
    assert capsys.readouterr().out == f"mel-train {mel.__version__}\n"


def test_a_module_of_our_own_that_is_missing_is_a_fault_of_ours():
    with pytest.raises(ModuleNotFoundError, match="mel.bin.no_such"):
        console.no_such()


def test_no_binary_is_imported_before_it_is_asked_for(monkeypatch):
    monkeypatch.delitem(sys.modules, "mel.bin.train", raising=False)
    assert callable(importlib.reload(console).train)
    assert "mel.bin.train" not in sys.modules


def test_a_flagfile_that_is_not_here_is_that_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wheel, checkout = tmp_path / "recipes", tmp_path / "checkout"
    for place in (checkout, wheel):
        (place / NAME).parent.mkdir(parents=True)
        (place / NAME).touch()
        assert with_recipes(["p", "--seed=1", f"--flagfile={NAME}"], (wheel, checkout)) == [
            "p", "--seed=1", f"--flagfile={place / NAME}",
        ]  # fmt: skip


def test_what_is_here_or_nowhere_or_named_otherwise_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    others = ["p", "--flagfile=experiments/none.flags", "--flagfile=mdn/run_rounds.flags", f"--flagfile={ROOT / NAME}"]
    assert with_recipes(others) == others
    (tmp_path / NAME).parent.mkdir(parents=True)
    (tmp_path / NAME).touch()
    assert with_recipes([f"--flagfile={NAME}"]) == [f"--flagfile={NAME}"]


def test_a_checkout_is_a_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert PLACES[-1] == ROOT
    assert with_recipes([f"--flagfile={NAME}"]) == [f"--flagfile={ROOT / NAME}"]


def test_ctrl_c_while_modules_are_imported_ends_without_a_traceback():
    program = """if True:
        import importlib, os, signal
        from mel.bin import console
        importlib.import_module = lambda name: os.kill(os.getpid(), signal.SIGINT)
        console.train()
    """
    ended = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")
