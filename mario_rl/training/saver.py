"""Writes a run's checkpoints and its best model while training goes on.

What cannot be written is tried again: once at once, and then with every checkpoint. A full disk, or
a folder that is read-only for a while, does not end the training. Only the end of a run needs a
checkpoint that succeeds.
"""

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from mario_rl.agent.saved_model import Lineage, SavedModel
from mario_rl.console import warn
from mario_rl.device import shortage
from mario_rl.errors import RunInUse, UserError, reason
from mario_rl.evaluation.figures import Evaluation
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.files import file_version
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.plain import to_plain
from mario_rl.training.description import describe_run
from mario_rl.training.evaluator import Evaluator, EvaluatorState
from mario_rl.training.identity import require_own_model, require_own_stats
from mario_rl.training.state import Progress, RunState
from mario_rl.training.trainer import Trainer


class Saver:
    """Owns a run's files, apart from its records."""

    def __init__(
        self,
        paths: RunPaths,
        trainer: Trainer,
        evaluator: Evaluator,
        store: CheckpointStore,
        lineage: Lineage,
        confirm_lock: Callable[[], None],
        model: SavedModel | None = None,
        model_is_written: bool = True,
        checkpointed_episodes: int = 0,
    ) -> None:
        """
        Args:
            confirm_lock: raises RunInUse if another process has taken the run over.
            model: the best so far.
            model_is_written: whether its file is that of the best.
            checkpointed_episodes: the number of episodes at the newest checkpoint.
        """
        self._paths = paths
        self._trainer = trainer
        self._evaluator = evaluator
        self._store = store
        self._lineage = lineage
        self._confirm_lock = confirm_lock
        self._model = model
        self._written_model = file_version(paths.model) if model_is_written else None
        self._checkpointed_episodes = checkpointed_episodes
        self._instant: tuple[int, EvaluatorState] | None = None  # of the newest checkpoint
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._saving: Future[None] | None = None  # the checkpoint that is being written
        self._rows_being_saved = range(0)
        self._failure: UserError | None = None  # of the newest checkpoint
        self._failures = 0  # in a row

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        interval = self._trainer.config.run.checkpoint_interval
        passed = self._trainer.episodes // interval > self._checkpointed_episodes // interval
        return passed or self._failures == 1

    def take_model(self, evaluation: Evaluation) -> None:
        """Write the policy, which is the best so far, as the run's model."""
        state = self._trainer.learner.begin_state().result()
        self._model = SavedModel(
            run_name=self._paths.run_name,
            config=self._trainer.config,
            lineage=self._lineage,
            evaluation=evaluation,
            weights=state.average_net or state.online_net,
            optimizer=state.optimizer,
            averaged_updates=state.averaged_updates,
        )
        self._written_model = None
        self.begin()

    def begin(self) -> None:
        """Begin to write a checkpoint, unless the newest is of this instant. Training continues
        meanwhile."""
        self.wait()
        trainer = self._trainer
        instant = (trainer.replay.ring.rows_written, self._evaluator.state())
        if instant == self._instant:
            return
        self._instant = instant
        self._checkpointed_episodes = trainer.episodes
        try:
            # The next step changes what is in it.
            progress = copy.deepcopy(self._progress())
            learner, rows = trainer.learner.begin_state(), trainer.replay.ring.rows
        except (RuntimeError, MemoryError) as error:
            self._fail(error)
            return
        new_rows = self._rows_being_saved = self._store.new_rows(rows)

        def save_state() -> None:
            unwritten = None if self._model_is_written() else self._model
            progress_now = replace(progress, unwritten_model=unwritten)
            state = RunState(trainer.config, self._lineage, learner.result(), progress_now)
            self._store.save(to_plain(state), rows, new_rows, trainer.replay.ring.frames_of)

        def save() -> None:
            self._confirm_lock()
            errors = []
            # The model first: a checkpoint that knows of it must find it. But a file that cannot
            # be written must not prevent the others.
            for part in (self._save_model, save_state, self._save_records):
                try:
                    part()
                except (OSError, UserError) as error:
                    errors.append(reason(error))
            if errors:
                raise UserError("; ".join(errors))

        self._saving = self._thread.submit(save)

    def _progress(self) -> Progress:
        """A view of it."""
        return Progress(
            trainer=self._trainer.state(),
            evaluator=self._evaluator.state(),
            checkpointed_episodes=self._checkpointed_episodes,
            records={
                name: np.frombuffer(content, dtype=np.uint8)
                for name, content in self._trainer.recorder.contents().items()
            },
        )

    def _model_is_written(self) -> bool:
        """Whether the file is still the one that this process wrote or read."""
        written = self._written_model
        return written is not None and written == file_version(self._paths.model)

    def _save_model(self) -> None:
        if self._model is None or self._model_is_written():
            return
        require_own_model(self._paths, self._lineage)
        self._model.save(self._paths.model)
        self._written_model = file_version(self._paths.model)

    def _save_records(self) -> None:
        """And what describes the run, if somebody deleted it."""
        require_own_stats(self._paths, self._lineage)
        self._trainer.recorder.sync()
        if not (self._paths.config_json.exists() and self._paths.run_json.exists()):
            describe_run(self._paths, self._trainer.config, self._lineage)

    def before_step(self) -> None:
        """Wait if the next step would overwrite a frame that is being saved."""
        overwritten = self._trainer.replay.ring.overwritten_row in self._rows_being_saved
        if self._saving is not None and (overwritten or self._saving.done()):
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint is written that was begun.

        Raises:
            RunInUse: if another process has taken the run over; this one must end.
        """
        if self._saving is None:
            return
        saving, self._saving = self._saving, None
        try:
            saving.result()
            self._failure, self._failures = None, 0
        except RunInUse:
            raise
        except (UserError, OSError, RuntimeError, MemoryError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """The checkpoint could not be written. Errors that no user can mend are raised."""
        if isinstance(error, RuntimeError | MemoryError):
            line = shortage(error)
            if line is None:
                raise error
            error = line
        warn(f"{reason(error)}; training goes on, and the next checkpoint tries again")
        self._failure, self._failures = UserError(reason(error)), self._failures + 1
        self._instant = None

    def finish(self) -> None:
        """Write the last checkpoint.

        Raises:
            UserError: if it cannot be written.
            RunInUse: as in `wait`.
        """
        for _ in range(2):  # the second does nothing if the first succeeds
            self.begin()
            self.wait()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Wait for what is being written."""
        self.wait()
        self._thread.shutdown()
