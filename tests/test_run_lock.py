"""Two processes never write the same run."""

import errno
import fcntl
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mario_rl.errors import UserError
from mario_rl.storage.paths import RunPaths

ROOT = Path(__file__).parent.parent
NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]

# A process that takes the lock and does what it is told: "confirm" or "end". It writes what came
# of it. Its flock fails with the given error, for everything or only for folders.
TRAINER = """
import fcntl, os, stat, sys
from mario_rl.errors import UserError
from mario_rl.storage.paths import RunPaths

output_dir, code, only_folders = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
flock = fcntl.flock

def failing(descriptor, flags):
    if code and (not only_folders or stat.S_ISDIR(os.fstat(descriptor).st_mode)):
        raise OSError(code, os.strerror(code))
    flock(descriptor, flags)

fcntl.flock = failing
try:
    with RunPaths(output_dir, "run").lock() as lock:
        print("locked", flush=True)
        while input() == "confirm":
            lock.confirm()
            print("confirmed", flush=True)
    print("ended", flush=True)
except UserError as error:
    print(error, flush=True)
"""


class Trainers:
    """Processes that train one run."""

    def __init__(self, output_dir):
        self.output_dir = output_dir
        self.folder = RunPaths(output_dir, "run").checkpoints
        self.processes = []

    def begin(self, code=0, only_folders=False):
        words = [sys.executable, "-c", TRAINER, str(self.output_dir), str(code), str(only_folders)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.processes.append(process)
        return process

    def start(self, *arguments):
        """A process, and what came of it."""
        process = self.begin(*arguments)
        return process, process.stdout.readline().strip()

    def close(self):
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def trainers(tmp_path):
    trainers = Trainers(tmp_path)
    yield trainers
    trainers.close()


def tell(process, word):
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def kill(process):
    process.kill()
    process.wait()


def other_host(**changes):
    return {"host": "node7", "pid": 123, "began": 1.0, "since": "2026-01-02 03:04:05",
            "token": "x", "released": False, **changes}  # fmt: skip


@pytest.mark.parametrize("code", [0, *NO_LOCKS])
def test_a_second_trainer_is_told_who_trains_the_run(trainers, code):
    first, said = trainers.start(code)
    assert said == "locked"
    refusal = trainers.start(code)[1]
    for part in (f"process {first.pid}", socket.gethostname(), str(trainers.folder), "--run-name"):
        assert part in refusal
    assert ("delete" in refusal) == bool(code)  # the system's own lock is never a dead process's
    assert tell(first, "confirm") == "confirmed"
    assert tell(first, "end") == "ended"
    assert trainers.start(code)[1] == "locked"


@pytest.mark.parametrize("code", [0, errno.ENOLCK])
def test_a_killed_trainer_holds_no_lock(trainers, code):
    first, _ = trainers.start(code)
    first.kill()
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # a zombie
    second, said = trainers.start(code)
    assert said == "locked"
    kill(second)
    assert second.stderr.read() == ""


@pytest.mark.parametrize("code", [0, errno.ENOLCK])
@pytest.mark.parametrize("names", [["lock"], ["lock", "lock.holder"]])
def test_deleted_files_do_not_let_a_second_trainer_in(trainers, code, names):
    first, _ = trainers.start(code)
    for name in names:
        (trainers.folder / name).unlink()
    if code == 0:
        assert "is being trained by" in trainers.start(code)[1]
    assert tell(first, "confirm") == "confirmed"
    assert f"process {first.pid}" in trainers.start(code)[1]


@pytest.mark.parametrize(
    ("code", "ends"), [(0, ""), (0, "end"), (0, "kill"), (errno.ENOLCK, "end")]
)
def test_a_trainer_whose_folder_another_one_has_taken_stops(trainers, code, ends):
    first, _ = trainers.start(code)
    shutil.rmtree(trainers.folder)
    second, said = trainers.start(code)
    assert said == "locked"
    if ends == "end":
        assert tell(second, "end") == "ended"
    elif ends == "kill":
        kill(second)
    before = sorted(trainers.folder.iterdir())
    refusal = tell(first, "confirm")
    assert f"was taken over by process {second.pid}" in refusal
    assert sorted(trainers.folder.iterdir()) == before
    if not ends:
        assert tell(second, "confirm") == "confirmed"


def test_a_deleted_folder_is_locked_again(trainers):
    first, _ = trainers.start()
    shutil.rmtree(trainers.folder)
    assert tell(first, "confirm") == "confirmed"
    assert f"process {first.pid}" in trainers.start()[1]


def test_where_folders_cannot_be_locked_a_deleted_file_stops_the_first(trainers):
    first, _ = trainers.start(errno.EBADF, True)
    refusal = trainers.start(errno.EBADF, True)[1]
    assert f"delete {trainers.folder / 'lock'} if it has ended" in refusal
    (trainers.folder / "lock").unlink()
    second, said = trainers.start(errno.EBADF, True)
    assert said == "locked"
    assert f"was taken over by process {second.pid}" in tell(first, "confirm")
    assert tell(second, "confirm") == "confirmed"


def test_versions_before_this_one_are_kept_out_and_keep_out(trainers, tmp_path):
    trainers.folder.mkdir(parents=True)
    with open(trainers.folder / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refusal = trainers.start()[1]
        assert "another process, which has locked" in refusal and "delete" not in refusal
        fcntl.flock(file, fcntl.LOCK_UN)
        assert trainers.start()[1] == "locked"
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_without_locks_a_process_of_another_host_is_believed(trainers):
    trainers.folder.mkdir(parents=True)
    file = trainers.folder / "lock.holder"
    file.write_text(json.dumps(other_host()))
    refusal = trainers.start(errno.ENOLCK)[1]
    for part in ("process 123 on node7", "2026-01-02 03:04:05", f"delete {file} if it has ended"):
        assert part in refusal
    file.unlink()
    assert trainers.start(errno.ENOLCK)[1] == "locked"


def test_with_locks_a_process_of_another_host_is_only_named(trainers):
    trainers.folder.mkdir(parents=True)
    (trainers.folder / "lock.holder").write_text(json.dumps(other_host()))
    process, said = trainers.start()
    assert said == "locked"
    kill(process)
    warning = process.stderr.read()
    assert warning.startswith("warning:") and warning.count("\n") == 1
    assert "process 123 on node7" in warning


def test_a_lock_that_another_host_takes_over_is_noticed(trainers):
    """Some network file systems lock only among the processes of one host."""
    first, _ = trainers.start()
    (trainers.folder / "lock.holder").write_text(json.dumps(other_host()))
    assert "was taken over by process 123 on node7" in tell(first, "confirm")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"host": "x"}',
     *(json.dumps(other_host(**changes)).encode() for changes in (
         {"host": 1}, {"pid": "1"}, {"pid": 0}, {"pid": 1 << 40}, {"pid": True}, {"began": None},
         {"since": "\x1b[2J"}, {"host": "a\nb"}, {"released": 1}, {"more": 1}))],
)  # fmt: skip
def test_a_file_that_makes_no_sense_locks_nothing(tmp_path, monkeypatch, content):
    monkeypatch.setattr(fcntl, "flock", unsupported)
    paths = RunPaths(tmp_path, "run")
    paths.checkpoints.mkdir(parents=True)
    (paths.checkpoints / "lock.holder").write_bytes(content)
    with paths.lock():
        holder = json.loads((paths.checkpoints / "lock.holder").read_text())
        assert holder["pid"] == os.getpid() and not holder["released"]


