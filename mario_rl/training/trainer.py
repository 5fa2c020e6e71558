"""The training loop.

In one step of the loop the actions are chosen and the games play them in other processes. Meanwhile
the updates begin that the replay ratio asks for. An update runs in a thread, and may take several
steps. Its weights and priorities are used when the next update is due, not when it happens to be
done. So nothing depends on timing, and a run is a function of its config and seed. The clock is
`env_steps`, the decisions of all games together. docs/architecture.md draws it.
"""

import math
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np

from mario_rl.agent.learner import MAX_TD_ERROR, Learner
from mario_rl.agent.schedules import importance_exponent, learning_rate
from mario_rl.config import Config
from mario_rl.errors import Diverged, UserError
from mario_rl.fields import AnyFloat, ColumnName, Count, Hours, Items
from mario_rl.games.interface import Episode
from mario_rl.replay.n_step import AllPending, NStepAccumulator, Transitions
from mario_rl.replay.prioritized import PrioritizedReplay, ReplayState
from mario_rl.storage.generator_state import GeneratorState
from mario_rl.storage.recorder import Recorder
from mario_rl.storage.records import EPISODES, check_metrics
from mario_rl.training.rollout import Rollout, RolloutState
from mario_rl.training.update_log import UpdateLog

UPDATE_RECORD_PERIOD = 250  # env steps between two rows of updates.csv


@dataclass(frozen=True)
class TrainerState:
    """Everything that the future of the loop depends on, except the learner and the frames."""

    env_steps: Count
    updates: Count
    episodes: Count
    furthest: tuple[Count, Count, Count]
    hours: Hours
    recent_returns: list[float]
    # Of the updates since the last row of updates.csv
    metrics: dict[ColumnName, Annotated[list[AnyFloat], Items("[1, 1e9]")]]
    sample_rng: GeneratorState
    replay: ReplayState
    rollout: RolloutState
    n_step: AllPending

    def check(self, config: Config) -> None:
        """
        Raises:
            ValueError: names a field that does not fit the others.
        """
        due = updates_due(config, self.env_steps)
        before = updates_due(config, self.env_steps - config.exploration.num_envs)  # the last step
        if not before <= self.updates <= due:
            raise ValueError(
                f"updates is {self.updates}, and must be in [{before}, {due}] after env_steps "
                f"{self.env_steps}"
            )
        if self.metrics:
            check_metrics(self.metrics)
        self.rollout.check()
        if self.replay.rows_written == 0 and self.rollout.has_begun:
            raise ValueError("replay.rows_written is 0, and something was played")
        pending = [step for steps in self.n_step for step in steps]
        # Until the first transition is complete, all steps are pending.
        if not self.replay.priorities.any() and len(pending) != self.env_steps:
            raise ValueError(
                f"replay.priorities are all 0 after env_steps {self.env_steps}, of which "
                f"{len(pending)} are pending in n_step"
            )
        written = min(len(self.replay.age), self.replay.rows_written * config.exploration.num_envs)
        if any(slot >= written for slot, _, _ in pending):
            raise ValueError(
                f"n_step has a slot beyond those of rows_written {self.replay.rows_written}"
            )


def updates_due(config: Config, env_steps: int) -> int:
    """How many updates the replay ratio asks for until then."""
    learner = config.learner
    learned_steps = env_steps - learner.learning_starts
    return max(0, int(learned_steps * learner.replay_ratio / learner.batch_size))


