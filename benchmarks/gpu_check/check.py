"""What the checks share: what they are given, and what they return."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learner import random_batch
from mario_rl.agent.dqn import DQN
from mario_rl.config import Config
from mario_rl.registry import LEARNERS
from mario_rl.replay.prioritized import Batch
from mario_rl.training.assembly import build_learner

CONFIG = Config().replaced({"stage": "1-1"})


@dataclass(frozen=True)
class Outcome:
    """The result of a check."""

    name: str
    passed: bool | None  # None: it was skipped
    text: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """How much the checks do. On a CPU they are only tried."""

    workers: int
    batch_size: int
    updates: int  # that are timed
    slots: int  # of the replay
    loop_s: float  # of one measurement of the loop
    learning_starts: int


SIZES = {
    "cuda": Sizes(16, 256, 100, 24_000, 8.0, 2_000),
    "cpu": Sizes(2, 16, 2, 1_024, 0.2, 32),
}


@dataclass(frozen=True)
class Check:
    """What a check is given."""

    device: torch.device
    directory: Path  # for files; it is deleted at the end
    deadline: float  # by time.monotonic

    @property
    def sizes(self) -> Sizes:
        return SIZES[self.device.type]

    def left_s(self) -> float:
        return self.deadline - time.monotonic()


@dataclass(frozen=True)
class Part:
    """One or several checks."""

    name: str
    seconds: int  # that it takes on a usual machine; it is skipped if less time is left
    run: Callable[[Check], Iterator[Outcome]]
    needs_cuda: bool = False

    def outcomes(self, check: Check) -> Iterator[Outcome]:
        """Run it, unless it cannot be run. An error in it is an outcome."""
        left_s = check.left_s()
        if self.needs_cuda and check.device.type != "cuda":
            yield Outcome(self.name, None, "needs CUDA")
        elif left_s < self.seconds:
            yield Outcome(self.name, None, f"may take {self.seconds} s, and {left_s:.0f} are left")
        else:
            try:
                yield from self.run(check)
            except Exception as error:
                message = " ".join(str(error).split())
                yield Outcome(self.name, False, f"{type(error).__name__}: {message:.300}")


def _captured(network: Any, config: Any) -> DQN:
    return DQN(network, config, captured=True)


LEARNERS.add("captured", _captured)


def new_learner(
    device: torch.device, dtype: torch.dtype, config: Config = CONFIG, name: str = "dqn"
) -> DQN:
    """The default learner or, by the name "captured", the same with a CUDA graph."""
    learner = build_learner(config.replaced({"learner": name}), device, dtype)
    assert isinstance(learner, DQN)
    return learner


def new_batch(sizes: Sizes, device: torch.device) -> Batch:
    """As the replay on the device returns it."""
    batch = random_batch(sizes.batch_size, CONFIG.env.frame_size)
    obs, next_obs = (
        torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
        for pixels in (batch.obs, batch.next_obs)
    )
    return batch._replace(obs=obs, next_obs=next_obs)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
