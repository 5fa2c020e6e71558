"""The machine and the software that a run is made with, and how much memory is left."""

import contextlib
import ctypes
import importlib.metadata
import math
import os
import platform
import resource
import subprocess
from pathlib import Path
from typing import Any

import psutil

from mario_rl import cgroups
from mario_rl.errors import UserError

# What a process opens now and then, besides what it knows of: libraries, files being written.
_OTHER_FILES = 40

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def available_memory_bytes() -> int:
    """Free memory: of this machine or, if that is less, what the limits of this process leave it:
    those of its control groups (containers, SLURM) and of `ulimit -v`."""
    available = min(psutil.virtual_memory().available, cgroups.free_memory_bytes())
    if hasattr(psutil, "RLIMIT_AS"):  # not on macOS
        process = psutil.Process()
        address_space, _ = process.rlimit(psutil.RLIMIT_AS)
        if address_space != psutil.RLIM_INFINITY:
            available = min(available, max(0, address_space - process.memory_info().vms))
    return int(available)


def resident_memory_bytes() -> int:
    """Resident memory of this process and its workers; 0 for what cannot be read now."""
    total = 0
    with contextlib.suppress(psutil.Error, OSError):
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                total += process.memory_info().rss
    return total


def allow_open_files(more: int) -> None:
    """Raise this process's limit of open files, if need be and as far as the system lets us.

    Args:
        more: how many will be opened besides those that are open.

    Raises:
        UserError: if that is too few.
    """
    count = len(os.listdir("/dev/fd")) + more + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise UserError(
            f"up to {count} files will be open, and the system allows {hard}: raise its limit "
            "(ulimit -n), or lower --num-envs"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next allocation. An update allocates and frees
    tensors of megabytes all the time, and pages fresh from the system cost a tenth of it
    (docs/performance.md). Does nothing where the C library is not glibc."""
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        if not mallopt(_M_MMAP_THRESHOLD, 256 << 20):
            mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most before glibc 2.35
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        mallopt(_M_ARENA_MAX, 1)  # heaps of other threads are given back all the same


def available_cores() -> int:
    """Cores that this process may use, as its affinity and its control groups say. A part of a
    core's time counts as a core."""
    return math.ceil(min(len(core_numbers()), cgroups.cores()))


def core_numbers() -> list[int]:
    """The cores that this process may run on, as its affinity says."""
    if hasattr(os, "sched_getaffinity"):
        with contextlib.suppress(OSError):  # forbidden in some sandboxes
            return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_has_fast_bfloat16() -> bool:
    """Whether the processor multiplies faster in bfloat16 than in float32; False if the system
    does not say.

    Intel's processors do with AMX, but not with AVX512-BF16 alone (docs/performance.md).
    """
    flags = set(_cpuinfo("flags").split()) | set(_cpuinfo("Features").split())
    if _cpuinfo("vendor_id") == "GenuineIntel":
        return "amx_bf16" in flags
    return not flags.isdisjoint({"avx512_bf16", "bf16"})


def hardware() -> dict[str, Any]:
    """Processor, cores and memory."""
    return {
        "processor": _cpuinfo("model name") or platform.processor(),
        "cores": psutil.cpu_count(),
        "bfloat16": cpu_has_fast_bfloat16(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
    }


def _cpuinfo(key: str) -> str:
    """A line of /proc/cpuinfo, of the first core; "" if there is none."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    values = (line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == key)
    return next(values, "")


def versions() -> dict[str, str]:
    """Python and the packages that can change a result."""
    found = {"python": platform.python_version()}
    games = ("nes-py", "gym-super-mario-bros", "stable-retro")
    for name in ("torch", "numpy", "opencv-python", *games):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed under this name"
    return found


def git_commit() -> str | None:
    """The commit of this program, with "-dirty" if files were changed; None outside a checkout."""
    checkout = Path(__file__).parents[1]
    # Where this package is installed, a repository around it is somebody else's.
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    command += ["--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
