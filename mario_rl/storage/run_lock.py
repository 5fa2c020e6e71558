"""One trainer for each run, on every file system.

The system locks two things for a process, and frees them when it ends, however it ends: the run's
folder, which stays locked if somebody deletes the file `lock` in it, and that file, because network
file systems cannot lock folders. A second file, `lock.holder`, says who holds them. Where the
system has no locks at all, it is the lock: it holds unless its process is known to be dead.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import psutil

from mario_rl.console import warn
from mario_rl.errors import RunInUse
from mario_rl.storage.files import atomic_write, make_directory

# What a system answers that has no locks there.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_NO_LOCKS_OF_FOLDERS = _NO_LOCKS | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock, or was the last to hold it."""

    host: str
    pid: int
    began: float  # see `_began`; a later process may get the same pid
    since: str
    token: str  # nobody else's
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.since})"

    def is_dead(self) -> bool:
        """Whether it was a process of this host and is gone for certain."""
        if self.host != socket.gethostname():
            return False
        if not psutil.pid_exists(self.pid):
            return True
        try:
            is_zombie = psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
            return is_zombie or _began(self.pid) != self.began
        except (psutil.Error, OSError):
            return False


class RunLock:
    """The lock of one run. `RunPaths.lock` takes it and releases it."""

    def __init__(self, directory: Path, run_name: str) -> None:
        self._directory = directory
        self._file = directory / "lock"
        self._holder_file = directory / "lock.holder"
        self._run = f"run {run_name!r}"
        self._me = Holder(
            host=socket.gethostname(),
            pid=os.getpid(),
            began=_began(os.getpid()),
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
            token=secrets.token_hex(8),
        )
        self._locked: dict[Path, int] = {}  # descriptors
        self._taken = False

    def take(self) -> None:
        """
        Raises:
            RunInUse: if another process holds it.
        """
        try:
            self._hold()
        except BaseException:
            self._unlock()
            raise
        self._taken = True

    def confirm(self) -> None:
        """Call this before anything is written. Somebody may have deleted the lock, or the folder
        with it. Then it is taken again, if no other process has taken it meanwhile.

        Raises:
            RunInUse: if another process has; then nothing may be written any more.
        """
        self._hold()

    def release(self) -> None:
        """Does nothing to the lock of another process."""
        with contextlib.suppress(OSError):  # on a full or broken disk: this process ends anyway
            if self._holder() == self._me:
                self._write(replace(self._me, released=True))
        self._unlock()

    def _hold(self) -> None:
        make_directory(self._directory)
        self._lock(self._directory, os.O_RDONLY, _NO_LOCKS_OF_FOLDERS)
        self._lock(self._file, os.O_RDWR | os.O_CREAT, _NO_LOCKS)
        if self._holder() == self._me:
            return
        with contextlib.nullcontext() if self._locked else self._alone():
            self._claim(self._holder())

    def _claim(self, holder: Holder | None) -> None:
        if holder is not None and self._taken:  # even if it has ended: it has written
            raise self._refusal(holder, self._holder_file)
        if holder is not None and not holder.released and not holder.is_dead():
            if not self._locked:
                raise self._refusal(holder, self._holder_file)
            # It was killed, or the folder is a copy, or the system's locks end at each host.
            warn(
                f"{self._holder_file} says that {holder} trains this run, but the lock is free; "
                "if it does so here, stop one of the two"
            )
        self._write(self._me)

    def _lock(self, path: Path, flags: int, no_locks: set[int]) -> None:
        """Lock a file or a folder, unless that is done or the system has no locks there."""
        if (held := self._locked.pop(path, None)) is not None:
            if _is_at(path, held):
                self._locked[path] = held
                return
            os.close(held)
        try:
            descriptor = os.open(path, flags, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                raise
        except BlockingIOError:
            raise self._refusal(self._holder(), path) from None
        except OSError as error:
            if error.errno not in no_locks:
                error.filename = str(path)
                raise
            return
        self._locked[path] = descriptor
        if not _is_at(path, descriptor):  # it was deleted meanwhile
            self._lock(path, flags, no_locks)

    def _unlock(self) -> None:
        for descriptor in self._locked.values():
            os.close(descriptor)
        self._locked = {}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Where the system has no locks, only one process at a time is in this block."""
        guard = self._directory / "lock.guard"
        try:
            os.close(os.open(guard, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            raise RunInUse(
                f"another process is about to train {self._run}; if there is none, delete {guard}"
            ) from None
        try:
            yield
        finally:
            guard.unlink(missing_ok=True)

    def _holder(self) -> Holder | None:
        """What the file says; None if there is none, or if it makes no sense."""
        try:
            holder = Holder(**json.loads(self._holder_file.read_bytes()))
            right = all(type(getattr(holder, f.name)) is f.type for f in fields(Holder))
            right = right and f"{holder.host}{holder.since}".isprintable()
        except (FileNotFoundError, ValueError, TypeError, RecursionError):
            return None
        return holder if right and 0 < holder.pid < 1 << 31 else None

    def _write(self, holder: Holder) -> None:
        text = json.dumps(asdict(holder)) + "\n"
        atomic_write(self._holder_file, lambda file: file.write(text.encode()))

    def _refusal(self, holder: Holder | None, file: Path) -> RunInUse:
        who = holder or "another process"
        if self._taken:
            return RunInUse(
                f"{self._run} was taken over by {who}, after the lock of this process was deleted "
                f"from {self._directory}; this process stops, as both would write the same files"
            )
        message = f"{self._run} is being trained by {who}, which has locked {file}; wait for it"
        if file != self._directory and self._directory not in self._locked:
            # The system of this host may not know that a process of another host has ended.
            message += f", or delete {file} if it has ended"
        return RunInUse(f"{message}, or choose another --run-name")


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether a path leads to the file that is open."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _began(pid: int) -> float:
    """When a process began: on Linux in ticks since the boot, because the clock may be set."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        return float(stat.read_text().rpartition(")")[2].split()[19])
    return psutil.Process(pid).create_time()
