"""Where a run's files lie, and how a file is written so that no crash leaves half of one."""

import difflib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from mario_rl.errors import DamagedFile, UserError

CHECKSUMS = "checksums.json"  # of the CSV files in the same folder

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class RunPaths:
    """The files of one run below the output directory."""

    def __init__(self, output_dir: str | Path, run_name: str) -> None:
        """
        Raises:
            UserError: if the name could not be a file name on every system, or leads elsewhere.
        """
        if not _RUN_NAME.fullmatch(run_name):
            raise UserError(
                f"--run-name {run_name[:100]!r}: use 1 to 80 letters, digits, '.', '_' and '-', "
                "beginning with a letter or digit"
            )
        self.output_dir = Path(output_dir)
        self.run_name = run_name
        self.model = self.output_dir / "models" / f"{run_name}.pth"
        self.checkpoints = self.output_dir / "checkpoints" / run_name
        self.stats = self.output_dir / "stats" / run_name
        self.config_json = self.stats / "config.json"
        self.run_json = self.stats / "run.json"
        self.episodes_csv = self.stats / "episodes.csv"
        self.updates_csv = self.stats / "updates.csv"
        self.evaluations_csv = self.stats / "evaluations.csv"

    def exists(self) -> bool:
        """Whether an earlier run left files under this name."""
        return self.model.exists() or self.stats.exists() or any(self.checkpoints.glob("*.json"))

    def require_new(self) -> None:
        """
        Raises:
            UserError: if there is a run of this name.
        """
        if self.exists():
            raise UserError(
                f"run {self.run_name!r} exists: progressive_mario_trainer.py --resume goes on with "
                "it, or choose another --run-name"
            )

    def require_stats(self) -> None:
        """
        Raises:
            UserError: if there is no such run; it lists those there are, nearest name first.
        """
        if self.stats.is_dir():
            return
        runs = run_names(self.output_dir)
        if not runs:
            raise UserError(
                f"no run {self.run_name!r}: there are no runs below "
                f"{self.output_dir / 'stats'}; start one with progressive_mario_trainer.py"
            )
        runs.sort(key=lambda name: -difflib.SequenceMatcher(a=name, b=self.run_name).ratio())
        more = f" and {len(runs) - 10} more" if len(runs) > 10 else ""
        raise UserError(f"no run {self.run_name!r}: there are {', '.join(runs[:10])}{more}")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a process trains this run; the system frees it if the process dies.

        Raises:
            UserError: if another process holds it.
        """
        make_directory(self.checkpoints)
        lock = FileLock(self.checkpoints / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"run {self.run_name!r} is being trained by another process; "
                "wait for it, or choose another --run-name"
            ) from None
        try:
            self._remove_leftovers()
            yield
        finally:
            lock.release()

    def _remove_leftovers(self) -> None:
        """Of processes that were killed in the middle of `atomic_write`."""
        for path in (
            *self.model.parent.glob(f"{self.model.name}.*.tmp"),
            *self.checkpoints.glob("*.tmp"),
            *self.stats.glob("*.tmp"),
        ):
            path.unlink()


def run_names(output_dir: str | Path) -> list[str]:
    """The runs that have statistics, in alphabetical order."""
    stats = Path(output_dir) / "stats"
    return sorted(path.parent.name for path in stats.glob("*/config.json"))


def make_directory(path: Path) -> None:
    """
    Raises:
        UserError: if the directory cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {path}: {error.strerror}") from None


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file, then put it at `path` in one step that survives a crash.

    Raises:
        OSError: if the disk is full, say; it names the file, and the previous one is untouched.
    """
    make_directory(path.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a write does not say to what
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


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
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        if "checksum" in value and value.pop("checksum") != _checksum(value):
            raise ValueError("its checksum is wrong")
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged: {error}") from None
    return value


def _checksum(value: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"
