"""Where compiled programs are kept: in the user's cache, apart for each kind of machine, or not at all; and what an
accelerator does otherwise."""

import dataclasses
import pathlib
from types import SimpleNamespace

import jax
import pytest

from mel.encoder import backend
from mel.encoder.backend import choose_compute, keep_compiled, machine_key
from mel.encoder.config import EncoderConfig

CPUINFO = "processor\t: 0\nmodel name\t: A\nflags\t\t: {}\nbugs\t\t: none\n\nprocessor\t: 1\nflags\t\t: {}\n"
OPTIONS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(autouse=True)
def options():
    """Puts JAX's settings back."""
    before = {name: jax.config.values[name] for name in OPTIONS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def cpu(tmp_path, monkeypatch):
    """Says which features the CPU has."""

    def cpu(features):
        (tmp_path / "cpuinfo").write_text(CPUINFO.format(features, features))
        monkeypatch.setattr(backend, "CPUINFO", tmp_path / "cpuinfo")

    return cpu


def kept_in():
    return pathlib.Path(jax.config.values["jax_compilation_cache_dir"])


def test_machines_with_other_features_devices_or_compilers_have_other_keys(cpu, monkeypatch, tmp_path):
    cpu("fpu sse2 avx2")
    keys = [machine_key()]
    cpu("sse2 fpu  avx2")
    assert machine_key() == keys[0]  # the order says nothing
    cpu("fpu sse2 avx2 avx512f")
    keys.append(machine_key())
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd\n")  # as ARM says it
    keys.append(machine_key())
    monkeypatch.setattr(backend, "CPUINFO", tmp_path / "nowhere")
    keys.append(machine_key())
    monkeypatch.setattr(backend.platform, "machine", lambda: "riscv64")
    keys.append(machine_key())
    monkeypatch.setattr(backend.importlib.metadata, "version", lambda name: "0.0")
    keys.append(machine_key())
    monkeypatch.setattr(backend.jax, "local_devices", lambda: [type("", (), {"device_kind": "NVIDIA T4"})])
    keys.append(machine_key())
    assert len(set(keys)) == len(keys)


def test_programs_are_kept_in_the_users_cache_by_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keep_compiled("")
    assert kept_in() == tmp_path / "cache/mel/compiled" / machine_key() and kept_in().is_dir()
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 0.5
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for relative_or_unset in ("cache", ""):  # the standard says to pass over a relative one
        monkeypatch.setenv("XDG_CACHE_HOME", relative_or_unset)
        keep_compiled("")
        assert kept_in() == tmp_path / "home/.cache/mel/compiled" / machine_key()


def test_programs_of_two_machines_stand_apart_in_a_folder_that_they_share(tmp_path, cpu):
    folders = []
    for features in ("avx2", "avx2 avx512f"):
        cpu(features)
        keep_compiled(str(tmp_path / "shared"))
        folders.append(kept_in())
    assert folders[0] != folders[1] and {folder.parent for folder in folders} == {tmp_path / "shared"}


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch):
    (tmp_path / "in_the_way").write_text("")
    said, before = [], jax.config.values["jax_compilation_cache_dir"]
    monkeypatch.setattr(backend.logging, "warning", lambda line, *values: said.append(line % values))
    keep_compiled(str(tmp_path / "in_the_way"))
    assert jax.config.values["jax_compilation_cache_dir"] == before
    (line,) = said
    assert str(tmp_path / "in_the_way") in line and line.endswith(
        "give --compilation_cache a folder that can be written."
    )


def test_without_a_home_nothing_is_kept(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    said = []
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "home", home)
    monkeypatch.setattr(backend.logging, "warning", lambda line, *values: said.append(line % values))
    keep_compiled("")
    assert len(said) == 1


def test_an_accelerator_compiles_few_widths(monkeypatch):
    monkeypatch.setattr(backend.jax, "default_backend", lambda: "cpu")
    assert backend.most_widths(6) == 6
    monkeypatch.setattr(backend.jax, "default_backend", lambda: "gpu")
    assert (backend.most_widths(6), backend.most_widths(2)) == (3, 2)


def test_an_accelerator_encodes_as_much_at_once_as_its_memory_holds(monkeypatch):
    def tokens(gigabytes, **sizes):
        encoder = dataclasses.replace(EncoderConfig(1000, 384, 12, 12, 1536), **sizes)
        memory = {"bytes_limit": int(gigabytes * 2**30)}
        monkeypatch.setattr(backend.jax, "local_devices", lambda: [SimpleNamespace(memory_stats=lambda: memory)])
        choose_compute.cache_clear()
        return choose_compute("float32", encoder).chunk_tokens

    monkeypatch.setattr(backend.jax, "default_backend", lambda: "cpu")
    assert tokens(100) == 2048
    monkeypatch.setattr(backend.jax, "default_backend", lambda: "gpu")
    assert tokens(100) == 2**18
    assert tokens(18) == 2 * tokens(9) == 2**15
    assert tokens(18, hidden_size=768) == 2**14
    assert tokens(18, num_layers=4) == 2**14  # whose layers all stay
    assert tokens(0.01) == 2**14
    choose_compute.cache_clear()
