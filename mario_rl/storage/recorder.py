"""Writes a run's records: CSV files, and TensorBoard event files where tensorboard is installed."""

import threading

from mario_rl.storage.paths import RunPaths
from mario_rl.storage.records import TABLES, RecordLog, Row, Table, write_checksums
from mario_rl.storage.tensorboard import EventFiles


class Recorder:
    """Owns the files of the records."""

    def __init__(self, paths: RunPaths, contents: dict[str, bytes], env_steps: int) -> None:
        """
        Args:
            contents: what `contents` returned at the checkpoint from which the run continues.
                Whatever comes after it in the files is dropped. Empty for a new run.
            env_steps: of that checkpoint.
        """
        self._folder = paths.stats
        # `sync` is called in the thread that writes checkpoints, and must not meet a file that is
        # being written again.
        self._rewriting = threading.Lock()
        # Before the files are cut, so that they fit their checksums at any instant.
        write_checksums(self._folder, contents)
        self._logs = {
            table.name: RecordLog(self._folder / table.file, table, contents.get(table.file, b""))
            for table in TABLES
        }
        self._event_files = EventFiles(paths.stats / "tensorboard", purge_step=env_steps + 1)

    def record(self, table: Table, row: Row) -> None:
        """Append a row: to the CSV file, and each of its numbers to TensorBoard."""
        log = self._logs[table.name]
        if log.has_columns_of(row):
            log.append(row)
        else:  # the file will be written again, with new columns
            with self._rewriting:
                write_checksums(self._folder, {**self.contents(), table.file: b""})
                log.append(row)
        values = {name: value for name, value in row.items() if name != "env_steps"}
        self._event_files.add(table.tag, values, row["env_steps"])

    def contents(self) -> dict[str, bytes]:
        """All that was recorded, by file name."""
        return {log.path.name: log.content() for log in self._logs.values()}

    def sync(self) -> None:
        """Force the records to the disk, and write their checksums."""
        self._event_files.flush()
        with self._rewriting:
            contents = self.contents()
            for log in self._logs.values():
                log.sync()
            write_checksums(self._folder, contents)

    def close(self) -> None:
        for log in self._logs.values():
            log.close()
        self._event_files.close()
