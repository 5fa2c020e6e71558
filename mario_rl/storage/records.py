"""What a run records: one CSV file for each kind of record, written a line at a time.

A line is the unit of loss: a crash can tear only the last one, which is dropped when the file is
read. Checksums of what the files hold at the newest checkpoint lie beside them, so that a file
that was damaged since is not taken for the truth; the checkpoint can restore it.
"""

import csv
import io
import os
import sys
import zlib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd

from mario_rl.errors import DamagedFile, UserError
from mario_rl.storage.files import CHECKSUMS, atomic_write, read_json, write_json


@dataclass(frozen=True)
class EpisodeRecord:
    """One finished training episode."""

    episode: int  # 1, 2, ...
    env_steps: int  # decisions of all environments when it ended
    hours: float  # training time when it ended, over all sessions
    env: int  # which environment played it
    epsilon: float  # when it ended
    episode_return: float  # undiscounted sum of rewards
    length_steps: int  # decisions
    max_x: int  # furthest x in the furthest stage, pixels
    world: int  # furthest world
    stage: int  # furthest stage
    stages_cleared: int
    game_score: int  # the number at the top left of the screen
    coins: int
    time_left: int  # the game's clock
    outcome: str  # clear, death, time_up, stall
    start_step: int = 0  # decisions that led to the save point where it began; 0: the start


@dataclass(frozen=True)
class UpdateRecord:
    """Means over the updates since the previous record."""

    env_steps: int
    updates: int  # so far
    episodes: int  # so far
    hours: float
    loss: float  # importance-weighted quantile loss
    td_error: float  # mean absolute TD error
    q_value: float  # mean Q of the actions in the batch
    grad_norm: float  # before clipping
    epsilon: float
    importance_exponent: float
    env_steps_per_s: float  # in training, without the time of evaluations
    updates_per_s: float  # the same
    memory_bytes: int  # resident memory of the trainer and its workers
    gpu_reserved_bytes: int
    gpu_peak_bytes: int


@dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation: greedy play with epsilon 0.01 after 0 to 30 no-op frames."""

    env_steps: int
    updates: int
    episodes: int  # training episodes so far
    hours: float
    eval_episodes: int
    clears: int  # episodes that cleared a stage
    clear_rate: float
    clear_rate_low: float  # Wilson 95 % interval
    clear_rate_high: float
    mean_return: float
    mean_x: float
    max_x: int
    mean_game_score: float
    mean_stages_cleared: float
    furthest_world: int
    furthest_stage: int
    is_best: int  # 1 if this policy became the run's model


Record = TypeVar("Record", EpisodeRecord, UpdateRecord, EvaluationRecord)


class RecordLog(Generic[Record]):
    """A CSV file that records are appended to."""

    def __init__(self, path: Path, record_type: type[Record], content: bytes = b""):
        """Open the file, or create it.

        Args:
            content: what a checkpoint remembers of it. Whatever follows in the file is dropped; a
                file that does not begin with this is replaced, with a warning.

        Raises:
            UserError: if the columns are not those of `record_type`.
        """
        names = [item.name for item in fields(record_type)]
        header = (",".join(names) + "\n").encode()
        found = path.read_bytes() if path.exists() else b""
        existing = with_new_columns(found, record_type)
        first_line = (content or existing).partition(b"\n")[0]
        if (content or b"\n" in existing) and first_line != header.rstrip():
            raise UserError(f"{path} has other columns than this version writes; move it away")
        self.path = path
        self._content = bytearray(content or header)
        if content and not existing.startswith(self._content):
            print(
                f"warning: {path} is not as it was at the checkpoint, which restores it",
                file=sys.stderr,
            )
        if not found.startswith(self._content):
            atomic_write(path, lambda file: file.write(self._content))
        self._file = open(path, "ab")  # noqa: SIM115
        self._file.truncate(len(self._content))

    def append(self, record: Record) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_format(getattr(record, item.name)) for item in fields(record))
        line = text.getvalue().encode()
        self._file.write(line)
        self._file.flush()
        self._content += line

    def content(self) -> bytes:
        """All that was recorded, as it should be in the file."""
        return bytes(self._content)

    def sync(self) -> None:
        """Force everything to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def write_checksums(folder: Path, contents: dict[str, bytes]) -> None:
    """Vouch for what CSV files in a folder begin with, by their names.

    Raises:
        OSError: if the folder is not writable.
    """
    checksums = {
        name: {"bytes": len(content), "crc32": zlib.crc32(content)}
        for name, content in contents.items()
    }
    write_json(folder / CHECKSUMS, checksums)


def _format(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read_records(path: Path, record_type: type[Record]) -> pd.DataFrame:
    """All complete records of a file, one row each; no rows if the file does not exist.

    Raises:
        DamagedFile: if the file is not one of ours, or not as it was written.
    """
    names = [item.name for item in fields(record_type)]
    dtypes = {item.name: item.type for item in fields(record_type)}
    size, crc32 = _vouched(path)  # first, since a run that goes on may vouch for more at any time
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    if len(content) < size or zlib.crc32(content[:size]) != crc32:
        raise DamagedFile(f"{path} is damaged: its checksum is wrong; resuming the run restores it")
    content = with_new_columns(content[: content.rfind(b"\n") + 1], record_type)
    if not content:
        content = (",".join(names) + "\n").encode()
    try:
        for cells in csv.reader(content.decode().splitlines(), strict=True):
            if len(cells) != len(names) or "" in cells:
                raise ValueError(f"a row has cells too many or too few: {','.join(cells):.80}")
        frame = pd.read_csv(io.BytesIO(content), usecols=names, dtype=dtypes)
    except (ValueError, OverflowError, csv.Error) as error:
        raise DamagedFile(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    return frame[names]


def with_new_columns(content: bytes, record_type: type[Record]) -> bytes:
    """A file's content, with the default of each column that there was not yet when it was
    begun."""
    header, newline, rows = content.partition(b"\n")
    missing = fields(record_type)[len(header.split(b",")) :]
    names = [item.name for item in fields(record_type)]
    known = ",".join(names[: len(names) - len(missing)]).encode()
    if not newline or header != known or any(item.default is MISSING for item in missing):
        return content
    names_added = "".join(f",{item.name}" for item in missing).encode()
    values_added = "".join(f",{item.default}" for item in missing).encode()
    return known + names_added + b"\n" + rows.replace(b"\n", values_added + b"\n")


def _vouched(path: Path) -> tuple[int, int]:
    """How many bytes of a file were vouched for, and their CRC-32."""
    checksums = path.with_name(CHECKSUMS)
    if not checksums.exists():  # the run is older than they are
        return 0, 0
    entry = read_json(checksums).get(path.name, {"bytes": 0, "crc32": 0})
    return entry["bytes"], entry["crc32"]
