"""A bundle to link with."""

import shutil

import pytest

from mel.artifacts import START, Workdir
from mel.bin import export


@pytest.fixture(scope="session")
def exported(untrained, tmp_path_factory) -> Workdir:
    """A working directory with a bundle of the untrained encoder, not calibrated, to be read only."""
    work = Workdir(shutil.copytree(untrained.path, tmp_path_factory.mktemp("exported") / "run"))
    export.main(export.Config(workdir=str(work.path), round=START))
    return work
