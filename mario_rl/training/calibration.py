"""How many threads PyTorch should have for an update on this machine, measured before training.

More threads make an update faster, and take cores from the games; and where a game interrupts one
of them, all others wait for it. So updates and games are measured together, as they run in
training. The number is recorded, because the order in which threads add numbers changes the last
bits.
"""

import time

import numpy as np

from mario_rl.agent.learner import Learner
from mario_rl.config import STACK, Config
from mario_rl.games.actions import action_names
from mario_rl.games.interface import RESET, RUNNING, Games
from mario_rl.machine import available_cores
from mario_rl.replay.prioritized import Batch

_UPDATES = 20  # of a measurement
_MAX_STEPS = 200  # of the games in a measurement, where updates are rare


def candidates() -> list[int]:
    """The numbers of threads that are tried."""
    return [threads for threads in (1, 2, 4, 8, 16) if threads <= available_cores()]


def fastest_threads(config: Config, learner: Learner, games: Games) -> int:
    """The candidate with which env steps take the least time.

    Args:
        learner, games: some that nobody needs: their weights and positions change.
    """
    step_s(config, learner, games, 1)  # the first updates and the first steps are slow
    return min(candidates(), key=lambda threads: step_s(config, learner, games, threads))


def step_s(config: Config, learner: Learner, games: Games, threads: int) -> float:
    """Seconds for a step of all games beside the updates that are due for it."""
    learner.set_threads(threads)
    batch = _batch(config)
    updates_per_step = games.num_envs * config.learner.replay_ratio / config.learner.batch_size
    steps = min(_MAX_STEPS, max(1, round(_UPDATES / updates_per_step)))
    noop_frames = np.zeros(games.num_envs, dtype=np.int32)
    commands = np.full(games.num_envs, RESET)
    due = 0.0
    start = time.perf_counter()
    for _ in range(steps):
        games.step_async(commands, noop_frames)
        due += updates_per_step
        while due >= 1:
            learner.fetch_update()
            learner.begin_update(batch)
            due -= 1
        _, records = games.step_wait()
        commands = np.where(records["outcome"] == RUNNING, 1, RESET)
    learner.fetch_update()
    return (time.perf_counter() - start) / steps


def _batch(config: Config) -> Batch:
    size = config.learner.batch_size
    observations = np.zeros((size, STACK, *config.env.frame_shape), dtype=np.uint8)
    ones = np.ones(size, dtype=np.float32)
    actions = np.arange(size, dtype=np.uint8) % len(action_names(config.env.action_set))
    return Batch(np.arange(size), 0, observations, actions, ones, ones, observations, ones)
