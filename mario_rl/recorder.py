"""Writes a run's records: CSV files, and TensorBoard event files where tensorboard is installed."""

from dataclasses import asdict
from typing import Any

from mario_rl.files import RunPaths
from mario_rl.stats import EpisodeRecord, EvaluationRecord, RecordLog, UpdateRecord


class Recorder:
    """Owns the files."""

    def __init__(self, paths: RunPaths, positions: dict[str, int], env_steps: int) -> None:
        """
        Args:
            positions: what `sync` returned at the checkpoint that the run goes on from: everything
                beyond is dropped. Empty for a new run.
            env_steps: of that checkpoint.
        """
        self._episodes = RecordLog(paths.episodes_csv, EpisodeRecord, positions.get("episodes", 0))
        self._updates = RecordLog(paths.updates_csv, UpdateRecord, positions.get("updates", 0))
        self._evaluations = RecordLog(
            paths.evaluations_csv, EvaluationRecord, positions.get("evaluations", 0)
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

    def sync(self) -> dict[str, int]:
        """Force the records to the disk; returns the files' sizes in bytes."""
        if self._tensorboard is not None:
            self._tensorboard.flush()
        return {
            "episodes": self._episodes.sync(),
            "updates": self._updates.sync(),
            "evaluations": self._evaluations.sync(),
        }

    def close(self) -> None:
        for log in (self._episodes, self._updates, self._evaluations):
            log.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
