"""A run in this process: the training loop, evaluations, checkpoints, and what is shown."""

import copy
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mario_rl.agent.saved_model import Lineage, SavedModel
from mario_rl.device import gpu_memory
from mario_rl.evaluation.figures import Evaluation
from mario_rl.games.interface import Games
from mario_rl.machine import resident_memory_bytes
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.plain import to_plain
from mario_rl.training.assembly import build_games
from mario_rl.training.budget import budget_spent
from mario_rl.training.display import Display, Status
from mario_rl.training.evaluator import Evaluator
from mario_rl.training.identity import require_own_model
from mario_rl.training.state import Progress, RunState
from mario_rl.training.trainer import Trainer

# Those of pyproject.toml that train.
_INSTALLED_COMMANDS = ("mario-train", "mario-continue")


class Session:
    """The part of a run that this process trains."""

    def __init__(
        self,
        paths: RunPaths,
        trainer: Trainer,
        evaluator: Evaluator,
        store: CheckpointStore,
        lineage: Lineage,
        display: Display,
        stop_requested: Callable[[], bool],
        checkpointed_episodes: int = 0,
    ) -> None:
        """
        Args:
            checkpointed_episodes: the number of episodes at the newest checkpoint.
        """
        self._paths = paths
        self._trainer = trainer
        self._evaluator = evaluator
        self._store = store
        self._lineage = lineage
        self._display = display
        self._stop_requested = stop_requested
        self._checkpointed_episodes = checkpointed_episodes
        self._eval_games: Games | None = None  # started with the first evaluation
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._saving: Future[None] | None = None  # the checkpoint that is being written
        self._rows_being_saved = range(0)

    def close(self) -> None:
        self._thread.shutdown()
        if self._eval_games is not None:
            self._eval_games.close()

    def run(self) -> None:
        """Train until the budget is spent or somebody asks for a stop."""
        trainer, evaluator = self._trainer, self._evaluator
        self._display.update(self._status())
        # A continued run is evaluated before its first step.
        evaluate = self._lineage.iteration > 1 and evaluator.best is None
        while True:
            new_model = (evaluate or evaluator.due) and self._evaluate()
            evaluate = False
            # A run that is killed after a new model must still know of it.
            save = new_model or self._checkpoint_due()
            if save:
                self._save()
            if self._stop_requested() or budget_spent(trainer) >= 1:
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
        config = self._trainer.config
        if self._eval_games is None:
            num_envs = config.exploration.num_envs
            self._eval_games = build_games(config, num_envs, self._display.line)
        evaluation = self._evaluator.evaluate(self._eval_games, self._stop_requested)
        if evaluation is None:
            return False
        is_best = evaluation is self._evaluator.best
        if is_best:
            self._save_model(evaluation)
        self._display.line(
            f"evaluation at {evaluation.env_steps:,} steps: {evaluation.clears} of "
            f"{evaluation.eval_episodes} cleared{evaluation.stages_a_game(config.env.stage)}, "
            f"mean x {evaluation.mean_x:.0f}, best x {evaluation.max_x}"
            + (f" -> {self._paths.model}" if is_best else "")
        )
        return is_best

    def _save_model(self, evaluation: Evaluation) -> None:
        require_own_model(self._paths, self._lineage)
        state = self._trainer.learner.begin_state().result()
        SavedModel(
            run_name=self._paths.run_name,
            config=self._trainer.config,
            lineage=self._lineage,
            evaluation=evaluation,
            weights=state.average_net or state.online_net,
            optimizer=state.optimizer,
            averaged_updates=state.averaged_updates,
        ).save(self._paths.model)

    def _checkpoint_due(self) -> bool:
        interval = self._trainer.config.run.checkpoint_interval
        return self._trainer.episodes // interval > self._checkpointed_episodes // interval

    def _save(self) -> None:
        """Begin to write a checkpoint of this instant. Training continues meanwhile."""
        self._finish_saving()
        trainer = self._trainer
        self._checkpointed_episodes = trainer.episodes
        progress = Progress(
            trainer=trainer.state(),
            evaluator=self._evaluator.state(),
            checkpointed_episodes=self._checkpointed_episodes,
            records={
                name: np.frombuffer(content, dtype=np.uint8)
                for name, content in trainer.recorder.contents().items()
            },
        )
        progress = copy.deepcopy(progress)  # the next step changes what is in it
        learner, rows = trainer.learner.begin_state(), trainer.replay.ring.rows
        self._rows_being_saved = self._store.new_rows(rows)

        def write() -> None:
            state = RunState(trainer.config, self._lineage, learner.result(), progress)
            self._store.save(to_plain(state), rows, trainer.replay.ring.frames_of)
            trainer.recorder.sync()

        self._saving = self._thread.submit(write)

    def _before_step(self) -> None:
        """Wait if a frame that is being saved would be overwritten; raise errors of the saving."""
        overwritten = self._trainer.replay.ring.overwritten_row in self._rows_being_saved
        if self._saving is not None and (overwritten or self._saving.done()):
            self._finish_saving()

    def _finish_saving(self) -> None:
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def _status(self) -> Status:
        trainer = self._trainer
        returns, best = trainer.recent_returns, self._evaluator.best
        return Status(
            episodes=trainer.episodes,
            num_episodes=trainer.config.run.num_episodes,
            env_steps=trainer.env_steps,
            updates=trainer.updates,
            epsilon=trainer.epsilon,
            loss=trainer.update_log.loss,
            mean_return=sum(returns) / len(returns) if returns else None,
            furthest=trainer.furthest,
            best=best.cleared(trainer.config.env.stage) if best else "-",
            memory_bytes=resident_memory_bytes(),
            gpu_bytes=gpu_memory(trainer.learner.device)[0],
            budget_spent=budget_spent(trainer),
        )

    def _say_farewell(self) -> None:
        trainer, paths = self._trainer, self._paths
        if budget_spent(trainer) < 1 or self._evaluator.due:
            self._display.line(f"stopped and saved; go on with: {resume_command(paths)}")
            return
        self._display.line(
            f"finished: {trainer.episodes} episodes, {trainer.env_steps:,} steps, "
            f"{trainer.hours:.2f} h (to continue: --resume and a larger budget)"
        )
        if (best := self._evaluator.best) is not None:
            figures = best.brief(trainer.config.env.stage)
            self._display.line(f"best model: {paths.model} ({figures})")


def resume_command(paths: RunPaths) -> str:
    """The command line that resumes a run, for the current directory.

    It names the installed command if this process was started by an installed command, or else the
    script.
    """
    started = Path(sys.argv[0])
    if started.name in _INSTALLED_COMMANDS:
        words = [_shortest("mario-train", started.with_name("mario-train"))]
    else:
        script = Path(__file__).parents[2] / "progressive_mario_trainer.py"
        words = [_shortest("python", Path(sys.executable)), _relative(script)]
    words += ["--run-name", paths.run_name, "--resume"]
    if paths.output_dir.resolve() != Path.cwd():
        words += ["--output-dir", str(paths.output_dir)]
    return shlex.join(words)


def _shortest(name: str, program: Path) -> str:
    """The name, if that finds the same program, or else its path."""
    found = shutil.which(name)
    same = found is not None and Path(found).absolute() == program.absolute()
    return name if same else _relative(program)


def _relative(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Inside the block SIGINT and SIGTERM are only noted; a second SIGINT interrupts at once.

    Only the main thread may handle signals; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
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
