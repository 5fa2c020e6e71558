"""How cost grows with envs, batch size, replay capacity and cores: docs/performance.md's tables.

`python -m benchmarks.scaling` measures one thing after the other, each the median of a few rounds;
absolute figures, so they are the machine's as much as the program's.
"""

import dataclasses
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.actors import play_at_random
from benchmarks.harness import scaled
from benchmarks.learner import new_learner, random_batch
from benchmarks.training import CONFIG, new_trainer, train
from mario_rl.agent.network import DuelingNetwork
from mario_rl.config import STACK, ReplayConfig
from mario_rl.games.workers import WorkerGames
from mario_rl.machine import available_cores
from mario_rl.replay.prioritized import PrioritizedReplay

FRAME_SHAPE = CONFIG.env.frame_shape


def median_ms(play: Callable[..., object], *arguments: Any, rounds: int = 5) -> float:
    """The median time of a call after the first, in milliseconds."""
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        play(*arguments)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[1:])


def envs_table() -> None:
    print("\n| envs | inference, ms | share of a core's emulation | env steps/s of the loop |")
    print("| --- | --- | --- | --- |")
    for num_envs in (4, 8, 16, 32):
        network = DuelingNetwork(7, frame_size=FRAME_SHAPE[0])
        obs = np.zeros((STACK, num_envs, *FRAME_SHAPE), dtype=np.uint8).swapaxes(0, 1)
        inference = median_ms(network.q_values, obs, rounds=20)
        config = CONFIG.replaced({"num_envs": num_envs, "learning_starts": 1024})
        with tempfile.TemporaryDirectory() as directory:
            trainer = new_trainer(config, Path(directory))
            train(trainer, 1024 + 256)
            answer = train(trainer, scaled(512))
            trainer.rollout.games.close()
        speed = answer["work"] / answer["seconds"]
        share = inference / (1000 * num_envs / actors_per_s(1))
        print(f"| {num_envs} | {inference:.1f} | {share:.1%} | {speed:.0f} |", flush=True)


@functools.cache
def actors_per_s(cores: int) -> float:
    """Decisions/s of 8 games on a number of cores, with nothing else to do."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(allowed)[:cores]))
    games = WorkerGames(CONFIG.env, 8, print)
    rng = np.random.default_rng(0)
    done = np.ones(8, dtype=np.bool_)
    steps = scaled(20)

    milliseconds = median_ms(play_at_random, games, done, rng, steps)
    games.close()
    os.sched_setaffinity(0, allowed)
    return 1000 * 8 * steps / milliseconds


def update_ms(batch_size: int) -> float:
    return median_ms(new_learner("ours").update, random_batch(batch_size))


def batch_table() -> None:
    print("\n| batch | update, ms | samples/s |\n| --- | --- | --- |")
    for batch_size in (32, 64, 128, 256, 512):
        update = update_ms(batch_size)
        print(f"| {batch_size} | {update:.0f} | {1000 * batch_size / update:.0f} |", flush=True)


def capacity_table() -> None:
    print("\n| capacity | sample of 256, ms | new priorities, ms | GB |\n| --- | --- | --- | --- |")
    for capacity in (10_000, 50_000, 100_000, 200_000):
        config = ReplayConfig(replay_capacity=capacity)
        replay, rng = PrioritizedReplay(config, 8, FRAME_SHAPE), np.random.default_rng(0)
        state = dataclasses.replace(
            replay.state(), age=np.full(capacity, STACK - 1), steps=np.full(capacity, 3),
            priorities=rng.random(capacity) + 0.01, rows_written=2 * replay.ring.num_rows,
        )  # fmt: skip
        block = np.ones((replay.ring.num_rows, 8, *FRAME_SHAPE), dtype=np.uint8)
        replay.load_state(state, [(0, block)])
        del block
        sample = median_ms(replay.sample, 256, 0.4, rng, rounds=40)
        batch, errors = replay.sample(256, 0.4, rng), rng.random(256)
        update = median_ms(replay.update_priorities, batch.slots, errors, batch.drawn_at, rounds=40)
        size = PrioritizedReplay.required_bytes(config, FRAME_SHAPE) / 1e9
        print(f"| {capacity:,} | {sample:.1f} | {update:.2f} | {size:.2f} |", flush=True)


def cores_table() -> None:
    print("\n| cores | emulation, env steps/s | update of 256, ms |\n| --- | --- | --- |")
    for cores in range(1, available_cores() + 1):
        speed = actors_per_s(cores)
        torch.set_num_threads(cores)
        print(f"| {cores} | {speed:.0f} | {update_ms(256):.0f} |", flush=True)
    torch.set_num_threads(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    cores_table()
    batch_table()
    capacity_table()
    envs_table()
