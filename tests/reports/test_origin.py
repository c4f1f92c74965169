"""When and by what a report was made."""

import datetime
import subprocess

import mel
from mel.reports import origin as origins


def test_time_versions_and_commit(tmp_path):
    zone = datetime.timezone(datetime.timedelta(hours=2))
    now = datetime.datetime(2026, 2, 3, 1, 5, tzinfo=zone)
    found = origins.origin(now, tmp_path)
    assert found["on"] == "2026-02-02 23:05 UTC" and found["mel"] == mel.__version__ and found["jax"]
    assert "commit" not in found

    def git(*arguments):
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert "commit" not in origins.origin(now, tmp_path)  # there is none yet
    (tmp_path / "file").write_text("1")
    git("add", "-A")
    git("commit", "-qm", "m")
    name = origins.origin(now, tmp_path)["commit"]
    assert git("rev-parse", "HEAD").startswith(name)
    (tmp_path / "file").write_text("2")
    assert origins.origin(now, tmp_path)["commit"] == f"{name}-dirty"
