"""Other libraries' replays of 200,000 transitions between stacks of four frames, from 8 games.

Each is set up for 3-step returns the way its documentation says, prioritized where the library
offers it, and filled with random pixels. A `Draw` makes one batch and writes new priorities.
"""

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.replay_memory import CAPACITY, EPISODE_STEPS, GAMMA, N_STEP, NUM_ENVS
from mario_rl.config import STACK

Draw = Callable[[], None]

BATCH_SIZE = 256
PRIORITY_EXPONENT = 0.6
IMPORTANCE_EXPONENT = 0.4
FRAME_SHAPE = 84, 84  # of Mnih et al. 2015
OBS_SHAPE = (STACK, *FRAME_SHAPE)
NUM_ACTIONS = 7


def errors(rng: np.random.Generator, count: int) -> np.ndarray:
    """TD errors, float32 [count]."""
    return rng.exponential(size=count).astype(np.float32)


def _new_errors(rng: np.random.Generator) -> Iterator[np.ndarray]:
    return itertools.cycle([errors(rng, BATCH_SIZE) for _ in range(16)])


def _transitions(rng: np.random.Generator, count: int, done: np.ndarray | bool) -> dict[str, Any]:
    """Random transitions, by column."""
    return {
        "obs": rng.integers(256, size=(count, *OBS_SHAPE), dtype=np.uint8),
        "next_obs": rng.integers(256, size=(count, *OBS_SHAPE), dtype=np.uint8),
        "action": rng.integers(NUM_ACTIONS, size=count),
        "reward": rng.random(count, dtype=np.float32),
        "done": np.broadcast_to(done, count),
    }


