"""Evaluations during training: when they are due, what is played, and which policy is the best."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from mario_rl.evaluation.figures import Evaluation, most_stages_cleared, summarize
from mario_rl.evaluation.play import PlayedEpisode, play_episodes
from mario_rl.fields import Count
from mario_rl.games.interface import Games, Position
from mario_rl.storage.records import EVALUATIONS
from mario_rl.training.budget import budget_spent
from mario_rl.training.trainer import Trainer

_CONFIRMATION = 4  # a policy that may be the best plays this many times as many games again
_SEEDS = 1 << 31  # the first: smaller ones are for eval_mario.py, whose games choose no model


@dataclass(frozen=True)
class EvaluatorState:
    """Everything that the future of an evaluator depends on."""

    best: Evaluation | None = None
    evaluated_at: Count = 0  # env steps


class Evaluator:
    """Judges the policy of a trainer.

    Attributes:
        typical: the game of the last evaluation whose return is the median.
    """

    typical: Position

    def __init__(self, trainer: Trainer, state: EvaluatorState) -> None:
        self._trainer = trainer
        self.best = state.best
        self.evaluated_at = state.evaluated_at

    def state(self) -> EvaluatorState:
        return EvaluatorState(self.best, self.evaluated_at)

    @property
    def due(self) -> bool:
        """Whether a multiple of the interval, or the end, was reached since the last evaluation."""
        trainer = self._trainer
        interval = trainer.config.evaluation.eval_interval
        return trainer.env_steps // interval > self.evaluated_at // interval or (
            budget_spent(trainer) >= 1 and trainer.env_steps > self.evaluated_at
        )

    def evaluate(self, games: Games, should_stop: Callable[[], bool]) -> Evaluation | None:
        """Play evaluation episodes, and record the outcome.

        Few games tell little, and the best of many evaluations is also the luckiest. So a policy
        that cleared something, and may be the best by the 95 % interval of what it clears, plays
        more games. It becomes the best only if all its games together are better.

        Args:
            games: not those of the training.

        Returns:
            The evaluation; it is also `best` if it is the best so far. None if `should_stop` ended
            it early: it is then still due.
        """
        trainer = self._trainer
        trainer.learner.wait()
        with trainer.update_log.paused():
            played = self._play(games, should_stop)
        if played is None:
            return None
        self.typical = _median(played).position
        evaluation = summarize(
            [one.episode for one in played],
            env_steps=trainer.env_steps,
            updates=trainer.updates,
            episodes=trainer.episodes,
            hours=trainer.hours,
        )
        if self.best is None or evaluation.rank > self.best.rank:
            self.best = evaluation
        self.evaluated_at = trainer.env_steps
        is_best = int(self.best is evaluation)
        trainer.recorder.record(EVALUATIONS, {**asdict(evaluation), "is_best": is_best})
        return evaluation

    def skip(self) -> None:
        """Go on without the evaluation that is due."""
        self.evaluated_at = self._trainer.env_steps

    def _play(self, games: Games, should_stop: Callable[[], bool]) -> list[PlayedEpisode] | None:
        config = self._trainer.config

        def play(episodes: int, first_episode: int) -> list[PlayedEpisode]:
            return play_episodes(
                self._trainer.learner.average_net.q_values,
                games,
                episodes,
                seed=_SEEDS + config.run.seed + self._trainer.env_steps,
                first_episode=first_episode,
                should_stop=should_stop,
            )

        episodes = config.evaluation.eval_episodes
        played = play(episodes, 0)
        if should_stop():
            return None
        most = self.best.mean_stages_cleared if self.best else 0
        results = [one.episode for one in played]
        cleared = any(result.stages_cleared for result in results)
        if cleared and most_stages_cleared(results) >= most:
            played += play(_CONFIRMATION * episodes, episodes)
        return None if should_stop() else played


def _median(played: list[PlayedEpisode]) -> PlayedEpisode:
    return sorted(played, key=lambda one: one.episode.episode_return)[len(played) // 2]
