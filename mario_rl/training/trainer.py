"""The training loop.

One step of the loop: the actions are chosen, the games play them in other processes, and meanwhile
the updates are begun that the replay ratio asks for at this point of the run. An update runs in a
thread, over several steps of the games if they are that fast; its weights and priorities are used
from when the next one falls due, not from when it happens to be done. Nothing depends on timing, so
that a run is a function of its config and seed. Its clock is `env_steps`, the decisions of all
games together.
"""

import copy
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from mario_rl.agent.exploration import Exploration
from mario_rl.agent.learner import Learner
from mario_rl.agent.schedules import importance_exponent, learning_rate
from mario_rl.config import Config
from mario_rl.device import gpu_memory
from mario_rl.errors import UserError
from mario_rl.evaluation.play import (
    EpisodeResult,
    most_stages_cleared,
    play_episodes,
    rank,
    summarize,
)
from mario_rl.games.interface import OUTCOMES, Games
from mario_rl.machine import resident_memory_bytes
from mario_rl.replay.n_step import NStepAccumulator, Transitions
from mario_rl.replay.prioritized import PrioritizedReplay
from mario_rl.storage.recorder import Recorder
from mario_rl.storage.records import EpisodeRecord, EvaluationRecord, UpdateRecord
from mario_rl.training.rollout import Episode, Rollout, RolloutState

UPDATE_RECORD_PERIOD = 250  # env steps between two rows of updates.csv
_CONFIRMATION = 4  # times as many games are played again by a policy that may be the best
_EVALUATION_SEEDS = 1 << 31  # from here on, so that games of eval_mario.py never chose the model
_COUNTERS = (
    "env_steps", "updates", "episodes", "furthest", "best_evaluation", "evaluated_at",
    "checkpointed_episodes",
)  # fmt: skip


