"""Sums rewards into n-step transitions (Sutton 1988); they are shorter at an episode's end."""

from typing import Annotated, NamedTuple

import numpy as np

from mario_rl.fields import Action, Items, Slot, Within


class Transition(NamedTuple):
    """An n-step transition that begins at a slot of the replay."""

    slot: int
    action: int
    n_step_return: float  # discounted sum of the rewards
    discount: float  # gamma^k, or 0 at a terminal state
    steps: int  # k, the number of rewards summed


class Transitions(NamedTuple):
    """Many transitions."""

    slots: np.ndarray  # int64 [B]
    actions: np.ndarray  # uint8 [B]
    returns: np.ndarray  # float32 [B]
    discounts: np.ndarray  # float32 [B]
    steps: np.ndarray  # uint8 [B]

    @classmethod
    def of(cls, transitions: list[Transition]) -> "Transitions":
        """From a list of at least one."""
        dtypes = (np.int64, np.uint8, np.float32, np.float32, np.uint8)
        columns = zip(*transitions, strict=True)
        return cls(*map(np.array, columns, dtypes))


# A sum of `n_step` of them, at most 32, is a float32.
_Reward = Annotated[float, Within("[-1e37, 1e37]")]
Pending = tuple[Slot, Action, _Reward]  # a `PendingStep` in a checkpoint
# The pending steps of each game.
AllPending = Annotated[
    list[Annotated[list[Pending], Items("[0, n_step)")]], Items("[num_envs, num_envs]")
]


class PendingStep(NamedTuple):
    """A step whose transition is not complete yet."""

    slot: int
    action: int
    reward: float


class NStepAccumulator:
    """See the module."""

    def __init__(self, n_step: int, gamma: float, num_envs: int) -> None:
        self._n_step = n_step
        self._gamma = gamma
        self._pending: list[list[PendingStep]] = [[] for _ in range(num_envs)]  # of each game

    def append(
        self, env: int, slot: int, action: int, reward: float, terminated: bool, truncated: bool
    ) -> list[Transition]:
        """Take one step of one game.

        When the episode ends, every pending step is completed with the rewards so far. After a
        termination the discount is 0, so that nothing is bootstrapped; after a truncation it is
        not.

        Returns:
            The transitions that this step completes.
        """
        pending = self._pending[env]
        pending.append(PendingStep(slot, action, reward))
        done = terminated or truncated
        completed = []
        while pending and (done or len(pending) == self._n_step):
            value = 0.0
            for step in reversed(pending):
                value = step.reward + self._gamma * value
            discount = 0.0 if terminated else self._gamma ** len(pending)
            first, length = pending[0], len(pending)
            completed.append(Transition(first.slot, first.action, value, discount, length))
            del pending[0]
        return completed

    def state(self) -> AllPending:
        """The pending steps of each game, as plain tuples."""
        return [
            [(step.slot, step.action, step.reward) for step in steps] for steps in self._pending
        ]

    def load_state(self, pending: AllPending) -> None:
        self._pending = [[PendingStep(*step) for step in steps] for steps in pending]
