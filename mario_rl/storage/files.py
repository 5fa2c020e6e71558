"""Writes files so that no crash leaves half of one."""

import contextlib
import errno
import itertools
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mario_rl.errors import DamagedFile, UserError, first_line

# What file systems answer that cannot do this at all, such as CIFS, vboxsf and some of FUSE.
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_FSYNC_OF_DIRECTORIES = _NOT_SUPPORTED | {errno.EBADF}
_NO_OPEN_OF_DIRECTORIES = _NOT_SUPPORTED | {errno.EACCES, errno.EPERM, errno.EISDIR}


# Of reading: too many open files, no memory, no permission, a server that does not answer.
_NOT_THE_FILES_FAULT = {
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ESTALE,
    errno.ETIMEDOUT, errno.ENOTCONN,
}  # fmt: skip


def make_directory(path: Path) -> None:
    """
    Raises:
        UserError: if the directory cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {path}: {error.strerror}") from None


def require_file(path: Path) -> None:
    """
    Raises:
        UserError: if there is no file that can be read; it says what there is.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{path} is a directory, not a file")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for a writer
            raise UserError(f"{path} is not a regular file")
        open(path, "rb").close()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a NUL byte in the path
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise reading_error(path, error) from None


def file_version(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written or replaced; None if it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file, then put it at `path` in one step that survives a crash.

    Raises:
        OSError: if the disk is full, for example. It names the file; the previous one is untouched.
    """
    make_directory(path.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            sync_file(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a write does not name the file
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # on a broken disk: the error above says more
            temporary.unlink(missing_ok=True)


def sync_file(descriptor: int) -> None:
    """Force a file to the disk, on file systems that can.

    Where they cannot, the file is as safe as that file system makes it.

    Raises:
        OSError: if the disk fails, or is full.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def _sync_directory(directory: Path) -> None:
    """Force the names in a directory to the disk, on file systems that can."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _NO_OPEN_OF_DIRECTORIES:
            raise
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC_OF_DIRECTORIES:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def reserved(folder: Path, stem: str, suffix: str) -> Iterator[Path]:
    """The first of STEM.SUFFIX, STEM_2.SUFFIX, STEM_3.SUFFIX, ... that no file has. An empty file
    takes the name at once, so that no other process chooses it. An exception in the block removes
    the file.

    Raises:
        UserError: if no file can be made there.
    """
    make_directory(folder)
    for number in itertools.count(1):
        path = folder / (f"{stem}_{number}.{suffix}" if number > 1 else f"{stem}.{suffix}")
        try:
            path.touch(exist_ok=False)
            break
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from None
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def new_file(path: Path, flag: str) -> Iterator[None]:
    """Take the name with an empty file, so that nothing is overwritten and no work is done in vain.
    If the block leaves it empty, it is removed.

    Args:
        flag: that named the file.

    Raises:
        UserError: if there is such a file, or none can be made.
    """
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        raise UserError(f"{flag} {path}: exists already; name a new file") from None
    except OSError as error:
        raise UserError(f"{flag} {path}: {error.strerror}") from None
    try:
        yield
    finally:
        if path.exists() and path.stat().st_size == 0:
            path.unlink()


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as indented JSON, atomically, with a checksum as its last entry."""
    text = json.dumps({**value, "checksum": _checksum(value)}, indent=2, allow_nan=False) + "\n"
    atomic_write(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote, without the checksum. Files of schema 1 have none.

    Raises:
        UserError: if the file is missing.
        DamagedFile: if it is not a JSON object, or not the one that was written.
    """
    if path.exists():
        require_file(path)
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        if "checksum" in value and value.pop("checksum") != _checksum(value):
            raise ValueError("its checksum is wrong")
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (OSError, MemoryError, ValueError, RecursionError) as error:
        raise reading_error(path, error) from None
    return value


def reading_error(path: Path, error: Exception) -> UserError:
    """What to raise when a file could not be read: that it is damaged, unless the machine was at
    fault, for the file may then be intact."""
    if isinstance(error, MemoryError):
        return UserError(f"{path} cannot be read: out of memory")
    if isinstance(error, OSError) and error.errno in _NOT_THE_FILES_FAULT:
        return UserError(f"{path} cannot be read: {error.strerror}")
    return DamagedFile(f"{path} is damaged: {first_line(error)}")


def _checksum(value: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"
