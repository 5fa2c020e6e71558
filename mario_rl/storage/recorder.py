"""Writes a run's records: CSV files, and TensorBoard event files where tensorboard is installed."""

from collections import defaultdict
from dataclasses import asdict
from typing import Any

from mario_rl.storage.files import RunPaths
from mario_rl.storage.records import (
    EpisodeRecord,
    EvaluationRecord,
    RecordLog,
    UpdateRecord,
    write_checksums,
)


class Recorder:
    """Owns the files."""

    def __init__(self, paths: RunPaths, contents: dict[str, bytes], env_steps: int) -> None:
        """
        Args:
            contents: what `contents` returned at the checkpoint that the run goes on from: what
                follows it in the files is dropped. Empty for a new run.
            env_steps: of that checkpoint.
        """
        self._folder = paths.stats
        # Before the files are cut, so that at any instant they hold what is vouched for.
        write_checksums(self._folder, contents)
        kept = defaultdict(bytes, contents)
        self._episodes = RecordLog(paths.episodes_csv, EpisodeRecord, kept[paths.episodes_csv.name])
        self._updates = RecordLog(paths.updates_csv, UpdateRecord, kept[paths.updates_csv.name])
        self._evaluations = RecordLog(
            paths.evaluations_csv, EvaluationRecord, kept[paths.evaluations_csv.name]
        )
        self._tensorboard: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._tensorboard = SummaryWriter(
            str(paths.stats / "tensorboard"), purge_step=env_steps + 1
        )

    def episode(self, record: EpisodeRecord) -> None:
        self._episodes.append(record)
        self._to_tensorboard(
            "episode", record, ("episode_return", "length_steps", "max_x", "stages_cleared")
        )

    def update(self, record: UpdateRecord) -> None:
        self._updates.append(record)
        self._to_tensorboard(
            "train", record, ("loss", "td_error", "q_value", "grad_norm", "epsilon",
                              "env_steps_per_s", "updates_per_s", "memory_bytes")
        )  # fmt: skip

    def evaluation(self, record: EvaluationRecord) -> None:
        self._evaluations.append(record)
        self._to_tensorboard("evaluation", record, ("clear_rate", "mean_return", "mean_x", "max_x"))

    def _to_tensorboard(self, group: str, record: Any, names: tuple[str, ...]) -> None:
        if self._tensorboard is not None:
            values = asdict(record)
            for name in names:
                self._tensorboard.add_scalar(f"{group}/{name}", values[name], record.env_steps)

    def contents(self) -> dict[str, bytes]:
        """All that was recorded, by the names of the files."""
        return {log.path.name: log.content() for log in self._logs()}

    def sync(self) -> None:
        """Force the records to the disk, and vouch for them."""
        contents = self.contents()
        if self._tensorboard is not None:
            self._tensorboard.flush()
        for log in self._logs():
            log.sync()
        write_checksums(self._folder, contents)

    def close(self) -> None:
        for log in self._logs():
            log.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _logs(self) -> tuple[RecordLog[Any], ...]:
        return self._episodes, self._updates, self._evaluations
