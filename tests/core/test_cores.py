"""How many threads there are from the start: variables, affinity, control groups."""

import os
import subprocess
import sys

import pytest
from reference import processes

from attnnet import cores


def machine(root, groups, **files):
    """A folder with what the kernel would show."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3.0),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("0::/a/../../..\n", {"cpu.max": "100000 100000"}, 1.0),
        (
            "4:memory:/x\n2:cpu,cpuacct:/job\n0::/\n",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (
            "1:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            None,
        ),
        ("1:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"}, None),
        ("0::/\n", {"cpu.max": "garbage 0 of another kind"}, None),
        ("0::/\n", {"cpu.max": "5 0"}, None),
    ],
)  # fmt: skip
def test_quota_of_control_groups(tmp_path, groups, files, expected):
    assert cores.quota(machine(tmp_path, groups, **files)) == expected


def test_no_control_groups(tmp_path):
    assert cores.quota(tmp_path) is None


@pytest.mark.parametrize(("granted", "expected"), [(None, 8), (0.2, 1), (2.5, 3), (40.0, 8)])
def test_the_smaller_of_affinity_and_quota(monkeypatch, granted, expected):
    monkeypatch.setattr(cores, "affinity", lambda: list(range(8)))
    monkeypatch.setattr(cores, "quota", lambda: granted)
    assert cores.free() == expected
    monkeypatch.setattr(cores, "affinity", lambda: list(range(1000)))
    monkeypatch.setattr(cores, "quota", lambda: None)
    assert cores.free() == 256


def threads(before="", **variables):
    """What a new process says."""
    environment = processes.environment()
    others = {k: v for k, v in environment.items() if not k.endswith("_NUM_THREADS")}
    code = f"{before}\nimport attnnet; print(attnnet.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**others, **variables},
        cwd=processes.neutral_folder(),
        capture_output=True,
        text=True,
    )
    return int(done.stdout) if done.returncode == 0 else done.stderr


def test_variables_choose():
    assert threads() == cores.free()
    assert threads(ATTNNET_NUM_THREADS="7", OMP_NUM_THREADS="3") == 7
    assert threads(OMP_NUM_THREADS="3,2") == 3
    assert threads(OMP_NUM_THREADS="many") == cores.free()
    for wrong in ("0", "-1", "257", "two", "1e2", "9" * 5000):
        assert "ATTNNET_NUM_THREADS is" in threads(ATTNNET_NUM_THREADS=wrong)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_is_respected():
    one = min(os.sched_getaffinity(0))
    assert threads(f"import os; os.sched_setaffinity(0, {{{one}}})") == 1