class Trainer:
    """One run: its learner, replay and games, and what has happened so far."""

    def __init__(
        self,
        config: Config,
        learner: Learner,
        games: Games,
        recorder: Recorder,
        frames_device: torch.device | None = None,
    ) -> None:
        """
        Args:
            frames_device: where the replay keeps its frames; None is main memory.
        """
        self.config = config
        self.learner = learner
        self.recorder = recorder
        num_envs = games.num_envs
        self.replay = PrioritizedReplay(config.replay, num_envs, frames_device)
        self._n_step = NStepAccumulator(config.learner.n_step, config.learner.gamma, num_envs)
        seeds = np.random.SeedSequence(config.run.seed).spawn(2)
        self.rollout = Rollout(games, Exploration(config.exploration, seeds[0]))
        self._sample_rng = np.random.default_rng(seeds[1])

        self.env_steps = 0
        self.updates = 0
        self.episodes = 0
        self.best_evaluation: dict[str, Any] | None = None
        self.last_update: UpdateRecord | None = None
        self.evaluated_at = 0  # env steps
        self.checkpointed_episodes = 0
        self.recent_returns: deque[float] = deque(maxlen=100)
        self.furthest = (0, 0, 0)  # world, stage, x

        self._slots = np.zeros(num_envs, dtype=np.int64)  # of the current frames in the replay
        # The update whose result is due: its slots, and the rows written when they were drawn.
        self._learning = np.zeros(0, dtype=np.int64)
        self._learning_since = 0
        # loss, |TD error|, Q and gradient norm of the updates since the last row of updates.csv
        self._results: list[tuple[float, float, float, float]] = []
        self._hours_before = 0.0
        self._started = time.monotonic()
        self._recorded = (self._started, 0, 0)  # time, env steps and updates, for the speeds

    @property
    def hours(self) -> float:
        """Training time over all sessions."""
        return self._hours_before + (time.monotonic() - self._started) / 3600

    @property
    def epsilon(self) -> float:
        return self.rollout.exploration.epsilon(self.env_steps)

    @property
    def importance_exponent(self) -> float:
        return importance_exponent(self.config.replay, self.env_steps)

    def step(self) -> None:
        """One decision in every game, and the updates that fall due with it."""
        before = self.env_steps
        q_values = self.learner.acting_net.q_values(self.replay.ring.stacks(self._slots))
        self.rollout.step_async(q_values, self.env_steps)
        self._learn()
        self._observe()
        if self._passed(self.config.learner.target_period, before):
            self.learner.sync_target()
        if self._passed(UPDATE_RECORD_PERIOD, before):
            self._record_updates()

    def _passed(self, period: int, before: int) -> bool:
        return self.env_steps // period > before // period

    def _learn(self) -> None:
        """Begin the updates that are due by the replay ratio."""
        config = self.config.learner
        learned_steps = self.env_steps - config.learning_starts
        due = int(learned_steps * config.replay_ratio / config.batch_size) - self.updates
        for _ in range(due):
            self._use_result()
            batch = self.replay.sample(
                config.batch_size, self.importance_exponent, self._sample_rng
            )
            self.learner.set_learning_rate(learning_rate(config, self.env_steps))
            self.learner.begin_update(batch)
            self._learning, self._learning_since = batch.slots, self.replay.ring.rows_written
            self.updates += 1

    def _use_result(self) -> None:
        """Take over the priorities and weights of the last update."""
        result = self.learner.fetch_result()
        if result is None:
            return
        if not math.isfinite(result.loss):
            raise UserError(
                f"the loss is {result.loss} at update {self.updates}: training has diverged; "
                "start again with a lower --learning-rate"
            )
        self.replay.update_priorities(self._learning, result.td_errors, self._learning_since)
        self._results.append(
            (result.loss, float(abs(result.td_errors).mean()), result.q_value, result.grad_norm)
        )

    def _observe(self) -> None:
        """Wait for what the games did, and store it."""
        frames, actions, records, ended = self.rollout.step_wait()
        slots, self._slots = self._slots, self.replay.append_frames(frames, actions < 0)
        completed = []
        for i in np.flatnonzero(actions >= 0):
            self.env_steps += 1
            completed += self._n_step.append(
                i,
                int(slots[i]),
                int(actions[i]),
                float(records[i]["reward"]) * self.config.learner.reward_scale,
                bool(records[i]["terminated"]),
                bool(records[i]["truncated"]),
            )
            if i in ended:
                self._record_episode(i, ended[i], records[i])
        if completed:
            self.replay.add(Transitions.of(completed))

    def _record_episode(self, env: int, episode: Episode, record: np.ndarray) -> None:
        self.episodes += 1
        place = int(record["world"]), int(record["stage"]), int(record["max_x"])
        self.furthest = max(self.furthest, place)
        if episode.start_step == 0:
            self.recent_returns.append(episode.episode_return)
        self.recorder.episode(
            EpisodeRecord(
                episode=self.episodes,
                env_steps=self.env_steps,
                hours=self.hours,
                env=env,
                epsilon=float(self.rollout.exploration.epsilons(self.env_steps)[env]),
                **episode._asdict(),
                max_x=place[2],
                world=place[0],
                stage=place[1],
                stages_cleared=int(record["stages_cleared"]),
                game_score=int(record["game_score"]),
                coins=int(record["coins"]),
                time_left=int(record["time_left"]),
                outcome=OUTCOMES[record["outcome"]],
            )
        )

    def _record_updates(self) -> None:
        """Write a row of updates.csv, if there were any updates."""
        before, self._recorded = self._recorded, (time.monotonic(), self.env_steps, self.updates)
        if not self._results:
            return
        seconds, env_steps, updates = np.subtract(self._recorded, before)
        loss, td_error, q_value, grad_norm = np.mean(self._results, axis=0)
        reserved, peak = gpu_memory(self.learner.device)
        self.last_update = UpdateRecord(
            env_steps=self.env_steps,
            updates=self.updates,
            episodes=self.episodes,
            hours=self.hours,
            loss=float(loss),
            td_error=float(td_error),
            q_value=float(q_value),
            grad_norm=float(grad_norm),
            epsilon=self.epsilon,
            importance_exponent=self.importance_exponent,
            env_steps_per_s=float(env_steps / seconds),
            updates_per_s=float(updates / seconds),
            memory_bytes=resident_memory_bytes(),
            gpu_reserved_bytes=reserved,
            gpu_peak_bytes=peak,
        )
        self.recorder.update(self.last_update)
        self._results = []

    def budget_spent(self) -> float:
        """The share of the budget that is used up; 1 or more when the run is over."""
        run = self.config.run
        shares = [self.episodes / run.num_episodes]
        if run.max_steps is not None:
            shares.append(self.env_steps / run.max_steps)
        if run.max_hours is not None:
            shares.append(self.hours / run.max_hours)
        return max(shares)

    def evaluation_due(self) -> bool:
        """Whether a multiple of the interval, or the end of the run, is reached since the last."""
        interval = self.config.evaluation.eval_interval
        return self.env_steps // interval > self.evaluated_at // interval or (
            self.budget_spent() >= 1 and self.env_steps > self.evaluated_at
        )

    def evaluate(self, games: Games, should_stop: Callable[[], bool]) -> EvaluationRecord | None:
        """Play evaluation episodes in games of their own, and record the outcome.

        Few games tell little, and the best of many evaluations is the luckiest as well: a policy
        that cleared something, and may be the best by the 95 % interval of what it clears, is
        played on, and is the best if it then is.

        Returns:
            The record; None if `should_stop` ended the evaluation early, which then stays due.
        """
        self.learner.wait()
        began = time.monotonic()

        def play(episodes: int, first_episode: int) -> list[EpisodeResult]:
            return play_episodes(
                self.learner.average_net.q_values,
                games,
                episodes,
                seed=_EVALUATION_SEEDS + self.config.run.seed + self.env_steps,
                first_episode=first_episode,
                should_stop=should_stop,
            )

        episodes = self.config.evaluation.eval_episodes
        results = play(episodes, 0)
        if should_stop():
            return None
        evaluation = summarize(results)
        most = self.best_evaluation["mean_stages_cleared"] if self.best_evaluation else 0
        if evaluation["clears"] and most_stages_cleared(results) >= most:
            evaluation = summarize(results + play(_CONFIRMATION * episodes, episodes))
            if should_stop():
                return None
        is_best = self._is_best(evaluation)
        record = EvaluationRecord(
            env_steps=self.env_steps,
            updates=self.updates,
            episodes=self.episodes,
            hours=self.hours,
            is_best=int(is_best),
            **evaluation,
        )
        if is_best:
            self.best_evaluation = asdict(record)
        self.evaluated_at = self.env_steps
        self.recorder.evaluation(record)
        # The speeds in the next row of updates.csv are those of training.
        since, env_steps, updates = self._recorded
        self._recorded = (since + time.monotonic() - began, env_steps, updates)
        return record

    def _is_best(self, evaluation: dict[str, Any]) -> bool:
        return self.best_evaluation is None or rank(evaluation) > rank(self.best_evaluation)

    def checkpoint_due(self) -> bool:
        interval = self.config.run.checkpoint_interval
        return self.episodes // interval > self.checkpointed_episodes // interval

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that the future of the run depends on, but the learner and the replay's
        frames."""
        state = {
            "counters": {name: getattr(self, name) for name in _COUNTERS},
            "hours": self.hours,
            "recent_returns": list(self.recent_returns),
            "results": self._results,
            "sample_rng": self._sample_rng.bit_generator.state,
            "replay": self.replay.state_dict(),
            "rollout": asdict(self.rollout.state()),
            "n_step": self._n_step.state_dict(),
            "learning": self._learning,
            "learning_since": self._learning_since,
            "records": {
                name: np.frombuffer(content, dtype=np.uint8)
                for name, content in self.recorder.contents().items()
            },
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any], frames: list[tuple[int, np.ndarray]]) -> None:
        """The inverse of `state_dict`: bring the games, too, to where they were.

        Raises:
            UserError: if the emulator does not play the games as it did.
        """
        for name in _COUNTERS:
            setattr(self, name, state["counters"][name])
        self._hours_before = state["hours"]
        self.recent_returns.extend(state["recent_returns"])
        self._results = state["results"]
        self._sample_rng.bit_generator.state = state["sample_rng"]
        self.replay.load_state_dict(state["replay"], frames)
        self._n_step.load_state_dict(state["n_step"])
        self._learning = np.asarray(state["learning"], dtype=np.int64)
        self._learning_since = state["learning_since"]
        self._slots = self.replay.ring.newest_slots()
        seen = self.rollout.load_state(RolloutState(**state["rollout"]))
        if seen is not None:
            newest = self.replay.ring.frames_of(self.replay.ring.rows[-1:])[0][0]
            if not np.array_equal(seen, newest):
                raise UserError(
                    "the emulator does not play the games as it did when the checkpoint was "
                    "written; resume with the versions that run.json names"
                )
        self._started = time.monotonic()
        self._recorded = (self._started, self.env_steps, self.updates)
