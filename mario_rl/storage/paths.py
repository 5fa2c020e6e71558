"""Where a run's files lie."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mario_rl.errors import UserError, shown
from mario_rl.fields import RUN_NAME, matches
from mario_rl.storage.run_lock import RunLock


class RunPaths:
    """The files of one run below the output directory."""

    def __init__(self, output_dir: str | Path, run_name: str) -> None:
        """
        Raises:
            UserError: if the name could not be a file name on every system, or leads elsewhere.
        """
        if not matches(RUN_NAME, run_name):
            raise UserError(f"--run-name {shown(run_name)}: use {RUN_NAME.rule}")
        self.output_dir = Path(output_dir)
        self.run_name = run_name
        self.model = self.output_dir / "models" / f"{run_name}.pth"
        self.checkpoints = self.output_dir / "checkpoints" / run_name
        self.stats = self.output_dir / "stats" / run_name
        self.config_json = self.stats / "config.json"
        self.config_yaml = self.stats / "config.yaml"  # the same, for --config
        self.run_json = self.stats / "run.json"
        self.episodes_csv = self.stats / "episodes.csv"
        self.updates_csv = self.stats / "updates.csv"
        self.evaluations_csv = self.stats / "evaluations.csv"

    def best_video(self, env_steps: int) -> Path:
        """The video of the model that was the best at that time. In the order of their names they
        are in the order of time."""
        return self.output_dir / "videos" / f"{self.run_name}_best_{env_steps:09d}.mp4"

    def exists(self) -> bool:
        """Whether an earlier run left files under this name."""
        records = (path for path in self.stats.glob("*") if path.suffix != ".tmp")
        return self.model.exists() or any(records) or any(self.checkpoints.glob("*.json"))

    def require_new(self) -> None:
        """
        Raises:
            UserError: if there is a run of this name.
        """
        if self.exists():
            raise UserError(
                f"run {self.run_name!r} exists: continue it with progressive_mario_trainer.py "
                "--resume, or choose another --run-name"
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
    def lock(self) -> Iterator[RunLock]:
        """Held while a process trains this run. It must `confirm` the lock before it writes.

        Raises:
            RunInUse: if another process holds it.
        """
        lock = RunLock(self.checkpoints, self.run_name)
        lock.take()
        try:
            self._remove_leftovers()
            yield lock
        finally:
            lock.release()

    def _remove_leftovers(self) -> None:
        """Of processes that were killed in the middle of `atomic_write`."""
        for path in (
            *self.model.parent.glob(f"{self.model.name}.[0-9]*.tmp"),
            *self.checkpoints.glob("*.tmp"),
            *self.stats.glob("*.tmp"),
        ):
            path.unlink()


def run_names(output_dir: str | Path) -> list[str]:
    """The runs that have statistics, in alphabetical order."""
    stats = Path(output_dir) / "stats"
    return sorted(path.parent.name for path in stats.glob("*/config.json"))