class Trainer:
    """One run: its learner, replay and games, and what has happened so far."""

    def __init__(
        self,
        config: Config,
        learner: Learner,
        replay: PrioritizedReplay,
        rollout: Rollout,
        sample_rng: np.random.Generator,
        recorder: Recorder,
    ) -> None:
        """
        Args:
            sample_rng: for drawing transitions from the replay.
        """
        num_envs = config.exploration.num_envs
        self.config = config
        self.learner = learner
        self.replay = replay
        self.rollout = rollout
        self.recorder = recorder
        self.update_log = UpdateLog(recorder)
        self._sample_rng = sample_rng
        self._n_step = NStepAccumulator(config.learner.n_step, config.learner.gamma, num_envs)

        self.env_steps = 0
        self.updates = 0
        self.episodes = 0
        self.recent_returns: deque[float] = deque(maxlen=100)
        self.furthest = (0, 0, 0)  # world, stage, x

        self._slots = np.zeros(num_envs, dtype=np.int64)  # of the current frames in the replay
        self._hours_before = 0.0
        self._started = time.monotonic()

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

    def discount(self, seconds: float) -> None:
        """Time in which the process was stopped: it does not count."""
        self._started += seconds
        self.update_log.discount(seconds)

    def step(self) -> None:
        """One decision in every game, and the updates that are due with it."""
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
        for _ in range(updates_due(self.config, self.env_steps) - self.updates):
            self._use_update()
            batch = self.replay.sample(
                config.batch_size, self.importance_exponent, self._sample_rng
            )
            self.learner.set_learning_rate(learning_rate(config, self.env_steps))
            self.learner.begin_update(batch)
            self.updates += 1

    def _use_update(self) -> None:
        """Take over the priorities and weights of the last update."""
        update = self.learner.fetch_update()
        if update is None:
            return
        try:
            update.check()
        except ValueError as error:
            raise UserError(
                f"--learner {self.config.learner.learner} returned an update whose {error}"
            ) from None
        loss, td_error = update.metrics["loss"], float(abs(update.td_errors).max())
        if not (math.isfinite(loss) and td_error <= MAX_TD_ERROR):
            raise Diverged(
                f"the loss is {loss} at update {self.updates}, the greatest TD error {td_error:.4g}"
                ": training has diverged; start again with a lower --learning-rate"
            )
        self.replay.update_priorities(update.slots, update.td_errors, update.drawn_at)
        self.update_log.add(update.metrics)

    def _observe(self) -> None:
        """Wait for what the games did, and store it."""
        step = self.rollout.step_wait()
        slots, self._slots = self._slots, self.replay.append_frames(step.frames, step.is_first)
        completed = []
        for i in np.flatnonzero(~step.is_first):
            self.env_steps += 1
            record = step.records[i]
            completed += self._n_step.append(
                i,
                int(slots[i]),
                int(step.actions[i]),
                float(record["reward"]) * self.config.learner.reward_scale,
                bool(record["terminated"]),
                bool(record["truncated"]),
            )
            if i in step.ended:
                self._record_episode(i, step.ended[i])
        if completed:
            self.replay.add(Transitions.of(completed))

    def _record_episode(self, env: int, episode: Episode) -> None:
        self.episodes += 1
        self.furthest = max(self.furthest, (episode.world, episode.stage, episode.max_x))
        if episode.start_step == 0:
            self.recent_returns.append(episode.episode_return)
        self.recorder.record(
            EPISODES,
            {
                "episode": self.episodes,
                "env_steps": self.env_steps,
                "hours": self.hours,
                "env": env,
                "epsilon": float(self.rollout.exploration.epsilons(self.env_steps)[env]),
                **asdict(episode),
            },
        )

    def _record_updates(self) -> None:
        self.update_log.record(
            env_steps=self.env_steps,
            updates=self.updates,
            episodes=self.episodes,
            hours=self.hours,
            epsilon=self.epsilon,
            importance_exponent=self.importance_exponent,
            device=self.learner.device,
        )

    def state(self) -> TrainerState:
        """A view of the state: copy it before the next step."""
        return TrainerState(
            env_steps=self.env_steps,
            updates=self.updates,
            episodes=self.episodes,
            furthest=self.furthest,
            hours=self.hours,
            recent_returns=list(self.recent_returns),
            metrics=self.update_log.metrics,
            sample_rng=GeneratorState.of(self._sample_rng),
            replay=self.replay.state(),
            rollout=self.rollout.state(),
            n_step=self._n_step.state(),
        )

    def load_state(self, state: TrainerState, frames: list[tuple[int, np.ndarray]]) -> None:
        """The inverse of `state`. It brings the games to where they were, too.

        Args:
            frames: the replay's, (first row, uint8 [rows, N, H, W]), oldest first.

        Raises:
            UserError: if the emulator does not play the games as it did.
        """
        self.env_steps = state.env_steps
        self.updates = state.updates
        self.episodes = state.episodes
        self.furthest = state.furthest
        self._hours_before = state.hours
        self.recent_returns.extend(state.recent_returns)
        state.sample_rng.restore(self._sample_rng)
        self.replay.load_state(state.replay, frames)
        self._n_step.load_state(state.n_step)
        self._slots = self.replay.ring.newest_slots()
        seen = self.rollout.load_state(state.rollout)
        if seen is not None:
            newest = self.replay.ring.frames_of(self.replay.ring.rows[-1:])[0][0]
            if not np.array_equal(seen, newest):
                raise UserError(
                    "the emulator does not play the games as it did when the checkpoint was "
                    "written; resume with the versions that run.json names"
                )
        self._started = time.monotonic()
        self.update_log.resume(state.metrics, state.env_steps, state.updates)
