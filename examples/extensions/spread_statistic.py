"""A statistic: the largest TD error of each update, in updates.csv, TensorBoard and `read_run`."""

from dataclasses import replace

from mario_rl.agent.dqn import DQN
from mario_rl.agent.learner import Update
from mario_rl.replay.prioritized import Batch


class WatchedDQN(DQN):
    """The default learner, which tells one number more."""

    def update(self, batch: Batch) -> Update:
        update = super().update(batch)
        largest = float(abs(update.td_errors).max())
        return replace(update, metrics={**update.metrics, "largest_td_error": largest})
