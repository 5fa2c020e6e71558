"""File systems that cannot do everything: no fsync, no locks."""

import errno
import os
import stat

import pytest

from mario_rl.storage.files import atomic_write
from mario_rl.storage.records import UPDATES, RecordLog

UNSUPPORTED = sorted({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
SERIOUS = [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS]


def failing(function, code, applies):
    """The function, which fails with an errno where it applies."""

    def wrapped(*arguments):
        if applies(*arguments):
            raise OSError(code, os.strerror(code))
        return function(*arguments)

    return wrapped


def is_directory(descriptor):
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def is_file(descriptor):
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


@pytest.mark.parametrize("code", [*UNSUPPORTED, errno.EBADF])
def test_a_file_system_that_cannot_sync_directories_holds_files(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, code, is_directory))
    atomic_write(tmp_path / "file", lambda file: file.write(b"new"))
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("code", [*UNSUPPORTED, errno.EACCES, errno.EPERM, errno.EISDIR])
def test_a_directory_that_cannot_be_opened_holds_files(tmp_path, monkeypatch, code):
    refuses = failing(os.open, code, lambda path, *_: os.path.isdir(path))
    monkeypatch.setattr(os, "open", refuses)
    atomic_write(tmp_path / "file", lambda file: file.write(b"new"))
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("code", UNSUPPORTED)
def test_a_file_system_that_cannot_sync_at_all_holds_files_and_records(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, code, lambda _: True))
    atomic_write(tmp_path / "file", lambda file: file.write(b"new"))
    assert (tmp_path / "file").read_bytes() == b"new"
    log = RecordLog(tmp_path / UPDATES.file, UPDATES)
    log.append({"updates": 7})
    log.sync()
    log.close()


@pytest.mark.parametrize("code", SERIOUS)
@pytest.mark.parametrize("applies", [is_directory, is_file])
def test_a_disk_that_fails_is_an_error(tmp_path, monkeypatch, code, applies):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, code, applies))
    with pytest.raises(OSError) as caught:
        atomic_write(tmp_path / "file", lambda file: file.write(b"new"))
    assert caught.value.errno == code
    assert caught.value.filename == str(tmp_path / "file")
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE])
def test_a_directory_that_cannot_be_opened_for_other_reasons_is_an_error(
    tmp_path, monkeypatch, code
):
    monkeypatch.setattr(os, "open", failing(os.open, code, lambda path, *_: os.path.isdir(path)))
    with pytest.raises(OSError, match=os.strerror(code)):
        atomic_write(tmp_path / "file", lambda file: file.write(b"new"))


def test_a_disk_that_fails_while_it_is_cleaned_up_shows_the_first_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, errno.EIO, lambda _: True))
    monkeypatch.setattr(os, "unlink", failing(os.unlink, errno.EROFS, lambda *_: True))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        atomic_write(tmp_path / "file", lambda file: file.write(b"new"))