def _steps(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """What fills a replay, one step of all games after the other."""
    for row in range(CAPACITY // NUM_ENVS):
        yield _transitions(rng, NUM_ENVS, done=row % EPISODE_STEPS == EPISODE_STEPS - 1)


def _episodes(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """What fills a replay, one episode after the other."""
    done = np.arange(EPISODE_STEPS) == EPISODE_STEPS - 1
    for _ in range(CAPACITY // EPISODE_STEPS):
        yield _transitions(rng, EPISODE_STEPS, done)


def stable_baselines3() -> Draw:
    """Has an n-step replay, but no prioritized one, so its batches are uniform; the n-step replay
    refuses `optimize_memory_usage`, so it holds both stacks."""
    from gymnasium import spaces  # type: ignore[import-not-found,unused-ignore]
    from stable_baselines3.common.buffers import (  # type: ignore[import-not-found,unused-ignore]
        NStepReplayBuffer,
    )

    buffer = NStepReplayBuffer(
        CAPACITY,
        spaces.Box(0, 255, OBS_SHAPE, np.uint8),
        spaces.Discrete(NUM_ACTIONS),
        device="cpu",
        n_envs=NUM_ENVS,
        n_steps=N_STEP,
        gamma=GAMMA,
    )
    for step in _steps(np.random.default_rng(0)):
        buffer.add(**step, infos=[{}] * NUM_ENVS)

    def draw() -> None:
        buffer.sample(BATCH_SIZE)

    return draw


def cpprb() -> Draw:
    """Its memory compression, `next_of` and `stack_compress`, does not work with N steps, as its
    documentation says, so it holds both stacks; an episode is added as a whole, as it says too."""
    from cpprb import PrioritizedReplayBuffer  # type: ignore[import-not-found,unused-ignore]

    pixels = {"shape": OBS_SHAPE, "dtype": np.uint8}
    buffer = PrioritizedReplayBuffer(
        CAPACITY,
        {
            "obs": pixels,
            "next_obs": pixels,
            "action": {"dtype": np.uint8},
            "reward": {},
            "done": {},
        },
        alpha=PRIORITY_EXPONENT,
        Nstep={"size": N_STEP, "gamma": GAMMA, "rew": "reward", "next": "next_obs"},
    )
    rng = np.random.default_rng(0)
    for episode in _episodes(rng):
        buffer.add(**episode)
        buffer.on_episode_end()
    stored = buffer.get_stored_size()
    buffer.update_priorities(np.arange(stored), errors(rng, stored))
    new_errors = _new_errors(rng)

    def draw() -> None:
        batch = buffer.sample(BATCH_SIZE, IMPORTANCE_EXPONENT)
        buffer.update_priorities(batch["indexes"], next(new_errors))

    return draw


def torchrl() -> Draw:
    """Its MultiStepTransform sums the rewards when transitions are stored, which is not timed;
    what it stores, both stacks, is stored here. In memory: faster than its memory-mapped files.

    No wheel of it is built for torch 2.13. This one lacks a function there, which the replay does
    not call, and so loads if functions are looked up when they are called.
    """
    sys.setdlopenflags(os.RTLD_LAZY)
    import torch
    from tensordict import TensorDict  # type: ignore[import-not-found,unused-ignore]
    from torchrl.data import (  # type: ignore[import-not-found,unused-ignore]
        LazyTensorStorage,
        TensorDictPrioritizedReplayBuffer,
    )

    buffer = TensorDictPrioritizedReplayBuffer(
        alpha=PRIORITY_EXPONENT,
        beta=IMPORTANCE_EXPONENT,
        storage=LazyTensorStorage(CAPACITY),
        batch_size=BATCH_SIZE,
    )
    rng = np.random.default_rng(0)
    for episode in _episodes(rng):
        columns = {name: torch.from_numpy(column) for name, column in episode.items()}
        after = {
            "obs": columns.pop("next_obs"),
            "reward": columns.pop("reward")[:, None],
            "done": columns["done"][:, None],
            "terminated": columns.pop("done")[:, None],
        }
        steps = len(columns["obs"])
        buffer.extend(TensorDict({**columns, "next": after}, batch_size=[steps]))
    stored = len(buffer)
    buffer.update_priority(torch.arange(stored), torch.from_numpy(errors(rng, stored)))
    new_errors = map(torch.from_numpy, _new_errors(rng))

    def draw() -> None:
        batch = buffer.sample()
        batch["td_error"] = next(new_errors)
        buffer.update_tensordict_priority(batch)

    return draw


def tianshou() -> Draw:
    """Stores every frame once (`save_only_last_obs`, `ignore_obs_next`), and stacks and sums the
    rewards when it samples. Its own DQN stacks four times for a batch (`sample` and `buffer[...]`
    fetch both sides of a transition, each time); here it does so twice."""
    import torch
    from tianshou.algorithm import Algorithm  # type: ignore[import-not-found,unused-ignore]
    from tianshou.data import (  # type: ignore[import-not-found,unused-ignore]
        Batch,
        PrioritizedVectorReplayBuffer,
    )

    buffer = PrioritizedVectorReplayBuffer(
        CAPACITY,
        NUM_ENVS,
        alpha=PRIORITY_EXPONENT,
        beta=IMPORTANCE_EXPONENT,
        stack_num=STACK,
        save_only_last_obs=True,
        ignore_obs_next=True,
    )
    rng = np.random.default_rng(0)
    for step in _steps(rng):
        buffer.add(
            Batch(
                obs=step["obs"],
                act=step["action"],
                rew=step["reward"],
                terminated=step["done"],
                truncated=np.zeros_like(step["done"]),
            )
        )
    stored = len(buffer)
    buffer.update_weight(np.arange(stored), errors(rng, stored))
    new_errors = _new_errors(rng)

    def draw() -> None:
        indices = buffer.sample_indices(BATCH_SIZE)
        batch = Batch(obs=buffer.get(indices, "obs"), act=buffer.act[indices])
        batch.weight = buffer.get_weight(indices)

        def next_obs_of(_: Any, last_steps: np.ndarray) -> torch.Tensor:
            batch.obs_next = buffer.get(buffer.next(last_steps), "obs")
            return torch.zeros(len(last_steps))  # in place of the network's values

        Algorithm.compute_nstep_return(batch, buffer, indices, next_obs_of, GAMMA, N_STEP)
        buffer.update_weight(indices, next(new_errors))

    return draw


PEERS: dict[str, Callable[[], Draw]] = {
    "stable_baselines3": stable_baselines3,
    "cpprb": cpprb,
    "torchrl": torchrl,
    "tianshou": tianshou,
}