def unsupported(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize("changes", [{"pid": (1 << 22) + 1}, {"began": 1.0}])
def test_without_locks_a_pid_that_now_is_another_process_does_not_count(
    tmp_path, monkeypatch, changes
):
    monkeypatch.setattr(fcntl, "flock", unsupported)
    paths = RunPaths(tmp_path, "run")
    holder_file = paths.checkpoints / "lock.holder"
    with paths.lock():
        live = json.loads(holder_file.read_text())
        with pytest.raises(UserError, match="is being trained"), paths.lock():
            pass
    holder_file.write_text(json.dumps({**live, "token": "x", **changes}))
    with paths.lock():
        pass


def test_without_locks_one_of_many_trainers_that_start_at_once_gets_the_run(trainers):
    processes = [trainers.begin(errno.ENOSYS) for _ in range(6)]
    said = [process.stdout.readline() for process in processes]
    assert said.count("locked\n") == 1
    winner = processes[said.index("locked\n")]
    assert tell(winner, "confirm") == "confirmed"


def test_a_guard_that_was_left_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", unsupported)
    paths = RunPaths(tmp_path, "run")
    paths.checkpoints.mkdir(parents=True)
    guard = paths.checkpoints / "lock.guard"
    guard.touch()
    with pytest.raises(UserError, match=f"delete {guard}"), paths.lock():
        pass


def test_a_disk_that_fails_is_an_error_and_leaves_no_lock(tmp_path, monkeypatch):
    def fail(descriptor, _):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    paths = RunPaths(tmp_path, "run")
    with monkeypatch.context() as context:
        context.setattr(fcntl, "flock", fail)
        with pytest.raises(OSError, match=f"Input/output error.*{paths.checkpoints / 'lock'}"):
            paths.lock().__enter__()
    with paths.lock():
        pass
