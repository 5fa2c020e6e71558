"""What the control groups of this process leave it: memory and processor time.

A container, SLURM and systemd-run limit a process through its group, or through a group above it.
There are two versions of the mechanism, and a machine may use both: one for memory, the other for
the processor. /proc/self/cgroup names the groups, and /proc/self/mountinfo says where their files
are (man 7 cgroups; cgroup-v2.rst and cgroup-v1/memory.rst of the kernel). A file that is missing
or makes no sense sets no limit.
"""

import math
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc/self")


def free_memory_bytes(proc: Path = _PROC) -> float:
    """How much more memory the groups allow; infinity without a limit."""
    return min(map(_free_memory_bytes, _groups("memory", proc)), default=math.inf)


def cores(proc: Path = _PROC) -> float:
    """How many cores' time the groups allow, such as 1.5; infinity without a limit."""
    return min(map(_cores, _groups("cpu", proc)), default=math.inf)


def _free_memory_bytes(group: Path) -> float:
    limits = (
        "memory.max",
        "memory.high",  # above it the processes hardly get on
        "memory.limit_in_bytes",  # version 1; a huge number is no limit
    )
    limit = min(_number(_text(group / name)) for name in limits)
    if limit == math.inf:
        return limit
    used = _text(group / "memory.current") or _text(group / "memory.usage_in_bytes")
    # Files that the system caches count as used, but are dropped when memory is needed. In version
    # 1 only the entries with "total_" include the groups below this one.
    lines = _text(group / "memory.stat").splitlines()
    stat = {name: value for name, _, value in (line.partition(" ") for line in lines)}
    total = "total_" if "total_inactive_file" in stat else ""
    cached = sum(_number(stat.get(f"{total}{kind}_file", ""), 0) for kind in ("active", "inactive"))
    return max(0, limit - _number(used, 0) + cached)


def _cores(group: Path) -> float:
    """Quota by period: two numbers in one file in version 2, two files in version 1."""
    words = _text(group / "cpu.max").split() or [
        _text(group / "cpu.cfs_quota_us"),
        _text(group / "cpu.cfs_period_us"),
    ]
    quota, period = (_number(word) for word in [*words, "", ""][:2])
    return quota / period if 0 < quota < math.inf and 0 < period < math.inf else math.inf


def _groups(controller: str, proc: Path) -> Iterator[Path]:
    """The folders of this process's group and of the groups above it, as far as it sees them."""
    paths = _paths(proc)
    for line in _text(proc / "mountinfo").splitlines():
        mount, _, source = line.partition(" - ")
        fields, (kind, _, options) = mount.split(), [*source.split(), "", "", ""][:3]
        name = "" if kind == "cgroup2" else controller
        if len(fields) < 5 or name not in paths:
            continue
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            root, folder, path = Path(fields[3]), Path(fields[4]), paths[name]
            yield folder
            # A container may see only a part of the tree, and its own group as "/" or "/../..".
            for part in path.relative_to(root).parts if path.is_relative_to(root) else ():
                folder /= part
                yield folder


def _paths(proc: Path) -> dict[str, Path]:
    """The process's group by controller; that of version 2 has the name ""."""
    paths = {}
    for line in _text(proc / "cgroup").splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        paths.update({name: Path(path) for name in names.split(",")})
    return paths


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except (OSError, ValueError):
        return ""


def _number(text: str, otherwise: float = math.inf) -> float:
    """A number of a file; `otherwise` for "max" and for what is none."""
    return float(text) if text.isascii() and text.isdigit() else otherwise
