"""What a run records: one CSV file for each kind of record, written a line at a time.

A line is the unit of loss: a crash can tear only the last one, which is dropped when the file is
read or continued.
"""

import csv
import io
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd

from mario_rl.errors import DamagedFile, UserError
from mario_rl.files import make_directory


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


@dataclass(frozen=True)
class UpdateRecord:
    """Means over the updates since the previous record."""

    env_steps: int
    updates: int  # so far
    episodes: int  # so far
    hours: float
    loss: float  # importance-weighted Huber loss
    td_error: float  # mean absolute TD error
    q_value: float  # mean Q of the actions in the batch
    grad_norm: float  # before clipping
    epsilon: float
    importance_exponent: float
    env_steps_per_s: float
    updates_per_s: float
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

    def __init__(self, path: Path, record_type: type[Record], keep_bytes: int | None = None):
        """Open the file, creating it with a header if need be.

        Args:
            keep_bytes: drop everything beyond this position, which a checkpoint remembered; by
                default only a torn last line is dropped.

        Raises:
            UserError: if the file's columns are not those of `record_type`.
        """
        make_directory(path.parent)
        names = [item.name for item in fields(record_type)]
        header = (",".join(names) + "\n").encode()
        self._file = open(path, "a+b")  # noqa: SIM115
        self._file.seek(0)
        content = self._file.read()[:keep_bytes]
        content = content[: content.rfind(b"\n") + 1]
        if content and not content.startswith(header):
            raise UserError(f"{path} has other columns than this version writes; move it away")
        self._file.truncate(len(content))
        if not content:
            self._file.write(header)
        self._file.flush()

    def append(self, record: Record) -> None:
        line = io.StringIO()
        writer = csv.writer(line, lineterminator="\n")
        writer.writerow(_format(getattr(record, item.name)) for item in fields(record))
        self._file.write(line.getvalue().encode())
        self._file.flush()

    def sync(self) -> int:
        """Force everything to the disk; returns the size in bytes."""
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()


def _format(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read_records(path: Path, record_type: type[Record]) -> pd.DataFrame:
    """All complete records of a file, one row each; no rows if the file does not exist.

    Raises:
        DamagedFile: if the file is not one of ours.
    """
    names = [item.name for item in fields(record_type)]
    dtypes = {item.name: item.type for item in fields(record_type)}
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    content = content[: content.rfind(b"\n") + 1]
    if not content:
        content = (",".join(names) + "\n").encode()
    try:
        frame = pd.read_csv(io.BytesIO(content), index_col=False, usecols=names, dtype=dtypes)
    except (ValueError, OverflowError) as error:
        raise DamagedFile(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    return frame[names]
