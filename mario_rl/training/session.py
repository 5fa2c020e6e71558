"""One process's share of a run: the loop with evaluations, checkpoints and what is shown."""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mario_rl.agent.saved_model import Lineage, Model
from mario_rl.device import gpu_memory
from mario_rl.evaluation.play import brief, cleared, stages_a_game
from mario_rl.games.interface import Games
from mario_rl.machine import resident_memory_bytes
from mario_rl.registry import BACKENDS
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.files import RunPaths
from mario_rl.training.display import Progress, Status
from mario_rl.training.trainer import Trainer


class Session:
    """One process's share of a run."""

    def __init__(
        self,
        paths: RunPaths,
        trainer: Trainer,
        store: CheckpointStore,
        lineage: Lineage,
        display: Progress,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._paths = paths
        self._trainer = trainer
        self._store = store
        self._lineage = lineage
        self._eval_games: Games | None = None  # started with the first evaluation
        self._display = display
        self._stop_requested = stop_requested
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._saving: Future[None] | None = None  # the checkpoint that is being written
        self._rows_being_saved = range(0)

    def close(self) -> None:
        self._thread.shutdown()
        if self._eval_games is not None:
            self._eval_games.close()

    def run(self) -> None:
        trainer = self._trainer
        self._display.update(self._status())
        # What an iteration starts from is evaluated, too.
        evaluate = self._lineage.iteration > 1 and trainer.best_evaluation is None
        while True:
            new_model = (evaluate or trainer.evaluation_due()) and self._evaluate()
            evaluate = False
            # A run that is killed after a new model must know of it.
            save = new_model or trainer.checkpoint_due()
            if save:
                self._save()
            if self._stop_requested() or trainer.budget_spent() >= 1:
                break
            self._before_step()
            trainer.step()
            if self._display.due:
                self._display.update(self._status())
        if not save:
            self._save()
        self._finish_saving()
        self._display.update(self._status())
        self._say_farewell()

    def _evaluate(self) -> bool:
        """Returns whether there is a new model."""
        trainer = self._trainer
        if self._eval_games is None:
            config = trainer.config
            self._eval_games = BACKENDS.get(config.run.games)(
                config.env, config.exploration.num_envs, self._display.line
            )
        record = trainer.evaluate(self._eval_games, self._stop_requested)
        if record is None:
            return False
        if record.is_best:
            state = trainer.learner.state_dict()
            Model(
                run_name=self._paths.run_name,
                config=trainer.config,
                lineage=self._lineage,
                evaluation=asdict(record),
                weights=state["average_net"],
                optimizer=state["optimizer"],
                averaged_updates=state["averaged_updates"],
            ).save(self._paths.model)
        stages = stages_a_game(asdict(record), trainer.config.env.stage)
        self._display.line(
            f"evaluation at {record.env_steps:,} steps: {record.clears} of "
            f"{record.eval_episodes} cleared{stages}, mean x {record.mean_x:.0f}, "
            f"best x {record.max_x}" + (f" -> {self._paths.model}" if record.is_best else "")
        )
        return bool(record.is_best)

    def _save(self) -> None:
        """Begin to write a checkpoint of this instant. Training goes on meanwhile."""
        self._finish_saving()
        trainer = self._trainer
        trainer.checkpointed_episodes = trainer.episodes
        state = {
            "config": trainer.config.to_dict(),
            "lineage": asdict(self._lineage),
            "progress": trainer.state_dict(),
        }
        learner, rows = trainer.learner.begin_state_dict(), trainer.replay.ring.rows
        self._rows_being_saved = self._store.new_rows(rows)

        def write() -> None:
            self._store.save(
                {**state, "learner": learner.result()}, rows, trainer.replay.ring.frames_of
            )
            trainer.recorder.sync()

        self._saving = self._thread.submit(write)

    def _before_step(self) -> None:
        """Let no frame be overwritten that is being saved, and learn of failures."""
        overwritten = self._trainer.replay.ring.overwritten_row in self._rows_being_saved
        if self._saving is not None and (overwritten or self._saving.done()):
            self._finish_saving()

    def _finish_saving(self) -> None:
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def _status(self) -> Status:
        trainer = self._trainer
        returns, best = trainer.recent_returns, trainer.best_evaluation
        return Status(
            episodes=trainer.episodes,
            num_episodes=trainer.config.run.num_episodes,
            env_steps=trainer.env_steps,
            updates=trainer.updates,
            epsilon=trainer.epsilon,
            loss=trainer.last_update.loss if trainer.last_update else None,
            mean_return=sum(returns) / len(returns) if returns else None,
            furthest=trainer.furthest,
            best=cleared(best, trainer.config.env.stage) if best else "-",
            memory_bytes=resident_memory_bytes(),
            gpu_bytes=gpu_memory(trainer.learner.device)[0],
            budget_spent=trainer.budget_spent(),
        )

    def _say_farewell(self) -> None:
        trainer, paths = self._trainer, self._paths
        if trainer.budget_spent() < 1 or trainer.evaluation_due():
            self._display.line(f"stopped and saved; go on with: {resume_command(paths)}")
            return
        self._display.line(
            f"finished: {trainer.episodes} episodes, {trainer.env_steps:,} steps, "
            f"{trainer.hours:.2f} h (a larger budget with --resume goes on)"
        )
        if (best := trainer.best_evaluation) is not None:
            figures = brief(best, trainer.config.env.stage)
            self._display.line(f"best model: {paths.model} ({figures})")


def resume_command(paths: RunPaths) -> str:
    """The command line that goes on with a run, as it works in the current directory."""
    script = Path(__file__).parents[2] / "progressive_mario_trainer.py"
    words = [_python(), _relative(script), "--run-name", paths.run_name, "--resume"]
    if paths.output_dir.resolve() != Path.cwd():
        words += ["--output-dir", str(paths.output_dir)]
    return shlex.join(words)


def _python() -> str:
    """The interpreter as a short name if that finds the same one."""
    found = shutil.which("python")
    same = found is not None and Path(found).absolute() == Path(sys.executable).absolute()
    return "python" if same else _relative(Path(sys.executable))


def _relative(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """While inside, SIGINT and SIGTERM are only noted; a second SIGINT interrupts at once."""
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        if number in received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
