import math

import pytest

from mel.memory import free_memory


@pytest.fixture
def root(tmp_path):
    """A file system in which a system tells of itself."""
    put(tmp_path / "proc", {"meminfo": "MemTotal:  9000 kB\nMemAvailable:    1000 kB\n"})
    return tmp_path


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_what_the_machine_has_left(root):
    assert free_memory(root) == 1000 * 1024


def test_what_a_container_has_left_counts_where_it_is_less(root):
    put(root / "sys/fs/cgroup", {"memory.max": "500000\n", "memory.current": "450000\n"})
    assert free_memory(root) == 50_000
    put(root / "sys/fs/cgroup", {"memory.stat": "anon 1\nactive_file 20000\ninactive_file 10000\n"})
    assert free_memory(root) == 80_000  # pages of files are given back
    put(root / "sys/fs/cgroup", {"memory.max": "max\n"})
    assert free_memory(root) == 1000 * 1024
    put(root / "sys/fs/cgroup", {"memory.max": "400000\n"})  # lowered below what it has
    assert free_memory(root) == 0


def test_the_limit_of_a_group_around_the_own_one_counts(root):
    put(root / "proc/self", {"cgroup": "5:cpu:/\n0::/pod/job\n"})
    groups = root / "sys/fs/cgroup"
    put(groups / "pod", {"memory.max": "90000\n", "memory.current": "20000\n"})
    put(groups / "pod/job", {"memory.max": "max\n", "memory.current": "10000\n"})
    assert free_memory(root) == 70_000
    put(groups / "pod/job", {"memory.max": "12000\n"})
    assert free_memory(root) == 2_000


def test_the_older_groups(root):
    put(root / "proc/self", {"cgroup": "4:memory:/a\n0::/\n"})
    files = {"memory.limit_in_bytes": "70000\n", "memory.usage_in_bytes": "60000\n"}
    put(root / "sys/fs/cgroup/memory/a", files | {"memory.stat": "total_inactive_file 500\ninactive_file 9\n"})
    assert free_memory(root) == 10_500


def test_a_system_that_tells_nothing_has_no_limit(tmp_path):
    assert free_memory(tmp_path) == math.inf
