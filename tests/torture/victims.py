"""Small runs as processes, and what they end with."""

import hashlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mario_rl.agent.saved_model import SavedModel
from mario_rl.storage.checkpoint import Checkpoint, CheckpointStore
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.plain import to_plain
from mario_rl.training.state import RunState

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "progressive_mario_trainer.py"
# Everything happens often: checkpoints, evaluations, new models, the end of the replay's ring.
FLAGS = """
    --stage 1-1 --num-envs 2 --batch-size 16 --learning-starts 60 --replay-capacity 400
    --replay-ratio 1 --stall-steps 4 --eps-decay 300 --target-period 100 --eval-episodes 2
    --eval-interval 200 --checkpoint-interval 1 --threads 1
""".split()

# Columns that tell the time or the machine.
CLOCK = ("hours", "env_steps_per_s", "updates_per_s", "memory_bytes", "gpu_reserved_bytes",
         "gpu_peak_bytes")  # fmt: skip


class Run:
    """A run of so many episodes; `start` begins it or resumes it."""

    def __init__(self, folder: Path, name: str, episodes: int, seed: int) -> None:
        self.paths = RunPaths(folder, name)
        self._log = folder / f"{name}.log"
        self._log.write_bytes(b"")
        self._flags = [*FLAGS, "--num-episodes", str(episodes), "--seed", str(seed)]
        self._flags += ["--output-dir", str(folder)]

    def start(
        self, preexec: Callable[[], None] | None = None, command: Sequence[str] = (str(TRAIN),)
    ) -> "subprocess.Popen[bytes]":
        """Run the trainer, or `command` in its place, as a process whose output goes to the log.

        Args:
            preexec: is called in the process before the program begins.
        """

        def prepare() -> None:
            # As in a terminal, also if these tests run in the background.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            if preexec is not None:
                preexec()

        with open(self._log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, *command, *self.words()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=prepare,
                start_new_session=True,
            )

    def words(self) -> list[str]:
        """The command line that starts or resumes it."""
        words = ["--run-name", self.paths.run_name, *self._flags]
        if CheckpointStore(self.paths.checkpoints).exists():
            words.append("--resume")
        return words

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def finish(self) -> None:
        """Run it to its end, which must succeed."""
        code = self.start().wait()
        assert code == 0, f"exit code {code}:\n{self.log()[-3000:]}"

    def half_written(self, pid: int) -> bool:
        """Whether the process is writing a file, or was when it was killed."""
        folders = self.paths.checkpoints, self.paths.stats, self.paths.model.parent
        return any(any(folder.glob(f"*.{pid}.tmp")) for folder in folders)

    def is_finished(self) -> bool:
        return "finished: " in self.log()

    def remove(self) -> None:
        for folder in (self.paths.checkpoints, self.paths.stats):
            shutil.rmtree(folder, ignore_errors=True)
        self.paths.model.unlink(missing_ok=True)

    def checkpoint(self) -> Checkpoint[RunState]:
        """The newest."""
        return CheckpointStore(self.paths.checkpoints).load(
            RunState.from_file, RunState.check_frames
        )

    def outcome(self) -> dict[str, str]:
        """A hash of each thing that the run has come to, but for the clock."""
        checkpoint = self.checkpoint()
        config = checkpoint.state.config
        state = to_plain(checkpoint.state)
        progress = state["progress"]
        frames = np.concatenate([block for _, block in checkpoint.frames])
        rows = progress["trainer"]["replay"]["rows_written"] - checkpoint.frames[0][0]
        kept = config.replay.replay_capacity // config.exploration.num_envs
        del progress["records"]
        without_clock(progress["trainer"])
        without_clock(progress["evaluator"]["best"])
        model = SavedModel.load(self.paths.model)
        evaluation = asdict(model.evaluation)
        without_clock(evaluation)
        return {
            "networks and optimizer": digest(state["learner"]),
            "replay": digest(
                [progress["trainer"].pop("replay"), frames[rows - min(rows, kept) : rows]]
            ),
            "progress": digest(progress),
            "model": digest([model.weights, model.optimizer, evaluation]),
            **{path.name: digest(table(path)) for path in self._tables()},
        }

    def _tables(self) -> tuple[Path, ...]:
        return self.paths.episodes_csv, self.paths.updates_csv, self.paths.evaluations_csv


def without_clock(record: dict[str, Any]) -> None:
    for name in CLOCK:
        record.pop(name, None)


def table(path: Path) -> str:
    frame = pd.read_csv(path, dtype=str)
    return frame.drop(columns=[name for name in CLOCK if name in frame]).to_csv()


def digest(value: Any) -> str:
    """A hash of nested dictionaries, sequences, arrays and plain values."""
    state = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, torch.Tensor):
            item = item.contiguous().numpy()
        if isinstance(item, np.ndarray):
            state.update(f"{item.dtype} {item.shape}".encode())
            state.update(np.ascontiguousarray(item).data)
        elif isinstance(item, dict):
            state.update(f"dict {len(item)}".encode())
            for key in sorted(item, key=str):
                add(key)
                add(item[key])
        elif isinstance(item, list | tuple):
            state.update(f"list {len(item)}".encode())
            for element in item:
                add(element)
        else:
            state.update(repr(item).encode() + b";")

    add(value)
    return state.hexdigest()[:16]


def reference(folder: Path, name: str, episodes: int, seed: int) -> dict[str, str]:
    """What a run that nobody disturbs ends with."""
    run = Run(folder, name, episodes, seed)
    run.finish()
    outcome = run.outcome()
    run.remove()
    return outcome
