"""Units that Apache Beam made are those that are made here."""

import importlib.util

import pytest

from mel.bin import prepare_data
from mel.shards import beam
from mel.shards.beam import RunnerConfig
from mel.types import MelError
from mel.verification import verify
from tests.configs import config_of, with_flags

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="Apache Beam is not installed: pip install '.[beam]'"
)
PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


@pytest.fixture
def config(tiny_world, tmp_path):
    return config_of(
        prepare_data.Config, workdir=str(tmp_path / "run"), damuel=str(tiny_world / "damuel"), languages=("ar",),
        tokenizer=str(tiny_world / "tokenizer"), mention_tokens=16, entity_tokens=16, held_out=0.2, workers=1,
    )  # fmt: skip


def on(config, runner, *options):
    return with_flags(config, workdir=config.workdir + "-beam", cluster=RunnerConfig(runner, options))


def digests(workdir):
    return {finding.path: finding.digest for finding in verify(workdir)}


@needs_beam
@pytest.mark.slow
@pytest.mark.parametrize("options", [(), PROCESSES], ids=["threads", "processes"])
def test_the_direct_runner_publishes_what_is_published_here(config, options):
    prepare_data.main(config)
    there = on(config, "DirectRunner", *options)
    prepare_data.main(there)
    assert digests(there.workdir) == digests(config.workdir)


@needs_beam
@pytest.mark.slow
def test_what_a_worker_says_of_a_part_is_said_here(config, tmp_path):
    part = tmp_path / "damuel" / "part-00000.xz"
    part.parent.mkdir()
    part.write_bytes(b"no xz")
    broken = with_flags(on(config, "DirectRunner"), damuel=str(part.parent))
    with pytest.raises(MelError, match="--runner=DirectRunner failed .*part-00000.xz cannot be read .* run again"):
        prepare_data.main(broken)


@needs_beam
@pytest.mark.slow
def test_a_worker_that_dies_is_a_sentence_and_what_it_made_stays(config, monkeypatch):
    def die(item, reading):
        if item[1].name.startswith("part-00002"):
            raise SystemError("the worker is gone")
        beam.make_unit(item, reading)

    monkeypatch.setattr(beam, "make_alone", die)
    there = on(config, "DirectRunner")
    with pytest.raises(MelError, match=r"--runner=DirectRunner failed \(.*the worker is gone.*\): mend that and run"):
        prepare_data.main(there)
    monkeypatch.undo()
    prepare_data.main(there)
    prepare_data.main(config)
    assert digests(there.workdir) == digests(config.workdir)


@needs_beam
@pytest.mark.slow
def test_a_runner_that_beam_lacks_is_a_sentence(config):
    with pytest.raises(MelError, match="--runner=NoRunner failed .*NoRunner"):
        prepare_data.main(on(config, "NoRunner"))


def test_options_without_a_runner_are_refused_and_so_is_a_runner_without_beam(config, monkeypatch):
    with pytest.raises(
        MelError, match="--runner_options=--parallelism=2 is for a runner of Apache Beam: give --runner"
    ):
        RunnerConfig(runner_options=("--parallelism=2",))
    monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
    with pytest.raises(MelError, match=r"--runner=FlinkRunner needs Apache Beam .*pip install 'mel-linker\[beam\]'"):
        prepare_data.main(on(config, "FlinkRunner"))
