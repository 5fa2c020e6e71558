"""Writes a run's records: CSV files, and whatever trackers there are."""

import contextlib
import threading
from pathlib import Path

from mario_rl.console import warn
from mario_rl.errors import reason
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.records import TABLES, RecordLog, Row, Table, write_checksums
from mario_rl.storage.trackers import Tracker


class Recorder:
    """Owns the files of the records."""

    def __init__(self, paths: RunPaths, contents: dict[str, bytes], trackers: Tracker) -> None:
        """
        Args:
            contents: what `contents` returned at the checkpoint from which the run continues.
                Whatever comes after it in the files is dropped. Empty for a new run.
            trackers: are given the same rows, and closed with the recorder.
        """
        self._folder = paths.stats
        # `sync` is called in the thread that writes checkpoints. It must not meet rows that are
        # being written; nor, while it waits for the disk, a file that is being replaced.
        self._writing, self._replacing = threading.Lock(), threading.Lock()
        self._behind = False  # whether a file could not be written since the last `sync`
        # Before the files are cut, so that they fit their checksums at any instant.
        write_checksums(self._folder, contents)
        self._logs = {
            table.name: RecordLog(self._folder / table.file, table, contents.get(table.file, b""))
            for table in TABLES
        }
        self._trackers = trackers

    def record(self, table: Table, row: Row) -> None:
        """Append a row: to the CSV file, and for the trackers.

        A file that cannot be written is written later; `sync` raises the error if it persists.
        """
        values = {name: value for name, value in row.items() if name != "env_steps"}
        self._trackers.add(table.tag, values, row["env_steps"])
        log = self._logs[table.name]
        rewrites = not log.has_columns_of(row)
        with self._replacing if rewrites else contextlib.nullcontext(), self._writing:
            log.append(row)
            if self._behind:
                return  # `sync` writes the files
            try:
                if rewrites:
                    write_checksums(self._folder, {**self.contents(), table.file: b""})
                log.flush()
            except OSError as error:
                warn(f"{reason(error)}; the next checkpoint writes the rows that are missing")
                self._behind = True

    def record_video(self, path: Path, env_steps: int) -> None:
        """Tell of a video of the best model."""
        self._trackers.add_video(path, env_steps)

    def contents(self) -> dict[str, bytes]:
        """All that was recorded, by file name."""
        return {log.path.name: log.content() for log in self._logs.values()}

    def sync(self) -> None:
        """Force the records to the disk, and write their checksums. Files that somebody deleted are
        written again.

        Raises:
            OSError: if that is not possible.
        """
        self._trackers.flush()
        with self._replacing:
            with self._writing:
                for log in self._logs.values():
                    log.restore()
                    log.flush()
                contents = self.contents()
                self._behind = False
            for log in self._logs.values():
                log.sync()
            write_checksums(self._folder, contents)

    def close(self) -> None:
        for log in self._logs.values():
            log.close()
        self._trackers.close()
