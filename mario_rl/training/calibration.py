"""How many threads PyTorch should have on this machine, measured before training.

The learner and the games share the cores. With T threads an env step takes at least

    max(r / B * U(T),  (T * r / B * U(T) + e) / C)

seconds: one update follows another, and all work must fit on the cores. U(T) is the time of an
update of B transitions with T threads, r the replay ratio, e one decision's time on one core, and C
the number of cores. The number with the least is taken. It is recorded, because the order in which
threads add numbers changes the last bits.
"""

import statistics
import time
from contextlib import closing

import numpy as np
import torch

from mario_rl.agent.learner import Learner
from mario_rl.config import STACK, Config
from mario_rl.games.actions import action_names
from mario_rl.games.mario_game import MarioGame
from mario_rl.machine import available_cores
from mario_rl.replay.prioritized import Batch

_DECISIONS = 30
_UPDATES = 3


def fastest_threads(config: Config, learner: Learner) -> int:
    """See the module.

    Args:
        learner: one that nobody needs: its weights change.
    """
    cores = available_cores()
    updates_per_step = config.learner.replay_ratio / config.learner.batch_size
    decision_s = _decision_s(config) if cores > 1 else 0.0

    def step_s(threads: int) -> float:
        learning_s = updates_per_step * _update_s(config, learner, threads)
        return max(learning_s, (threads * learning_s + decision_s) / cores)

    return min((threads for threads in (1, 2, 4, 8, 16) if threads <= cores), key=step_s)


def _decision_s(config: Config) -> float:
    with closing(MarioGame(config.env)) as game:
        game.reset()
        start = time.perf_counter()
        for _ in range(_DECISIONS):
            game.step(0)
        return (time.perf_counter() - start) / _DECISIONS


def _update_s(config: Config, learner: Learner, threads: int) -> float:
    torch.set_num_threads(threads)
    size = config.learner.batch_size
    observations = np.zeros((size, STACK, *config.env.frame_shape), dtype=np.uint8)
    ones = np.ones(size, dtype=np.float32)
    actions = np.arange(size, dtype=np.uint8) % len(action_names(config.env.action_set))
    batch = Batch(np.arange(size), 0, observations, actions, ones, ones, observations, ones)
    durations = []
    for _ in range(1 + _UPDATES):
        start = time.perf_counter()
        learner.begin_update(batch)
        learner.fetch_update()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations[1:])
