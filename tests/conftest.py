"""What all tests share: jax on the CPU, warnings of our own code as errors, the worlds to test on."""

import os
import pathlib
import shutil
import signal

# Before any test imports jax or a hub client.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Arrays of different rank are added up only where somebody says how.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Nearly all of the tests' time is compiling; `make test-all` compiles as users do.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Compiled programs and the like are kept from one test to the next, away from the user's own.
os.environ["XDG_CACHE_HOME"] = str(pathlib.Path(__file__).resolve().parents[1] / "build" / "cache")

import pytest

from mel.artifacts import START, Workdir
from mel.bin import export, prepare_data, train
from mel.checks import CHECKS
from tests import tiny_world as world
from tests.configs import config_of

SHARED_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    # A shell lets what it starts in the background ignore this, and the programs under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "slow: takes long or needs an extra; `make test` leaves it out")
    # Attributed to a module of ours, a warning is our mistake; other people's modules may warn.
    for package in ("mel", "tests"):
        config.addinivalue_line("filterwarnings", rf"error:::{package}\.")


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The tiny world: damuel/, mewsli/ and tokenizer/; to be read only."""
    folder = tmp_path_factory.mktemp("tiny_world")
    world.generate(folder)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The real data beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"there is no {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def nothing_opened():
    """What one test opened, and damaged, is nothing to the next."""
    yield
    CHECKS.forget()


@pytest.fixture(scope="session")
def untrained(tiny_world, tmp_path_factory) -> Workdir:
    """A working directory with prepared data and an encoder of random weights, to be read only."""
    path = str(tmp_path_factory.mktemp("untrained"))
    prepare_data.main(
        config_of(
            prepare_data.Config,
            workdir=path,
            damuel=str(tiny_world / "damuel"),
            mewsli=str(tiny_world / "mewsli"),
            languages=("en", "ru", "ar"),  # the tree has ja too
            tokenizer=str(tiny_world / "tokenizer"),
            mention_tokens=32,
            title_in_window=True,
            workers=1,
        )
    )
    few = {"steps_per_round": 2, "batch_size": 8}  # for those who train or mine with it
    train.main(train.Config(workdir=path, round=START, encoder="random:1x32x2", **few))
    return Workdir(path)


@pytest.fixture(scope="session")
def calibrated(untrained, tmp_path_factory) -> Workdir:
    """A working directory with a calibrated bundle of the untrained encoder, to be read only."""
    work = Workdir(shutil.copytree(untrained.path, tmp_path_factory.mktemp("calibrated") / "run"))
    export.main(export.Config(workdir=str(work.path), round=START, calibrate_on="mewsli"))
    return work
