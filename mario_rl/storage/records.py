"""What a run records: one CSV file for each kind of row, written a line at a time.

A crash can tear only the last line, which is dropped when the file is read. Another file holds
checksums of what the CSV files held at the newest checkpoint: they show damage since then, and the
checkpoint can repair it.

A row is a dictionary of values by column. A table lists the columns that are always there. Rows may
have more, all of them numbers: whoever computes a new statistic adds it to the row, and it is
recorded. Rows that lack a value have NaN there.
"""

import csv
import errno
import io
import math
import os
import re
import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd

from mario_rl.console import warn
from mario_rl.errors import DamagedFile, UserError, first_line, shown
from mario_rl.fields import (
    COLUMN_NAME,
    AnyFloat,
    Checksum,
    Count,
    FileName,
    Hours,
    Positive,
    Share,
    Within,
    matches,
)
from mario_rl.games.interface import OUTCOMES
from mario_rl.storage.files import (
    atomic_write,
    read_json,
    require_file,
    sync_file,
    write_json,
)
from mario_rl.storage.plain import check_column, from_plain, plain_type, read_as

CHECKSUMS = "checksums.json"  # of the CSV files in the same folder

_NO_NUMBER = re.compile(rb"true|false|\0", re.IGNORECASE)  # pandas makes numbers of them

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """The columns that a CSV file always has, and what they may hold."""

    name: str
    tag: str  # of its numbers in TensorBoard
    columns: dict[str, Any]  # types, as those of the fields of a record
    added: dict[str, Any] = field(default_factory=dict)  # missing in older files: their value

    @property
    def file(self) -> str:
        return f"{self.name}.csv"

    @property
    def header(self) -> bytes:
        """The first line of a new file."""
        return ",".join(self.columns).encode() + b"\n"

    def check(self, content: bytes) -> None:
        """
        Raises:
            ValueError: says what is wrong with what a file holds; nothing, if it is empty.
        """
        if not content:
            return
        if not content.endswith(b"\n"):
            raise ValueError("its last row is cut off")
        try:
            _parsed(with_added_columns(content, self), self)
        except csv.Error as error:
            raise ValueError(first_line(error)) from None


# docs/files.md says what the columns mean.
EPISODES = Table(
    "episodes",
    "episode",
    {
        "episode": Count, "env_steps": Count, "hours": Hours, "env": Count, "epsilon": Positive,
        "episode_return": float, "length_steps": Count, "max_x": Count, "world": Count,
        "stage": Count, "stages_cleared": Count, "game_score": Count, "coins": Count,
        "time_left": Count, "outcome": Literal[OUTCOMES], "start_step": Count,
    },
    added={"start_step": 0},
)  # fmt: skip
UPDATES = Table(
    "updates",
    "train",
    {
        "env_steps": Count, "updates": Count, "episodes": Count, "hours": Hours,
        "loss": AnyFloat, "td_error": AnyFloat, "q_value": AnyFloat, "grad_norm": AnyFloat,
        "epsilon": Positive, "importance_exponent": Share, "env_steps_per_s": Positive,
        "updates_per_s": Positive, "memory_bytes": Count, "gpu_reserved_bytes": Count,
        "gpu_peak_bytes": Count,
    },
)  # fmt: skip
# A learner returns these, and others with names of their own.
_METRICS = ("loss", "td_error", "q_value", "grad_norm")
EVALUATIONS = Table(
    "evaluations",
    "evaluation",
    {
        "env_steps": Count, "updates": Count, "episodes": Count, "hours": Hours,
        "eval_episodes": Count, "clears": Count, "clear_rate": Share, "clear_rate_low": Share,
        "clear_rate_high": Share, "mean_return": float, "mean_x": Positive, "max_x": Count,
        "mean_game_score": Positive, "mean_stages_cleared": Positive, "furthest_world": Count,
        "furthest_stage": Count, "is_best": Annotated[int, Within("[0, 1]")],
    },
)  # fmt: skip
TABLES = (EPISODES, UPDATES, EVALUATIONS)


