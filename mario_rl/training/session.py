"""A run in this process: the training loop, evaluations, checkpoints, and what is shown."""

from mario_rl.console import warn
from mario_rl.device import gpu_memory, shortage
from mario_rl.errors import RunInUse, UserError, first_line, reason
from mario_rl.evaluation.figures import Evaluation
from mario_rl.evaluation.recording import record_game
from mario_rl.games.interface import Games
from mario_rl.machine import resident_memory_bytes
from mario_rl.storage.paths import RunPaths
from mario_rl.training.assembly import build_games
from mario_rl.training.budget import budget_spent
from mario_rl.training.display import Display, Status
from mario_rl.training.evaluator import Evaluator
from mario_rl.training.resume_command import resume_command
from mario_rl.training.saver import Saver
from mario_rl.training.signals import Signals
from mario_rl.training.trainer import Trainer

# Of an evaluation. They need not concern the training: too few files, processes or memory.
_FAILURES = (OSError, UserError, MemoryError)


class Session:
    """The part of a run that this process trains."""

    def __init__(
        self,
        paths: RunPaths,
        trainer: Trainer,
        evaluator: Evaluator,
        saver: Saver,
        display: Display,
        signals: Signals,
        evaluate_first: bool = False,
    ) -> None:
        """
        Args:
            evaluate_first: whether to evaluate before the first step.
        """
        self._paths = paths
        self._trainer = trainer
        self._evaluator = evaluator
        self._saver = saver
        self._display = display
        self._signals = signals
        self._evaluate_first = evaluate_first
        self._eval_games: Games | None = None  # started with the first evaluation
        self._records_best = trainer.config.run.record_best

    def close(self) -> None:
        self._close_eval_games()

    def run(self) -> None:
        """Train until the budget is spent or somebody asks for a stop.

        Raises:
            UserError: if the last evaluation or the last checkpoint fails.
        """
        trainer, saver = self._trainer, self._saver
        self._display.update(self._status())
        evaluate = self._evaluate_first
        while True:
            if evaluate or self._evaluator.due:
                saver.begin()  # whatever happens in the evaluation
                self._evaluate()
                evaluate = False
            elif saver.due:
                saver.begin()
            if budget_spent(trainer) >= 1:
                break
            if self._signals.stop_requested():
                self._display.line("stopping: the run is being saved")
                break
            saver.before_step()
            trainer.step()
            trainer.discount(self._signals.take_suspended_s())
            if self._display.due:
                self._display.update(self._status())
        saver.finish()
        self._display.update(self._status())
        self._display.close()  # the command to go on is the last line
        self._say_farewell()

    def _evaluate(self) -> None:
        """Evaluate, and try again if that fails. If it fails again, training goes on without this
        evaluation; at the end of the run, that is an error."""
        for is_last_try in (False, True):
            try:
                self._try_to_evaluate()
                return
            except RunInUse:
                raise
            except _FAILURES as error:
                self._close_eval_games()
                if not is_last_try:
                    warn(f"the evaluation failed: {reason(error)}; trying again")
                    continue
                if budget_spent(self._trainer) >= 1:
                    raise UserError(f"the last evaluation failed: {reason(error)}") from None
                warn(f"the evaluation failed again: {reason(error)}; training goes on without it")
                self._evaluator.skip()

    def _try_to_evaluate(self) -> None:
        config = self._trainer.config
        if self._eval_games is None:
            num_envs = config.exploration.num_envs
            self._eval_games = build_games(config, num_envs, self._display.line)
        try:
            stop_requested = self._signals.stop_requested
            evaluation = self._evaluator.evaluate(self._eval_games, stop_requested)
        except RuntimeError as error:
            if (line := shortage(error)) is None:
                raise
            raise line from None
        if evaluation is None:
            return
        is_best = evaluation is self._evaluator.best
        if is_best:
            self._saver.take_model(evaluation)
        self._display.line(
            f"evaluation at {evaluation.env_steps:,} steps: {evaluation.clears} of "
            f"{evaluation.eval_episodes} cleared{evaluation.stages_a_game(config.env.stage)}, "
            f"mean x {evaluation.mean_x:.0f}, best x {evaluation.max_x}"
            + (f" -> {self._paths.model}" if is_best else "")
        )
        if is_best and self._records_best:
            self._record_best(evaluation)

    def _record_best(self, best: Evaluation) -> None:
        """A video of a typical game. If that fails, the run makes no more of them."""
        path = self._paths.best_video(best.env_steps)
        try:
            record_game(self._trainer.config.env, self._evaluator.typical, path)
            self._trainer.recorder.record_video(path, best.env_steps)
        except Exception as error:  # of a library, or for want of memory: the run goes on
            warn(f"no video of the best model: {first_line(error)}; this run records no more")
            self._records_best = False

    def _close_eval_games(self) -> None:
        if self._eval_games is not None:
            self._eval_games.close()
            self._eval_games = None

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
