from tests.evaluation.conftest import untrained  # noqa: F401