def check_metrics(names: Iterable[str]) -> None:
    """
    Args:
        names: of the numbers that a learner returns with an update.

    Raises:
        ValueError: names the one that is missing, or that cannot become a column of UPDATES.
    """
    names = list(names)
    if "loss" not in names:
        raise ValueError("metrics.loss is missing")
    for name in names:
        if not matches(COLUMN_NAME, name):
            raise ValueError(
                f"metrics.{shown(name)} names a column, and must be {COLUMN_NAME.rule}"
            )
        if name in UPDATES.columns and name not in _METRICS:
            raise ValueError(f"metrics.{name} has the name of a column that the trainer fills")


@dataclass(frozen=True)
class Vouched:
    """An entry of checksums.json, for the beginning of a file."""

    bytes: Count
    crc32: Checksum


class RecordLog:
    """The rows of a table, and the CSV file that they are written to.

    The rows in memory are what counts. A file that could not be written, or that somebody deleted,
    is made from them again.
    """

    def __init__(self, path: Path, table: Table, content: bytes = b"") -> None:
        """Open the file, or create it.

        Args:
            content: what it held at the checkpoint. Whatever comes after it in the file is dropped;
                a file that does not begin with it is replaced, with a warning.

        Raises:
            UserError: if the file lacks columns of the table.
        """
        self.path = path
        found = path.read_bytes() if path.exists() else b""
        existing, content = with_added_columns(found, table), with_added_columns(content, table)
        first_line, newline, _ = (content or existing).partition(b"\n")
        self._columns = first_line.decode(errors="replace").split(",")
        if not newline:
            self._columns = list(table.columns)
        if not set(table.columns) <= set(self._columns):
            raise UserError(f"{path} has other columns than this version writes; move it away")
        self._content = bytearray(content or (",".join(self._columns) + "\n").encode())
        if content and not existing.startswith(content):
            warn(f"{path} is not as it was at the checkpoint, which restores it")
        if not found.startswith(self._content):
            self._write_all()
        # Without a buffer: what could not be written must not be written later, in between.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        self._file.truncate(len(self._content))
        self._written: int | None = len(self._content)  # bytes; None: the file is to be replaced

    def has_columns_of(self, row: Row) -> bool:
        """Whether the file has a column for each value."""
        return row.keys() <= set(self._columns)

    def append(self, row: Row) -> None:
        """Add a row, which `flush` writes. Columns that are missing are added to all rows."""
        if not self.has_columns_of(row):
            new = [name for name in row if name not in self._columns]
            if bad := [name for name in new if not matches(COLUMN_NAME, name)]:
                raise UserError(f"a statistic cannot be called {shown(bad[0])}: it names a column")
            self._columns += new
            rows = self._content.partition(b"\n")[2]
            header = ",".join(self._columns).encode() + b"\n"
            self._content = bytearray(header + rows.replace(b"\n", b",nan" * len(new) + b"\n"))
            self._written = None
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_format(row.get(name, math.nan)) for name in self._columns)
        self._content += text.getvalue().encode()

    def flush(self) -> None:
        """Bring the file up to date.

        Raises:
            OSError: if it cannot be written. The next `flush` tries again.
        """
        written, self._written = self._written, None
        if written is None:
            self._write_all()
            before, self._file = self._file, open(self.path, "ab", buffering=0)  # noqa: SIM115
            before.close()
        elif self._file.write(self._content[written:]) < len(self._content) - written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._written = len(self._content)

    def restore(self) -> None:
        """Let the next `flush` write the file again if somebody deleted, replaced or cut it."""
        try:
            found, ours = os.stat(self.path), os.fstat(self._file.fileno())
            intact = os.path.samestat(found, ours) and found.st_size == self._written
        except FileNotFoundError:
            intact = False
        if not intact:
            self._written = None

    def _write_all(self) -> None:
        atomic_write(self.path, lambda file: file.write(self._content))

    def content(self) -> bytes:
        """All that was recorded, as it should be in the file."""
        return bytes(self._content)

    def sync(self) -> None:
        """Force everything that was flushed to the disk."""
        sync_file(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def write_checksums(folder: Path, contents: dict[str, bytes]) -> None:
    """Write checksums of what the CSV files in a folder begin with.

    Args:
        contents: by file name.

    Raises:
        OSError: if the folder is not writable.
    """
    checksums = {
        name: asdict(Vouched(len(content), zlib.crc32(content)))
        for name, content in contents.items()
    }
    write_json(folder / CHECKSUMS, checksums)


def _format(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


_MOST_COLUMNS = 1000


def read_records(path: Path, table: Table) -> pd.DataFrame:
    """All complete rows of a file; none if the file does not exist.

    Returns:
        The columns of the table, then the other columns of the file, as floats.

    Raises:
        DamagedFile: if the file is not one of ours, or not as it was written.
    """
    size, crc32 = _vouched(path)  # first: a run that is training may write new ones at any time
    if path.exists():
        require_file(path)
        content = path.read_bytes()
    else:
        content, size, crc32 = b"", 0, 0
    if len(content) < size or zlib.crc32(content[:size]) != crc32:
        raise DamagedFile(
            f"{path} is damaged: its checksum is wrong; resuming the run restores it, if its "
            "checkpoints are there"
        )
    content = with_added_columns(content[: content.rfind(b"\n") + 1], table) or table.header
    try:
        return _parsed(content, table)
    except (ValueError, csv.Error) as error:
        raise DamagedFile(f"{path} is damaged: {first_line(error)}") from None


def _parsed(content: bytes, table: Table) -> pd.DataFrame:
    """The rows of a file.

    Raises:
        ValueError, csv.Error: says what is wrong with it, and names the column.
    """
    if b"\r" in content:
        raise ValueError("its lines do not end as ours do: there is a carriage return")
    text = content.decode().splitlines()
    rows = csv.reader(text, strict=True)
    names = next(rows)
    kinds = table.columns | {name: AnyFloat for name in names if name not in table.columns}
    if missing := [name for name in table.columns if name not in names]:
        raise ValueError(f"it has no column {missing[0]}")
    if len(names) > _MOST_COLUMNS:
        raise ValueError(f"it has {len(names)} columns")
    for name in names:
        if names.count(name) > 1 or not matches(COLUMN_NAME, name):
            raise ValueError(f"its column {shown(name)} is there twice, or has no name")
    for cells in rows:
        if len(cells) != len(names) or "" in cells:
            raise ValueError(f"a row has cells too many or too few: {','.join(cells):.80}")
    types = {name: plain_type(kind) for name, kind in kinds.items()}
    try:
        if _NO_NUMBER.search(content, len(text[0])):
            raise ValueError("it holds something else than numbers")
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # of inf where there are integers
            frame = pd.read_csv(io.BytesIO(content), dtype=types)
    except (ValueError, OverflowError, RuntimeWarning) as error:
        for cells in csv.reader(text[1:], strict=True):  # pandas does not say which cell it is
            for name, cell in zip(names, cells, strict=True):
                _check_cell(kinds[name], cell, name)
        raise ValueError(str(error)) from None
    for name, kind in kinds.items():
        check_column(kind, frame[name].to_numpy(), name)
    if not frame["env_steps"].is_monotonic_increasing:
        raise ValueError("env_steps does not ascend")
    return frame[list(kinds)]


def _check_cell(kind: Any, cell: str, name: str) -> None:
    number = plain_type(kind)
    try:
        value = number(cell)
    except ValueError:
        raise ValueError(f"{name} is {shown(cell)}, and must be {number.__name__}") from None
    if number is int:
        from_plain(kind, value, name)


def with_added_columns(content: bytes, table: Table) -> bytes:
    """A file's content, with the columns that did not exist yet when it was begun."""
    header, newline, rows = content.partition(b"\n")
    missing = {k: v for k, v in table.added.items() if k.encode() not in header.split(b",")}
    if not newline or not missing:
        return content
    names = "".join(f",{name}" for name in missing).encode()
    values = "".join(f",{value}" for value in missing.values()).encode()
    return header + names + b"\n" + rows.replace(b"\n", values + b"\n")


def _vouched(path: Path) -> tuple[int, int]:
    """How many bytes of a file the checksum covers, and their CRC-32."""
    checksums = path.with_name(CHECKSUMS)
    if not checksums.exists():  # the run is older than they are
        return 0, 0
    entries: dict[str, Vouched] = read_as(dict[FileName, Vouched], read_json(checksums), checksums)
    entry = entries.get(path.name, Vouched(0, 0))
    return entry.bytes, entry.crc32
