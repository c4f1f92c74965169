"""What all tests share: jax on the CPU, warnings of our own code as errors, the worlds to test on."""

import os
import pathlib

# Before any test imports jax or a hub client.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Arrays of different rank are added up only where somebody says how.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Compiled programs and the like are kept from one test to the next, away from the user's own.
os.environ["XDG_CACHE_HOME"] = str(pathlib.Path(__file__).resolve().parents[1] / "build" / "cache")

import pytest

from tests import tiny_world as world

SHARED_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
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
