import shutil

import pytest

from mel.artifacts import START, Workdir
from mel.bin import export
from tests.evaluation.conftest import untrained  # noqa: F401


@pytest.fixture(scope="session")
def calibrated(untrained, tmp_path_factory) -> Workdir:  # noqa: F811
    """A working directory with a calibrated bundle of the untrained encoder, to be read only."""
    work = Workdir(shutil.copytree(untrained.path, tmp_path_factory.mktemp("calibrated") / "run"))
    export.main(export.Config(workdir=str(work.path), round=START, calibrate_on="mewsli"))
    return work
