import numpy as np
import pytest

from mel.artifacts import open_artifact, publish


@pytest.fixture
def publish_vectors(tmp_path):
    """Publishes an array as embeddings."""

    def publish_array(embeddings_ND, name="embeddings"):
        with publish(tmp_path / name, "embeddings") as draft:
            np.save(draft / "embeddings.npy", np.asarray(embeddings_ND, np.float32))
        return open_artifact(tmp_path / name, "embeddings")

    return publish_array


@pytest.fixture
def publish_tokens(tmp_path):
    """Publishes an artefact that stands for token shards, or for anything else made before."""

    def publish_named(name, content="", kind="tokens"):
        with publish(tmp_path / name, kind) as draft:
            draft.facts = {"content": content}
        return open_artifact(tmp_path / name, kind)

    return publish_named
