import pytest

from mel.artifacts import START, Workdir
from mel.bin import prepare_data, train


@pytest.fixture(scope="session")
def untrained(tiny_world, tmp_path_factory) -> Workdir:
    """A working directory with prepared data and an encoder of random weights, to be read only."""
    path = str(tmp_path_factory.mktemp("untrained"))
    prepare_data.main(
        prepare_data.Config(
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
    train.main(train.Config(workdir=path, round=START, encoder="random:1x32x2"))
    return Workdir(path)
