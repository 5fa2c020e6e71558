"""What the machine allows, and what its processor is good at."""

import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mario_rl import cgroups, machine

ROOT = Path(__file__).parent.parent
GIB = 1 << 30
NO_LIMIT_IN_V1 = 9223372036854771712  # PAGE_COUNTER_MAX

V1 = [
    ("cgroup", "rw,memory", "memory"),
    ("cgroup", "rw,cpu,cpuacct", "cpu,cpuacct"),
]
V2 = [("cgroup2", "rw", "unified")]


def fake_proc(tmp_path, mounts, membership, root="/"):
    """A process's cgroup and mountinfo, and where the groups are mounted."""
    lines = [
        "22 1 0:20 / /proc rw - proc proc rw",
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw",
    ]
    for kind, options, name in mounts:
        (tmp_path / name).mkdir(parents=True)
        lines.append(
            f"32 31 0:29 {root} {tmp_path / name} rw,nosuid shared:9 - {kind} {kind} {options}"
        )
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "mountinfo").write_text("\n".join(lines) + "\n")
    (proc / "cgroup").write_text(membership)
    return proc


def fill(folder, **values):
    """Files of a group; "__" in a name stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def v2_memory(folder, limit, used, cached=0):
    stat = f"anon 5\nactive_file {cached}\ninactive_file {cached}\ntotal 3"
    fill(folder, memory__max=limit, memory__current=used, memory__stat=stat)


def v1_memory(folder, limit, used, cached=0):
    stat = f"inactive_file 1\ntotal_active_file {cached}\ntotal_inactive_file {cached}"
    fill(folder, memory__limit_in_bytes=limit, memory__usage_in_bytes=used, memory__stat=stat)


def test_the_limit_of_the_own_group_counts(tmp_path):
    proc = fake_proc(tmp_path, V2, "0::/user.slice/job.scope\n")
    v2_memory(tmp_path / "unified/user.slice", "max", 5 * GIB)
    v2_memory(tmp_path / "unified/user.slice/job.scope", 2 * GIB, GIB, GIB // 4)
    fill(tmp_path / "unified/user.slice/job.scope", cpu__max="150000 100000")
    assert cgroups.free_memory_bytes(proc) == 1.5 * GIB
    assert cgroups.cores(proc) == 1.5


def test_a_limit_of_a_group_above_counts(tmp_path):
    proc = fake_proc(tmp_path, V2, "0::/slurm/job_7/step_0/task_0\n")
    v2_memory(tmp_path / "unified/slurm/job_7", 4 * GIB, 3 * GIB)
    v2_memory(tmp_path / "unified/slurm/job_7/step_0", 8 * GIB, GIB)
    v2_memory(tmp_path / "unified/slurm/job_8", GIB, GIB)  # another's
    fill(tmp_path / "unified/slurm", cpu__max="400000 100000")
    fill(tmp_path / "unified/slurm/job_7/step_0", cpu__max="max 100000")
    assert cgroups.free_memory_bytes(proc) == GIB
    assert cgroups.cores(proc) == 4


def test_throttled_memory_is_not_free(tmp_path):
    proc = fake_proc(tmp_path, V2, "0::/a\n")
    v2_memory(tmp_path / "unified/a", 8 * GIB, GIB)
    fill(tmp_path / "unified/a", memory__high=3 * GIB)
    assert cgroups.free_memory_bytes(proc) == 2 * GIB


def test_version_1(tmp_path):
    proc = fake_proc(tmp_path, V1, "9:memory:/slurm/job\n4:cpu,cpuacct:/slurm\n0::/\n")
    v1_memory(tmp_path / "memory", NO_LIMIT_IN_V1, 9 * GIB)
    v1_memory(tmp_path / "memory/slurm", 3 * GIB, 2 * GIB, GIB // 4)
    v1_memory(tmp_path / "memory/slurm/job", NO_LIMIT_IN_V1, GIB)
    fill(tmp_path / "cpu,cpuacct", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    fill(tmp_path / "cpu,cpuacct/slurm", cpu__cfs_quota_us=250000, cpu__cfs_period_us=100000)
    assert cgroups.free_memory_bytes(proc) == 1.5 * GIB
    assert cgroups.cores(proc) == 2.5


def test_both_versions_on_one_machine(tmp_path):
    proc = fake_proc(tmp_path, V1 + V2, "9:memory:/job\n4:cpu,cpuacct:/\n0::/scope\n")
    v1_memory(tmp_path / "memory/job", 3 * GIB, GIB)
    fill(tmp_path / "unified/scope", cpu__max="300000 100000")
    fill(tmp_path / "cpu,cpuacct", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    assert cgroups.free_memory_bytes(proc) == 2 * GIB
    assert cgroups.cores(proc) == 3


@pytest.mark.parametrize(
    ("root", "path"),
    [("/", "/"), ("/docker/abc", "/docker/abc"), ("/../..", "/"), ("/", "/../.."),
     ("/docker/abc", "/elsewhere")],
)  # fmt: skip
def test_a_container_that_sees_a_part_of_the_tree(tmp_path, root, path):
    proc = fake_proc(tmp_path, V2, f"0::{path}\n", root)
    v2_memory(tmp_path / "unified", 2 * GIB, GIB)
    fill(tmp_path / "unified", cpu__max="200000 100000")
    assert cgroups.free_memory_bytes(proc) == GIB
    assert cgroups.cores(proc) == 2


def test_a_group_inside_of_a_container(tmp_path):
    proc = fake_proc(tmp_path, V1, "9:memory:/docker/abc/sub\n", "/docker/abc")
    v1_memory(tmp_path / "memory", 9 * GIB, GIB)
    v1_memory(tmp_path / "memory/sub", 2 * GIB, GIB)
    assert cgroups.free_memory_bytes(proc) == GIB


def test_more_used_than_allowed_leaves_nothing(tmp_path):
    proc = fake_proc(tmp_path, V2, "0::/\n")
    v2_memory(tmp_path / "unified", GIB, 2 * GIB)
    assert cgroups.free_memory_bytes(proc) == 0


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert cgroups.free_memory_bytes(tmp_path) == cgroups.cores(tmp_path) == math.inf
    proc = fake_proc(tmp_path, V1 + V2, "0::/gone\n")
    assert cgroups.free_memory_bytes(proc) == cgroups.cores(proc) == math.inf
    (tmp_path / "unified/memory.max").mkdir()  # cannot be read
    assert cgroups.free_memory_bytes(proc) == math.inf


@settings(max_examples=60, deadline=None)
@example(content="1 2 3 / /a\0b rw - cgroup2 x rw", file="proc/mountinfo")
@example(content="9" * 5000, file="unified/memory.max")
@given(
    content=st.sampled_from(["", "max", "-1", "0", "1", "x", "9" * 5000, "\0", "1 0", "max 0", "²"])
    | st.text(max_size=20),
    file=st.sampled_from(
        ["unified/memory.max", "unified/memory.current", "unified/memory.stat", "unified/cpu.max",
         "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
         "cpu,cpuacct/cpu.cfs_quota_us", "cpu,cpuacct/cpu.cfs_period_us", "proc/cgroup",
         "proc/mountinfo"]
    ),
)  # fmt: skip
def test_files_that_make_no_sense_do_no_harm(tmp_path_factory, content, file):
    tmp_path = tmp_path_factory.mktemp("cgroups")
    proc = fake_proc(tmp_path, V1 + V2, "9:memory:/\n4:cpu,cpuacct:/\n0::/\n")
    v1_memory(tmp_path / "memory", 3 * GIB, GIB)
    v2_memory(tmp_path / "unified", 3 * GIB, GIB)
    fill(tmp_path / "unified", cpu__max="300000 100000")
    (tmp_path / file).write_text(content, errors="ignore")
    assert cgroups.free_memory_bytes(proc) >= 0
    assert cgroups.cores(proc) > 0


def test_free_memory_is_the_least_that_is_left(monkeypatch):
    monkeypatch.setattr(cgroups, "free_memory_bytes", lambda: math.inf)
    unlimited = machine.available_memory_bytes()
    monkeypatch.setattr(cgroups, "free_memory_bytes", lambda: 12345.0)
    assert machine.available_memory_bytes() == 12345 < unlimited


def test_the_limit_of_the_address_space_counts():
    script = (
        "import resource, psutil\n"
        "from mario_rl.machine import available_memory_bytes\n"
        "limit = psutil.Process().memory_info().vms + (1 << 28)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "print(available_memory_bytes())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 0 < int(result.stdout) <= 1 << 28


@pytest.mark.parametrize(
    ("quota", "cores"), [(math.inf, 3), (8.0, 3), (2.0, 2), (1.5, 2), (0.1, 1)]
)
def test_cores_are_those_of_the_affinity_and_the_quota(monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    monkeypatch.setattr(cgroups, "cores", lambda: quota)
    assert machine.available_cores() == cores


def test_a_sandbox_that_hides_the_affinity(monkeypatch):
    def refuse(_):
        raise OSError("not permitted")

    monkeypatch.setattr(os, "sched_getaffinity", refuse, raising=False)
    monkeypatch.setattr(cgroups, "cores", lambda: math.inf)
    assert machine.available_cores() == os.cpu_count()


@pytest.mark.parametrize(
    ("cpuinfo", "fast"),
    [
        ({"vendor_id": "GenuineIntel", "flags": "avx512f avx512_bf16"}, False),
        ({"vendor_id": "GenuineIntel", "flags": "avx512f avx512_bf16 amx_bf16"}, True),
        ({"vendor_id": "AuthenticAMD", "flags": "avx512f avx512_bf16"}, True),
        ({"vendor_id": "AuthenticAMD", "flags": "avx2"}, False),
        ({"Features": "asimd bf16"}, True),
        ({"Features": "asimd"}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_for_processors_that_are_faster_in_it(monkeypatch, cpuinfo, fast):
    monkeypatch.setattr(machine, "_cpuinfo", lambda key: cpuinfo.get(key, ""))
    assert machine.cpu_has_fast_bfloat16() is fast


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to")
def test_freed_memory_is_kept():
    """Also by a thread, as the learner is one."""
    code = """
import resource, sys, threading
import numpy as np
from mario_rl.machine import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def work():
    for i in range(30):
        if i == 10:
            counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        arrays = [np.ones(size << 20, dtype=np.uint8) for size in (3, 29, 14)]
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
counts = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(counts[1] - counts[0])
"""
    kept, given_back = (
        int(subprocess.run(
            [sys.executable, "-c", code, mode], capture_output=True, text=True, check=True
        ).stdout)
        for mode in ("keep", "no")
    )  # fmt: skip
    assert kept < 100 < given_back, "page faults"
