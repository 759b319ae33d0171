"""The share of the machine that a container grants, read from copies of the kernel's files."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from influence.engines import machine


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def topology(cpu: int, core: int) -> dict[str, str]:
    folder = f"sys/devices/system/cpu/cpu{cpu}/topology"
    return {f"{folder}/physical_package_id": "0", f"{folder}/core_id": str(core)}


@pytest.fixture
def four_threads_on_two_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    for cpu in range(4):
        write(tmp_path, topology(cpu, cpu % 2))
    return tmp_path


def test_hardware_threads_of_a_core_count_once(four_threads_on_two_cores: Path) -> None:
    assert machine.usable_cores(four_threads_on_two_cores) == 2


def test_threads_count_each_where_the_kernel_tells_no_topology(
    tmp_path: Path, four_threads_on_two_cores: Path
) -> None:
    assert machine.usable_cores(tmp_path / "nothing") == 4


@pytest.mark.parametrize(
    ("cpu_max", "n_cores"), [("max 100000", 2), ("150000 100000", 2), ("50000 100000", 1)]
)
def test_a_quota_of_a_control_group_limits_the_cores(
    four_threads_on_two_cores: Path, cpu_max: str, n_cores: int
) -> None:
    write(four_threads_on_two_cores, {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": cpu_max})
    assert machine.usable_cores(four_threads_on_two_cores) == n_cores


def test_a_quota_of_version_1_is_read_from_its_own_controller(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/m\n2:cpu,cpuacct:/c\n0::/",
            "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "250000",
            "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/m/cpu.cfs_quota_us": "1",
        },
    )
    assert machine.cpu_quota(tmp_path) == 2.5


def test_no_quota_is_none(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"})
    assert machine.cpu_quota(tmp_path) is None


def test_a_memory_limit_counts_but_its_cached_files_do_not(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job",
            "sys/fs/cgroup/job/memory.max": "1000000",
            "sys/fs/cgroup/job/memory.current": "700000",
            "sys/fs/cgroup/job/memory.stat": "anon 300000\ninactive_file 350000\nactive_file 50000",
        },
    )
    assert machine.available_memory(tmp_path) == 700_000


def test_a_group_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/job",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1000",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "5000",
        },
    )
    assert machine.available_memory(tmp_path) == 0


def test_free_memory_is_what_the_kernel_tells(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemTotal:  8000 kB\nMemFree:   10 kB\nMemAvailable:   3000 kB"})
    assert machine.available_memory(tmp_path) == 3000 * 1024


def test_a_kernel_that_does_not_tell_is_asked_otherwise(tmp_path: Path) -> None:
    assert 0 < machine.available_memory(tmp_path) <= psutil.virtual_memory().total


def test_this_machine_has_cores_and_memory() -> None:
    cores = machine.cores()
    assert 1 <= cores.n_usable <= cores.n_logical == os.cpu_count()
    assert 0 < machine.available_memory() <= psutil.virtual_memory().total
    assert machine.cpu_name()
