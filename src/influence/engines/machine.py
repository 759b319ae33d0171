"""What this machine has to compute with: the cores and the memory that this process may use.

A container or a job scheduler often grants less than the machine has; the
smallest of what is there, what the process is pinned to, and what its control
groups allow is what counts. Control groups are Linux's, both versions:

    /proc/self/cgroup            "0::/a/b" (version 2), "4:memory:/a/b" (version 1)
    /sys/fs/cgroup/a/b/          cpu.max, memory.max, memory.current, memory.stat
    /sys/fs/cgroup/memory/a/b/   memory.limit_in_bytes, memory.usage_in_bytes, memory.stat
    /sys/fs/cgroup/cpu/a/b/      cpu.cfs_quota_us, cpu.cfs_period_us
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from influence.dataclass import dataclass

# Version 1 says "no limit" with the largest multiple of the page size.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class Cores:
    """Counts of physical cores, except `n_logical`."""

    n_physical: int  # in the machine
    n_logical: int  # in the machine: hardware threads
    n_usable: int  # that this process may use: the default number of threads


def cores() -> Cores:
    """The cores of this machine and this process's share of them."""
    n_logical = os.cpu_count() or 1
    return Cores(_physical_cores() or n_logical, n_logical, usable_cores())


def cpu_name(root: Path = Path("/")) -> str:
    """What the processor calls itself, as far as the system tells."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def usable_cores(root: Path = Path("/")) -> int:
    """Physical cores that affinity and control groups leave to this process, at least 1."""
    n_cores = _cores_of_affinity(root)
    quota = cpu_quota(root)
    return max(1, min(n_cores, math.ceil(quota)) if quota is not None else n_cores)


def _cores_of_affinity(root: Path) -> int:
    """Hardware threads of one core count once; where the kernel does not say, each counts."""
    if sys.platform != "linux":
        return _physical_cores() or os.cpu_count() or 1
    found = set()
    for cpu in os.sched_getaffinity(0):
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        core = (_read(topology / "physical_package_id"), _read(topology / "core_id"))
        found.add(core if all(core) else (str(cpu), ""))
    return len(found)


def _physical_cores() -> int | None:
    """Of the machine, as far as the system tells."""
    import psutil

    return psutil.cpu_count(logical=False)  # type: ignore[no-any-return]


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that control groups allow, None without a limit."""
    quotas = []
    for folder in _cgroups(root, "cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        limit = f"{quota} {period}" if quota and period else _read(folder / "cpu.max")
        numbers = [int(word) for word in limit.split() if word.isdigit()]
        if len(numbers) == 2 and min(numbers) > 0:
            quotas.append(numbers[0] / numbers[1])
    return min(quotas, default=None)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take without swapping or being killed."""
    headrooms = [_cgroup_headroom(folder) for folder in _cgroups(root, "memory")]
    return max(0, min([_free_memory(root), _address_space_left(), *headrooms]))


def _free_memory(root: Path) -> int:
    """What the machine as a whole can still give, in bytes."""
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) * 1024
    import psutil  # takes as long to import as a small model to answer: only where the kernel does not say

    return int(psutil.virtual_memory().available)


def _cgroup_headroom(folder: Path) -> int:
    limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
    if not limit.isdigit():
        return _NO_LIMIT
    used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
    # Cached file pages are counted as used, but given back when memory is wanted.
    stat = dict(line.split()[:2] for line in _read(folder / "memory.stat").splitlines() if " " in line)
    reclaimable = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    return int(limit) - max(0, int(used or 0) - reclaimable)


def _address_space_left() -> int:
    """What `ulimit -v` leaves."""
    if sys.platform == "win32":
        return _NO_LIMIT
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return _NO_LIMIT
    import psutil

    return limit - int(psutil.Process().memory_info().vms)


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control groups, up to the root, that may limit `controller`."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controller if controllers else "")
        group = base / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(base))


def _read(path: Path) -> str:
    """A small file's text, empty if the kernel has no such file."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
