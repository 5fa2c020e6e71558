"""Resident memory of the replay, in KB (1,000 bytes) per stored transition.

Every round fills a replay in a fresh process, so that all of its pages are really there.
"""

from typing import Any

import numpy as np

from benchmarks.harness import ROUNDS, Contender, Result, Turns, main, result, scaled
from mario_rl.config import ReplayConfig
from mario_rl.machine import resident_memory_bytes
from mario_rl.replay.n_step import Transitions
from mario_rl.replay.prioritized import PrioritizedReplay

CAPACITY = scaled(200_000)
NUM_ENVS = 8
N_STEP = 3
GAMMA = 0.9
EPISODE_STEPS = 200
FRAME_SHAPE = 84, 84


def run() -> Result:
    kilobytes = []
    for number in range(min(5, ROUNDS)):
        with Contender(__spec__.name, "ours") as ours:
            answer = ours.round(benchmark="replay_memory", round=number)
        kilobytes.append(answer["bytes"] / answer["transitions"] / 1000)
    return result(5, "replay_memory", kilobytes, bar=7.3, at_most=True)


def filled_replay(rng: np.random.Generator) -> tuple[PrioritizedReplay, np.ndarray]:
    """A full replay of random frames and 3-step transitions, and the slots of those."""
    replay = PrioritizedReplay(ReplayConfig(replay_capacity=CAPACITY), NUM_ENVS, FRAME_SHAPE)
    slots = np.zeros((replay.ring.num_rows, NUM_ENVS), dtype=np.int64)
    for row in range(replay.ring.num_rows):
        frames = rng.integers(256, size=(NUM_ENVS, *FRAME_SHAPE), dtype=np.uint8)
        is_first = np.full(NUM_ENVS, row % EPISODE_STEPS == 0)
        slots[row] = replay.append_frames(frames, is_first)
        if row >= N_STEP:
            replay.add(_transitions(slots[row - N_STEP], rng))
    return replay, slots[:-N_STEP].ravel()


def _transitions(slots: np.ndarray, rng: np.random.Generator) -> Transitions:
    return Transitions(
        slots=slots,
        actions=rng.integers(7, size=len(slots), dtype=np.uint8),
        returns=rng.random(len(slots), dtype=np.float32),
        discounts=np.full(len(slots), GAMMA**N_STEP, dtype=np.float32),
        steps=np.full(len(slots), N_STEP, dtype=np.uint8),
    )


def _ours(turns: Turns) -> None:
    def fill() -> dict[str, Any]:
        before = resident_memory_bytes()
        replay, slots = filled_replay(np.random.default_rng(0))
        stored = len(slots)
        del slots
        grown = resident_memory_bytes() - before
        assert replay.ring.rows_written == replay.ring.num_rows
        return {"bytes": grown, "transitions": stored}

    turns.play(fill)


if __name__ == "__main__":
    main(run, {"ours": _ours})
